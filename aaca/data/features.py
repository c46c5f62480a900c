"""Feature store: embeddings and logits of one model over one table, memory-mapped, rows in table order."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from aaca.data.table import ImageTable
from aaca.runtime.errors import DataError
from aaca.runtime.files import atomic_path, write_json


@dataclass(frozen=True)
class Scored:
    """A view of rows of a feature store: ids `[N]`, labels `[N]`, embeddings `[N, D]`, logits `[N, C]`.

    `rows` are positions in the (possibly memory-mapped) arrays; nothing is read before it is asked for, so that a pool
    of millions costs one index array. `passes` holds the logits of T stochastic passes, `[·, T, C]`, or None.
    """

    ids_all: np.ndarray
    labels_all: np.ndarray
    embeddings_all: np.ndarray
    logits_all: np.ndarray
    rows: np.ndarray
    passes_all: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        ids: np.ndarray,
        labels: np.ndarray,
        embeddings: np.ndarray,
        logits: np.ndarray,
        passes: np.ndarray | None = None,
    ) -> "Scored":
        """A view of all rows of these arrays."""
        return cls(np.asarray(ids), np.asarray(labels), embeddings, logits, np.arange(len(ids)), passes)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def ids(self) -> np.ndarray:
        """Ids of the rows, `[N]`."""
        return self.ids_all[self.rows]

    @property
    def labels(self) -> np.ndarray:
        """Labels of the rows, `[N]`."""
        return self.labels_all[self.rows]

    @property
    def embeddings(self) -> np.ndarray:
        """Embeddings of the rows, `[N, D]` float32, read into memory."""
        return np.asarray(self.embeddings_all[self.rows], dtype=np.float32)

    @property
    def logits(self) -> np.ndarray:
        """Logits of the rows, `[N, C]` float32, read into memory."""
        return np.asarray(self.logits_all[self.rows], dtype=np.float32)

    @property
    def predictions(self) -> np.ndarray:
        """Predicted labels, `[N]`."""
        return self.logits.argmax(axis=1)

    def take(self, where: np.ndarray) -> "Scored":
        """The rows at these positions of the view, or where a boolean mask over the view is true."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return Scored(**{**fields, "rows": self.rows[np.asarray(where)]})

    def chunks(self, size: int = 65536) -> Iterator["Scored"]:
        """The view in consecutive pieces of at most `size` rows: what keeps memory bounded on a large pool."""
        for start in range(0, len(self), size):
            yield self.take(np.arange(start, min(start + size, len(self))))

    @property
    def passes(self) -> np.ndarray | None:
        """Logits of the stochastic passes, `[N, T, C]` float32, or None where none were taken."""
        return None if self.passes_all is None else np.asarray(self.passes_all[self.rows], dtype=np.float32)


class FeatureStore:
    """A folder with `embeddings.npy` `[N, D]`, `logits.npy` `[N, C]`, maybe `passes.npy` `[N, T, C]`, and the row ids.

    Rows are written by position, by any number of processes, each row once; `check` refuses a store with holes.
    """

    def __init__(self, folder: Path, mode: str = "r") -> None:
        shape_file = folder / "store.json"
        if not shape_file.is_file():
            raise DataError(f"{folder}: not a feature store (store.json is missing)")
        self.folder = folder
        self.shape: dict[str, int] = json.loads(shape_file.read_text(encoding="utf-8"))
        self.embeddings = np.lib.format.open_memmap(folder / "embeddings.npy", mode=mode)
        self.logits = np.lib.format.open_memmap(folder / "logits.npy", mode=mode)
        self.written = np.lib.format.open_memmap(folder / "written.npy", mode=mode)
        has_passes = self.shape["passes"] > 1
        self.passes = np.lib.format.open_memmap(folder / "passes.npy", mode=mode) if has_passes else None

    @classmethod
    def create(
        cls, folder: Path, table: ImageTable, dim: int, n_classes: int, passes: int = 1, dtype: str = "float32"
    ) -> "FeatureStore":
        """Lay out an empty store for `table`. Embeddings are kept as `dtype`, logits always as float32."""
        folder.mkdir(parents=True, exist_ok=True)
        n = len(table)

        def lay(name: str, kind: str, shape: tuple[int, ...]) -> None:
            np.lib.format.open_memmap(folder / name, mode="w+", dtype=kind, shape=shape).flush()

        lay("embeddings.npy", dtype, (n, dim))
        lay("logits.npy", "float32", (n, n_classes))
        lay("written.npy", "uint8", (n,))
        if passes > 1:
            lay("passes.npy", "float32", (n, passes, n_classes))
        with atomic_path(folder / "index.parquet") as temporary:
            pd.DataFrame({"id": table.ids, "label": table.labels}).to_parquet(temporary, index=False)
        write_json(folder / "store.json", {"rows": n, "dim": dim, "classes": n_classes, "passes": passes})
        return cls(folder, mode="r+")

    def write(
        self, rows: np.ndarray, embeddings: np.ndarray, logits: np.ndarray, passes: np.ndarray | None = None
    ) -> None:
        """Put embeddings `[B, D]` and logits `[B, C]` (and passes `[B, T, C]`) at these table positions `[B]`."""
        self.embeddings[rows] = embeddings
        self.logits[rows] = logits
        if self.passes is not None and passes is not None:
            self.passes[rows] = passes
        self.written[rows] += 1

    def check(self) -> "FeatureStore":
        """Return self if every row was written exactly once, else raise `DataError`."""
        wrong = np.flatnonzero(np.asarray(self.written) != 1)
        if len(wrong):
            count = int(self.written[wrong[0]])
            raise DataError(f"{self.folder}: row {wrong[0]} was written {count} times, expected once ({len(wrong)} rows)")
        if not np.isfinite(np.asarray(self.logits)).all():
            raise DataError(f"{self.folder}: logits hold NaN or infinity; the model that made them has diverged")
        return self

    def scored(self) -> Scored:
        """All rows as a lazily read view."""
        index = pd.read_parquet(self.folder / "index.parquet")
        ids, labels = index["id"].to_numpy(dtype=object), index["label"].to_numpy(dtype=np.int64)
        return Scored.of(ids, labels, self.embeddings, self.logits, self.passes)
