"""`ConceptTable`: one row for each concept in an image: which image, which concept, how large, where."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from aaca.concepts.concept_sets import LONGEST, ConceptKind
from aaca.runtime.errors import DataError
from aaca.runtime.files import atomic_path

TABLE, MASKS = "concepts.parquet", "masks.npy"
UNKNOWN = "unknown"
"""The name of a part of an image that no concept of the vocabulary fits."""


@dataclass(frozen=True)
class ConceptTable:
    """Concepts of the images of a table.

    `frame`: `row` (position of the image), `concept`, `kind`, `area` (share of the image, NaN without a mask), `mask`
    (position in `masks`, -1 for none). `masks`: float16 `[M, h, w]`, how much of each cell the concept covers.
    """

    frame: pd.DataFrame
    masks: np.ndarray
    images: int

    @classmethod
    def build(
        cls,
        rows: Sequence[int],
        concepts: Sequence[str],
        kinds: Sequence[ConceptKind],
        masks: np.ndarray | None,
        images: int,
        cells: tuple[int, int],
    ) -> "ConceptTable":
        """One row an entry; `masks` float `[entries, h, w]`, or None where places are not known."""
        n = len(rows)
        kept = np.zeros((0, *cells), dtype=np.float16) if masks is None else masks.astype(np.float16)
        frame = pd.DataFrame(
            {
                "row": np.asarray(rows, dtype=np.int64),
                "concept": np.asarray(concepts, dtype=object),
                "kind": np.asarray(kinds, dtype=object),
                "area": np.full(n, np.nan) if masks is None else masks.reshape(n, -1).mean(axis=1).astype(np.float64),
                "mask": np.full(n, -1) if masks is None else np.arange(n),
            }
        )
        if n and not frame["row"].between(0, images - 1).all():
            raise DataError(f"concept table: rows must lie in 0…{images - 1}")
        for name in set(concepts):
            if not 0 < len(name) <= LONGEST:
                raise DataError(f"concept table: {name[:80]!r}; expected names of 1…{LONGEST} characters")
        return cls(frame, kept, images)

    @property
    def names(self) -> list[str]:
        """All concepts, sorted; without what is unknown."""
        return sorted(set(self.frame["concept"]) - {UNKNOWN})

    def kinds(self) -> dict[str, ConceptKind]:
        """Concept → what kind of thing it is (the most frequent one)."""
        counted = self.frame.groupby("concept")["kind"].agg(lambda kinds: kinds.value_counts().index[0])
        return {str(name): kind for name, kind in counted.items()}

    def present(self, names: Sequence[str]) -> np.ndarray:
        """Whether each image shows each of `names`: bool `[N, len(names)]`."""
        found = np.zeros((self.images, len(names)), dtype=bool)
        codes = pd.Index(names).get_indexer(self.frame["concept"])
        known = codes >= 0
        found[self.frame["row"].to_numpy()[known], codes[known]] = True
        return found

    def amounts(self, names: Sequence[str], weights: np.ndarray | None = None) -> np.ndarray:
        """Sum over an image's masks of each concept, float32 `[N, len(names)]`; NaN where the concept has no mask.

        Of the covered share of the image, or, with `weights` `[N, h, w]`, of the weights below the mask.
        """
        found = np.zeros((self.images, len(names)), dtype=np.float64)
        codes = pd.Index(names).get_indexer(self.frame["concept"])
        rows, positions = self.frame["row"].to_numpy(), self.frame["mask"].to_numpy()
        known = codes >= 0
        placed = np.flatnonzero(known & (positions >= 0))
        for part in np.array_split(placed, max(1, len(placed) // 20_000)):
            masks = self.masks[positions[part]].astype(np.float32)
            below = masks if weights is None else masks * weights[rows[part]]
            amount = below.sum(axis=(1, 2)) if weights is not None else below.mean(axis=(1, 2))
            np.add.at(found, (rows[part], codes[part]), amount)
        nowhere = known & (positions < 0)
        found[rows[nowhere], codes[nowhere]] = np.nan
        return found.astype(np.float32)

    def save(self, folder: Path) -> None:
        """Write `concepts.parquet` and `masks.npy`."""
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / MASKS) as temporary, temporary.open("wb") as file:
            np.save(file, self.masks)
        with atomic_path(folder / TABLE) as temporary:
            self.frame.assign(images=self.images).to_parquet(temporary, index=False)

    @classmethod
    def load(cls, folder: Path, images: int) -> "ConceptTable":
        """Read what `save` wrote for a table of `images` rows. Raises `DataError` if it was of another."""
        if not (folder / TABLE).is_file():
            raise DataError(f"{folder}: no concept table ({TABLE} is missing)")
        frame = pd.read_parquet(folder / TABLE)
        if len(frame) and int(frame["images"].iloc[0]) != images:
            raise DataError(f"{folder}: concepts of {frame['images'].iloc[0]} images; expected {images}")
        return cls(frame.drop(columns="images"), np.load(folder / MASKS), images)
