"""CIDEr-D (Vedantam et al., CVPR 2015) with document frequencies that are fitted once and kept.

The COCO evaluation takes the document frequencies from the references it happens to evaluate, so one and the same
caption scores differently in a set and in a subset of it. Fit an index on the full set, score every subset with it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, log, sqrt
from pathlib import Path
from typing import Any

import numpy as np

from aaca.evaluate.captions.texts import LONGEST, Candidates, NGram, References, check_references, ngrams, paired
from aaca.runtime.errors import DataError
from aaca.runtime.files import read_json, write_json

SIGMA = 6.0
"""Words: how fast the score falls with the difference in length."""
SCALE = 10.0


@dataclass(frozen=True)
class _Vector:
    """tf·idf weights of a text's n-grams, one mapping and one norm an n, and the text's words."""

    weights: tuple[dict[NGram, float], ...]
    norms: tuple[float, ...]
    words: int


@dataclass(frozen=True)
class CiderIndex:
    """In how many of `documents` names each n-gram occurs (in any reference of the name).

    With one document every weight is log 1 = 0 and so is every score.
    """

    documents: int
    frequencies: Mapping[NGram, int]

    @classmethod
    def fit(cls, references: References) -> "CiderIndex":
        """Document frequencies of the references of all names. Raises `DataError` where a name has none."""
        check_references(references)
        frequencies: Counter[NGram] = Counter()
        for texts in references.values():
            frequencies.update({gram for text in texts for gram in ngrams(text.split())})
        return cls(len(references), frequencies)

    def save(self, path: Path) -> None:
        """Write the index as JSON, atomically."""
        frequencies = {" ".join(gram): times for gram, times in sorted(self.frequencies.items())}
        write_json(path, {"documents": self.documents, "frequencies": frequencies})

    @classmethod
    def load(cls, path: Path) -> "CiderIndex":
        """Read what `save` wrote. Raises `DataError` where the file is not such an index."""
        try:
            value: Any = read_json(path)
            documents, frequencies = value["documents"], value["frequencies"].items()
            index = cls(documents, {tuple(gram.split(" ")): times for gram, times in frequencies})
            sound = type(documents) is int and all(
                type(times) is int and 1 <= times <= documents and 1 <= len(gram) <= LONGEST
                for gram, times in index.frequencies.items()
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path}: not an index of document frequencies ({type(error).__name__})") from error
        if not sound or documents < 1:
            raise DataError(f"{path}: not an index of document frequencies; expected counts from 1 to `documents`")
        return index

    def score(self, candidate: str, references: Sequence[str]) -> float:
        """CIDEr-D of one caption, 0 to 10: mean over n and over references of the clipped, length-damped cosine.

        A caption under four words cannot reach 10: it has no 4-gram.
        """
        own = self._vector(candidate)
        return SCALE * sum(_clipped(own, self._vector(text)) for text in references) / len(references)

    def scores(self, candidates: Candidates, references: References) -> np.ndarray:
        """CIDEr-D of each caption in the order of `candidates`, `[N]`, 0 to 10. Raises `DataError` as `paired` does."""
        return np.array([self.score(candidates[name], references[name]) for name in paired(candidates, references)])

    def similarities(self, captions: Sequence[str]) -> np.ndarray:
        """Plain CIDEr / 10 between captions, `[M, M]`: mean over n of the cosines, symmetric and positive semidefinite.

        Neither clipped nor damped by length: CIDEr-D is not symmetric.
        """
        vectors = [self._vector(caption) for caption in captions]
        return np.array([[_cosine(one, two) for two in vectors] for one in vectors])

    def _vector(self, text: str) -> _Vector:
        words = text.split()
        weights: tuple[dict[NGram, float], ...] = tuple({} for _ in range(LONGEST))
        for gram, times in ngrams(words).items():
            weights[len(gram) - 1][gram] = times * log(self.documents / self.frequencies.get(gram, 1))
        norms = tuple(sqrt(sum(weight**2 for weight in grams.values())) for grams in weights)
        return _Vector(weights, norms, len(words))


def cider(candidates: Candidates, references: References, index: CiderIndex | None = None) -> float:
    """Mean CIDEr-D of the set, 0 to 10; without an index the frequencies are those of these very references (COCO)."""
    fitted = index or CiderIndex.fit(references)
    return float(fitted.scores(candidates, references).mean())


def _clipped(own: _Vector, other: _Vector) -> float:
    total = 0.0
    for mine, theirs, one, two in zip(own.weights, other.weights, own.norms, other.norms, strict=True):
        if one and two:
            shared = sorted(mine.keys() & theirs.keys())  # a set's order, and so the last bit, differs between runs
            total += sum(min(mine[gram], theirs[gram]) * theirs[gram] for gram in shared) / (one * two)
    return total / LONGEST * exp(-((own.words - other.words) ** 2) / (2 * SIGMA**2))


def _cosine(own: _Vector, other: _Vector) -> float:
    total = 0.0
    for mine, theirs, one, two in zip(own.weights, other.weights, own.norms, other.norms, strict=True):
        if one and two:
            total += sum(mine[gram] * theirs[gram] for gram in sorted(mine.keys() & theirs.keys())) / (one * two)
    return total / LONGEST
