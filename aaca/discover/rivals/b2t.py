"""`b2t`: keywords of failures' captions that failures look like and right images do not (Kim et al., CVPR 2024)."""

import numpy as np

from aaca.data.table import ImageTable
from aaca.discover.concepts.keywords import captions_of, keywords, kinds_of
from aaca.discover.concepts.vocabulary import TEXTS
from aaca.discover.rivals.base import Findings, Suspect, WordRival
from aaca.runtime.errors import ConfigError
from aaca.world.language import with_article


class B2T(WordRival):
    """CLIP score of a keyword: mean cosine with a class's failures less mean cosine with its right images (eq. 1).

    Keywords come from the dataset's captions by frequency (the paper: a captioner, and YAKE).

    Args:
        least: failures of a class that a keyword has to be said of.
        most: keywords a class.
        vocabulary: a YAML file that says what kind of thing a keyword is.

    """

    def __init__(self, least: int = 3, most: int = 5, vocabulary: str | None = None) -> None:
        if least < 1:
            raise ConfigError(f"discovery.least: {least}; expected 1 or more images")
        super().__init__(most, vocabulary)
        self.least = least

    def check(self, audit: ImageTable) -> None:
        """Raise `DataError` where an image has no caption."""
        captions_of(audit, "discovery")

    def suspects(self, findings: Findings) -> list[Suspect]:
        """Keywords of each class's failures. Raises `DataError` where images have no captions."""
        assert findings.look is not None
        every, present = keywords(captions_of(findings.audit, "discovery"), least=1)
        images = findings.look.images(findings.audit)
        wrong = findings.predictions != findings.labels
        found = []
        for label, name in enumerate(findings.classes):
            failures = np.flatnonzero((findings.labels == label) & wrong)
            right = np.flatnonzero((findings.labels == label) & ~wrong)
            if not len(failures) or not len(right):
                continue
            said = np.flatnonzero(present[failures].sum(axis=0) >= self.least)
            if not len(said):
                continue
            words = [every[at] for at in said]
            kinds = kinds_of(words, self.vocabulary)
            texts = [TEXTS[kind].format(with_article(word)) for word, kind in zip(words, kinds, strict=True)]
            cosines = images @ findings.look.texts(texts).T
            gaps = cosines[failures].mean(axis=0) - cosines[right].mean(axis=0)
            found += [
                Suspect(name, findings.rival_of(failures[present[failures, place]]), word, kinds[at], float(gaps[at]))
                for at, (place, word) in enumerate(zip(said, words, strict=True))
            ]
        return found
