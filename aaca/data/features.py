"""Feature store: embeddings and logits of one model over one table, memory-mapped, rows in table order."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from pyarrow.parquet import ParquetFile

from aaca.data.table import ImageTable
from aaca.runtime.errors import DataError
from aaca.runtime.files import allocate_array, atomic_path, write_json

CHUNK_BYTES = 4 * 2**20
"""What one chunk of a view may take as float32: small enough for temporaries to stay in reused memory (measured twice
as fast as 16 MiB), large beside the cost of a Python step."""


def _rows_for(widest: int) -> int:
    return max(1, CHUNK_BYTES // (4 * max(1, widest)))


def _read(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """These rows of a (memory-mapped) array: a view where they are one ascending run, else a copy."""
    n = len(rows)
    if n and rows[-1] - rows[0] == n - 1 and (n == 1 or bool((np.diff(rows) == 1).all())):
        return array[rows[0] : rows[0] + n]
    return array[rows]


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
        return _read(self.ids_all, self.rows)

    @property
    def labels(self) -> np.ndarray:
        """Labels of the rows, `[N]`."""
        return _read(self.labels_all, self.rows)

    @property
    def embeddings(self) -> np.ndarray:
        """Embeddings of the rows, `[N, D]` float32, read into memory (a copy: changing it changes no store)."""
        return np.array(_read(self.embeddings_all, self.rows), dtype=np.float32)

    @property
    def logits(self) -> np.ndarray:
        """Logits of the rows, `[N, C]` float32, read into memory (a copy)."""
        return np.array(_read(self.logits_all, self.rows), dtype=np.float32)

    @property
    def passes(self) -> np.ndarray | None:
        """Logits of the stochastic passes, `[N, T, C]` float32 (a copy), or None where none were taken."""
        return None if self.passes_all is None else np.array(_read(self.passes_all, self.rows), dtype=np.float32)

    @property
    def probabilities(self) -> np.ndarray:
        """Softmax of the logits, `[N, C]` float64, read into memory."""
        logits = self.logits.astype(np.float64)
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(odds / odds.sum(axis=1, keepdims=True))

    @property
    def predictions(self) -> np.ndarray:
        """Predicted labels, `[N]` int64. Reads the logits in chunks."""
        parts = [chunk.logits.argmax(axis=1) for chunk in self.chunks()]
        return np.concatenate([np.empty(0, dtype=np.int64), *parts])

    def take(self, where: np.ndarray) -> "Scored":
        """The rows at these positions of the view, or where a boolean mask over the view is true."""
        return replace(self, rows=self.rows[np.asarray(where)] if len(where) else self.rows[:0])

    def chunks(self, size: int | None = None) -> Iterator["Scored"]:
        """The view in consecutive pieces of at most `size` rows: what keeps memory bounded on a large pool.

        Without `size`, as many rows as make the widest array of a piece about `CHUNK_BYTES` of float32.
        """
        arrays = [self.embeddings_all, self.logits_all, *([] if self.passes_all is None else [self.passes_all])]
        size = size or _rows_for(max(int(np.prod(array.shape[1:])) for array in arrays))
        for start in range(0, len(self), size):
            yield replace(self, rows=self.rows[start : start + size])


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
            allocate_array(folder / name, kind, shape)

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
        np.add.at(self.written, rows, 1)  # `+= 1` would count a row that a batch holds twice only once

    def flush(self) -> None:
        """Bring everything written so far to the disk."""
        for array in (self.embeddings, self.logits, self.passes, self.written):
            if array is not None:
                array.flush()

    def forget(self, rows: np.ndarray) -> None:
        """Count these rows as not yet written."""
        self.written[rows] = 0

    def check(self) -> "FeatureStore":
        """Return self if every row was written exactly once and holds finite numbers, else raise `DataError`.

        Reads in chunks: a store of millions of rows is checked in bounded memory.
        """
        wrong = np.flatnonzero(np.asarray(self.written) != 1)
        if len(wrong):
            count = int(self.written[wrong[0]])
            raise DataError(
                f"{self.folder}: row {wrong[0]} was written {count} times, expected once ({len(wrong)} rows)"
            )
        cause = "the model that made them has diverged"
        self._refuse_infinite("logits", self.logits, cause)
        if self.passes is not None:
            self._refuse_infinite("passes", self.passes, cause)
        self._refuse_infinite("embeddings", self.embeddings, f"{cause}, or they overflow {self.embeddings.dtype}")
        return self

    def _refuse_infinite(self, name: str, array: np.ndarray, cause: str) -> None:
        size = _rows_for(int(np.prod(array.shape[1:])))
        for start in range(0, len(array), size):
            finite = np.isfinite(array[start : start + size])
            if not finite.all():
                row = start + int(np.argwhere(~finite)[0][0])
                raise DataError(f"{self.folder}: {name} hold NaN or infinity (first in row {row}); {cause}")

    def scored(self) -> Scored:
        """All rows as a lazily read view."""
        ids, labels = np.empty(self.shape["rows"], dtype=object), np.empty(self.shape["rows"], dtype=np.int64)
        start = 0
        for batch in ParquetFile(self.folder / "index.parquet").iter_batches(columns=["id", "label"]):
            stop = start + len(batch)
            ids[start:stop] = batch.column("id").to_pylist()
            labels[start:stop] = batch.column("label").to_numpy()
            start = stop
        return Scored.of(ids, labels, self.embeddings, self.logits, self.passes)
