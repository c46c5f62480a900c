"""`caption_keywords`: the words of an image's caption are its concepts (B2T, Kim et al. 2024); no places."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer

from aaca.concepts.concept_sets import LONGEST, ConceptKind, normal
from aaca.data.table import ImageTable
from aaca.discover.concepts.base import ConceptSource, Look, View
from aaca.discover.concepts.table import ConceptTable
from aaca.discover.concepts.vocabulary import Vocabulary, vocabulary_file
from aaca.runtime.errors import ConfigError, DataError
from aaca.runtime.files import file_sha256

PLACES = ("left", "right")
"""Words of a caption's grammar that name no thing, beyond the English stop words."""

EVERYWHERE = 0.9
"""A word in a larger share of the captions ("photo") tells nothing."""


class CaptionKeywords(ConceptSource):
    """Words and word groups of the captions, less English stop words, less what all or almost no captions have.

    The paper ranks keywords by YAKE; here a word counts by the number of captions that have it.

    Args:
        least: images of the table that a keyword has to be said of.
        words: the longest group of words.
        vocabulary: a YAML file that says what kind of thing a keyword is; a keyword it does not list is an object.

    """

    def __init__(self, least: int = 3, words: int = 1, vocabulary: str | None = None) -> None:
        if least < 1:
            raise ConfigError(f"concepts.least: {least}; expected 1 or more images")
        if not 1 <= words <= 3:
            raise ConfigError(f"concepts.words: {words}; expected 1…3")
        Vocabulary.load(vocabulary)  # a mistake in the file is said before any work
        self.least, self.words, self.vocabulary = least, words, vocabulary

    def fingerprint(self) -> dict[str, Any]:
        """The vocabulary by content."""
        return {"words": file_sha256(vocabulary_file(self.vocabulary))}

    def check(self, table: ImageTable) -> None:
        """Raise `DataError` where an image has no caption."""
        captions_of(table, "concepts")

    def find(self, table: ImageTable, view: View, look: Look | None, places: bool) -> ConceptTable:
        """One row a keyword of an image's caption. Raises `DataError` for a table without captions."""
        words, present = keywords(captions_of(table, "concepts"), self.least, self.words)
        kinds = kinds_of(words, self.vocabulary)
        rows, columns = np.nonzero(present)
        return ConceptTable.build(
            rows.tolist(), [words[at] for at in columns], [kinds[at] for at in columns], None, len(table), view.cells
        )


def captions_of(table: ImageTable, key: str) -> list[str]:
    """The captions of all images. Raises `DataError` where an image has none."""
    captions = [str(text) for text in table.frame["caption"]]
    bare = sum(not text.strip() for text in captions)
    if bare:
        raise DataError(
            f"{key}: {bare} of {len(captions)} images have no caption; expected a dataset with the column `caption`, "
            "or an image-text model instead of captions: concepts=tags"
        )
    return captions


def keywords(captions: Sequence[str], least: int, words: int = 1) -> tuple[list[str], np.ndarray]:
    """(keywords, which captions have them: bool `[N, V]`); in alphabetical order."""
    counter = CountVectorizer(stop_words=[*ENGLISH_STOP_WORDS, *PLACES], ngram_range=(1, words), binary=True)
    try:
        counts = counter.fit_transform(captions)
    except ValueError:  # nothing but stop words
        return [], np.zeros((len(captions), 0), dtype=bool)
    names = counter.get_feature_names_out()
    often = np.asarray(counts.sum(axis=0)).ravel()
    short = np.array([len(name) <= LONGEST and not name.isdigit() for name in names])
    kept = np.flatnonzero((often >= least) & (often <= EVERYWHERE * len(captions)) & short)
    return [str(names[at]) for at in kept], counts[:, kept].toarray().astype(bool)


def kinds_of(words: Sequence[str], vocabulary: str | None) -> list[ConceptKind]:
    """What kind of thing each word is, by a vocabulary; an object where it does not say."""
    known = Vocabulary.load(vocabulary)
    kinds = {normal(name): kind for name, kind in zip(known.names, known.kinds, strict=True)}
    return [kinds.get(normal(word), "object") for word in words]
