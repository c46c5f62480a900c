"""Embedding store: vectors of one encoder in shards of rows, written once and resumable, read far beyond memory.

A folder holds `feat-00000.npy` `[rows, D]` and `rows-00000.parquet` (key, label, group) a shard, `stats.safetensors`,
and `manifest.json`, which is written last: without it there is no store.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pyarrow.parquet import ParquetFile
from safetensors.numpy import load_file

from aaca.data.embedding_shards import (
    MANIFEST,
    SCHEMA,
    STATISTICS,
    Shard,
    check_hash,
    chunks_of,
    feat_file,
    rows_file,
)
from aaca.runtime.errors import DataError
from aaca.runtime.files import read_json

MAPPED_BYTES = 2**30
"""Scattered rows of a larger store are read one by one: through a map its pages would pile up in resident memory."""


class EmbeddingStore:
    """A complete store: n vectors of length `dim`, their keys, labels and groups, and their statistics.

    `centred_norm` is the mean norm of (a sample of at most 20,000) rows less the mean.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder, self.manifest = folder, manifest
        self.n, self.dim, self.dtype = int(manifest["rows"]), int(manifest["dim"]), str(manifest["dtype"])
        self.content, self.about = str(manifest["content"]), dict(manifest["about"])
        self.mean_norm, self.rms_norm, self.centred_norm = (
            float(manifest["statistics"][name]) for name in ("mean_norm", "rms_norm", "centred_norm")
        )
        self.shards = [
            Shard(feat_file(folder, number), self.dim, self.dtype, facts["rows"], facts["bytes"])
            for number, facts in enumerate(manifest["shards"])
        ]
        self._bounds = np.cumsum([0, *(shard.rows for shard in self.shards)])
        self._mapped = self.n * self.dim * np.dtype(self.dtype).itemsize <= MAPPED_BYTES

    @classmethod
    def open(cls, folder: Path) -> "EmbeddingStore":
        """The store in `folder`. Raises `DataError` without a manifest, or where a file's size is not what it says."""
        if not (folder / MANIFEST).is_file():
            raise DataError(f"{folder}: not a complete embedding store ({MANIFEST} is missing)")
        manifest = read_json(folder / MANIFEST)
        if manifest.get("schema") != SCHEMA:
            raise DataError(f"{folder}: schema {manifest.get('schema')!r} of {MANIFEST}; expected {SCHEMA}")
        for number, facts in enumerate(manifest["shards"]):
            index = rows_file(folder, number)
            if not index.is_file() or index.stat().st_size != facts["rows_bytes"]:
                raise DataError(f"{index}: missing or of another size; expected {facts['rows_bytes']} bytes")
        return cls(folder, manifest)

    def verify(self) -> "EmbeddingStore":
        """Return self if every file hashes to what the manifest says, else raise `DataError` naming the first."""
        for number, facts in enumerate(self.manifest["shards"]):
            for path, known in ((feat_file, facts["sha256"]), (rows_file, facts["rows_sha256"])):
                check_hash(path(self.folder, number), known)
        check_hash(self.folder / STATISTICS, self.manifest["statistics"]["sha256"])
        return self

    @cached_property
    def _stats(self) -> dict[str, np.ndarray]:
        return load_file(self.folder / STATISTICS)

    @property
    def mean(self) -> np.ndarray:
        """Mean of all rows, `[D]` float32."""
        return self._stats["mean"]

    @property
    def geometric_median(self) -> np.ndarray:
        """Geometric median of a fixed sample of at most 20,000 rows, `[D]` float32."""
        return self._stats["geometric_median"]

    @cached_property
    def labels(self) -> np.ndarray:
        """Labels, `[N]` int64; -1 where there is none."""
        return self._column("label", np.empty(self.n, dtype=np.int64))

    @cached_property
    def groups(self) -> np.ndarray:
        """Groups, `[N]` of str; "" where there is none."""
        return self._column("group", np.empty(self.n, dtype=object))

    @cached_property
    def keys(self) -> np.ndarray:
        """Keys, `[N]` of str."""
        return self._column("key", np.empty(self.n, dtype=object))

    def _column(self, name: str, values: np.ndarray) -> np.ndarray:
        start = 0
        for number in range(len(self.shards)):
            column = ParquetFile(rows_file(self.folder, number)).read(columns=[name]).column(name)
            values[start : start + len(column)] = column.to_numpy()
            start += len(column)
        return values

    def fetch(self, rows: np.ndarray) -> np.ndarray:
        """These rows `[B]`, in any order, repeated or not, `[B, D]` of the stored type. Reads each shard in its order.

        Raises `IndexError` on a row that is not there.
        """
        rows = np.asarray(rows, dtype=np.int64)
        if len(rows) and (rows.min() < 0 or rows.max() >= self.n):
            raise IndexError(f"rows {rows.min()}…{rows.max()}; the store has 0…{self.n - 1}")
        order = np.argsort(rows)
        ascending = rows[order]
        out = np.empty((len(rows), self.dim), self.dtype)
        cuts = np.searchsorted(ascending, self._bounds)
        for shard, first, low, high in zip(self.shards, self._bounds, cuts, cuts[1:], strict=False):
            if low == high:
                continue
            if self._mapped:
                out[order[low:high]] = shard.array[ascending[low:high] - first]
            else:
                shard.pick(ascending[low:high] - first, out, order[low:high])
        return out

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """As `fetch`, float32."""
        return as_float32(self.fetch(rows))

    def read(self, start: int, out: np.ndarray) -> None:
        """Fill `out` `[B, D]` (contiguous, of the stored type) with the rows from `start`; maps nothing."""
        at = 0
        while at < len(out):
            number = int(np.searchsorted(self._bounds, start + at, side="right")) - 1
            inside = start + at - int(self._bounds[number])
            taken = min(len(out) - at, self.shards[number].rows - inside)
            self.shards[number].read(inside, out[at : at + taken])
            at += taken

    def block(self, start: int, stop: int) -> np.ndarray:
        """Rows start…stop-1, `[B, D]` of the stored type: a read-only view (mapped) inside one shard, else a copy."""
        number = int(np.searchsorted(self._bounds, start, side="right")) - 1
        if number < len(self.shards) and stop <= self._bounds[number + 1]:
            first = int(self._bounds[number])
            return self.shards[number].array[start - first : stop - first]
        out = np.empty((max(0, min(stop, self.n) - start), self.dim), self.dtype)
        self.read(start, out)
        return out

    def chunks(self) -> Iterator[np.ndarray]:
        """All rows in order, in pieces `[≤ 8 MiB, D]` float32: what a pass over a store larger than memory reads."""
        return (chunk.astype(np.float32) for chunk in chunks_of(self.shards, self.dim, self.dtype))

    def take_split(self, chosen: np.ndarray) -> "StoreView":
        """A view of these rows `[B]`, or of those where a mask `[N]` is true."""
        chosen = np.asarray(chosen)
        if chosen.dtype == bool and len(chosen) != self.n:
            raise DataError(f"{self.folder}: a mask of {len(chosen)} rows; expected {self.n}")
        return StoreView(self, np.flatnonzero(chosen) if chosen.dtype == bool else chosen.astype(np.int64))


