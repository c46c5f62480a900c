"""`ConceptSource`, the role of the `concepts` config group: which concepts the images of a table show, and where."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from aaca.data.table import ImageTable
from aaca.data.transforms import EvalTransform
from aaca.discover.concepts.table import ConceptTable


@dataclass(frozen=True)
class View:
    """What the classifier sees of an image: `size` pixels a side, resized and cropped; mapped in `cells` (h, w)."""

    size: int
    cells: tuple[int, int]

    def of(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 `[H, W, C]` as it is seen, uint8 `[size, size, C]`."""
        return np.asarray(EvalTransform(self.size)(pixels).permute(1, 2, 0))


class Look(Protocol):
    """An image-text model, as concept sources need it. All vectors are unit rows of one space."""

    def reference(self) -> np.ndarray:
        """Vectors `[R, D]` of the audit images, by which thresholds are set."""

    def images(self, table: ImageTable) -> np.ndarray:
        """Vectors `[N, D]` of the images of a table."""

    def crops(self, crops: np.ndarray) -> np.ndarray:
        """Vectors `[M, D]` of uint8 images `[M, S, S, 3]`."""

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors `[V, D]` of texts."""


class ConceptSource(ABC):
    """Finds concepts in images."""

    needs_clip: bool = False  # whether `look` is used
    needs_images: bool = True  # whether `Look.images` or `Look.reference` is, where `look` is
    needs_truth: frozenset[str] = frozenset()  # of `BenchmarkSource.truth`

    def check(self, table: ImageTable) -> None:
        """Raise an error where a table lacks what is asked of it (captions …); called before any training."""
        return None

    @abstractmethod
    def find(self, table: ImageTable, view: View, look: Look | None, places: bool) -> ConceptTable:
        """Concepts of the images of `table`; with `places` also their masks, where there are some."""

    def fingerprint(self) -> dict[str, Any]:
        """What influences the concepts besides the arguments, files by content."""
        return {}
