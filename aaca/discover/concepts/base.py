"""`ConceptSource`, the role of the `concepts` config group: which concepts the images of a table show, and where."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from aaca.data.table import ImageTable
from aaca.discover.concepts.table import ConceptTable


class Look(Protocol):
    """An image-text model, as concept sources need it. All vectors are unit rows of one space."""

    def images(self, table: ImageTable) -> np.ndarray:
        """Vectors `[N, D]` of the images of a table."""

    def crops(self, crops: np.ndarray) -> np.ndarray:
        """Vectors `[M, D]` of uint8 images `[M, S, S, 3]`."""

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors `[V, D]` of texts."""


class ConceptSource(ABC):
    """Finds concepts in images."""

    needs_clip: bool = False  # whether `look` is used

    @abstractmethod
    def find(self, table: ImageTable, cells: tuple[int, int], look: Look | None, places: bool) -> ConceptTable:
        """Concepts of the images of `table`; with `places` also their masks, `cells` = (h, w), where there are some."""

    def fingerprint(self) -> dict[str, Any]:
        """What influences the concepts besides the arguments, files by content."""
        return {}