def as_float32(rows: np.ndarray) -> np.ndarray:
    """The array as float32 (torch converts float16 several times faster than numpy)."""
    return np.asarray(torch.from_numpy(rows).to(torch.float32).numpy())


@dataclass(frozen=True)
class StoreView:
    """Some rows of a store, read when they are asked for; positions count within the view. Statistics: the store's."""

    store: EmbeddingStore
    rows: np.ndarray

    @property
    def n(self) -> int:
        """Rows of the view."""
        return len(self.rows)

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self.store.dim

    @property
    def dtype(self) -> str:
        """The stored type."""
        return self.store.dtype

    @property
    def labels(self) -> np.ndarray:
        """Labels of the rows, `[N]` int64."""
        return self.store.labels[self.rows]

    @property
    def groups(self) -> np.ndarray:
        """Groups of the rows, `[N]` of str."""
        return self.store.groups[self.rows]

    @property
    def keys(self) -> np.ndarray:
        """Keys of the rows, `[N]` of str."""
        return self.store.keys[self.rows]

    def fetch(self, rows: np.ndarray) -> np.ndarray:
        """Vectors at these positions of the view, `[B, D]` of the stored type."""
        return self.store.fetch(self.rows[rows])

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """Vectors at these positions of the view, `[B, D]` float32."""
        return self.store.gather(self.rows[rows])

    def read(self, start: int, out: np.ndarray) -> None:
        """Fill `out` `[B, D]` with the vectors from position `start`."""
        own = self.rows[start : start + len(out)]
        if _is_run(own):
            self.store.read(int(own[0]), out)
        else:
            out[:] = self.store.fetch(own)

    def block(self, start: int, stop: int) -> np.ndarray:
        """Vectors at positions start…stop-1, of the stored type; a view where the store's own `block` gives one."""
        own = self.rows[start:stop]
        return self.store.block(int(own[0]), int(own[-1]) + 1) if _is_run(own) else self.store.fetch(own)


def _is_run(rows: np.ndarray) -> bool:
    return len(rows) > 0 and rows[-1] - rows[0] == len(rows) - 1 and bool((np.diff(rows) == 1).all())
