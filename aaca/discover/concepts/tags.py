"""`tags`: every image is asked for every concept of a vocabulary by an image-text model; no places."""

from typing import Any, Literal

import numpy as np

from aaca.data.table import ImageTable
from aaca.discover.concepts.base import ConceptSource, Look, View
from aaca.discover.concepts.table import ConceptTable
from aaca.discover.concepts.vocabulary import Vocabulary, vocabulary_file
from aaca.runtime.errors import ConfigError
from aaca.runtime.files import file_sha256


class Tags(ConceptSource):
    """A concept is in an image when its cosine with it is high among the audit images.

    Args:
        vocabulary: a YAML file of kinds and names; None: of the embedded world.
        threshold: `otsu` splits a concept's cosines where the two sides differ most (Otsu 1979); `sigma` takes those
            above mean + `sigmas` standard deviations, and misses concepts that many images show.
        sigmas: of `sigma`.

    """

    needs_clip = True

    def __init__(
        self, vocabulary: str | None = None, threshold: Literal["otsu", "sigma"] = "otsu", sigmas: float = 2.0
    ) -> None:
        if sigmas <= 0:
            raise ConfigError(f"concepts.sigmas: {sigmas}; expected a positive number")
        self.vocabulary, self.threshold, self.sigmas = vocabulary, threshold, sigmas
        Vocabulary.load(vocabulary)  # a mistake in the file is said before any work

    def fingerprint(self) -> dict[str, Any]:
        """The vocabulary by content."""
        return {"words": file_sha256(vocabulary_file(self.vocabulary))}

    def find(self, table: ImageTable, view: View, look: Look | None, places: bool) -> ConceptTable:
        """One row a concept of an image, without masks."""
        assert look is not None
        words = Vocabulary.load(self.vocabulary)
        named = words.vectors(look)
        cosines, reference = look.images(table) @ named.T, look.reference() @ named.T
        if self.threshold == "otsu":
            limits = np.array([otsu(values) for values in reference.T])
        else:
            limits = reference.mean(axis=0) + self.sigmas * reference.std(axis=0)
        rows, columns = np.nonzero(cosines > limits)
        names, kinds = np.array(words.names, dtype=object), np.array(words.kinds, dtype=object)
        return ConceptTable.build(
            rows.tolist(), names[columns].tolist(), kinds[columns].tolist(), None, len(table), view.cells
        )


def otsu(values: np.ndarray) -> float:
    """The threshold that makes the variance between the two sides largest; values above it are in."""
    ordered = np.sort(values.astype(np.float64))
    n = len(ordered)
    if n < 2:
        return float("inf")
    sums, counts = np.cumsum(ordered)[:-1], np.arange(1, n)
    gap = sums / counts - (ordered.sum() - sums) / (n - counts)
    best = int(np.argmax(counts * (n - counts) * gap**2))
    return float((ordered[best] + ordered[best + 1]) / 2)
