"""Shards of an embedding store: the names of its files, reads by row and in chunks, sizes and hashes."""

import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from aaca.runtime.errors import DataError
from aaca.runtime.files import file_sha256

SCHEMA = 1
Dtype = Literal["float16", "float32"]
MANIFEST, STATISTICS = "manifest.json", "stats.safetensors"
CHUNK_BYTES = 8 * 2**20
"""What one piece of a streaming pass takes as float32."""


def feat_file(folder: Path, number: int) -> Path:
    """Vectors of a shard."""
    return folder / f"feat-{number:05d}.npy"


def rows_file(folder: Path, number: int) -> Path:
    """Keys, labels and groups of a shard."""
    return folder / f"rows-{number:05d}.parquet"


def describe(folder: Path, number: int, rows: int) -> dict[str, Any]:
    """What a manifest says of a shard: its rows, and the sizes and hashes of its files."""
    feat, index = feat_file(folder, number), rows_file(folder, number)
    hashes = {"sha256": file_sha256(feat), "rows_sha256": file_sha256(index)}
    return {"rows": rows, "bytes": feat.stat().st_size, "rows_bytes": index.stat().st_size, **hashes}


def check_hash(path: Path, known: str) -> None:
    """Raises `DataError` where the file is missing or not the one with this SHA-256."""
    if not path.is_file() or file_sha256(path) != known:
        raise DataError(f"{path}: its bytes are not those that were written (SHA-256 differs)")


class Shard:
    """One `.npy` file `[rows, D]`, open for plain reads and mapped into memory.

    Raises `DataError` where the file is not what its store says.
    """

    def __init__(self, path: Path, dim: int, dtype: str, rows: int | None = None, size: int | None = None) -> None:
        self.path = path
        try:
            self.stream = path.open("rb")
            if size is not None and path.stat().st_size != size:
                raise DataError(f"{path}: {path.stat().st_size} bytes; expected {size} (its store's manifest)")
            np.lib.format.read_magic(self.stream)
            shape, _, kind = np.lib.format.read_array_header_1_0(self.stream)
            self.offset = self.stream.tell()
            mapped = mmap.mmap(self.stream.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: not a readable array ({error})") from error
        if kind != np.dtype(dtype) or len(shape) != 2 or shape[1] != dim or (rows is not None and shape[0] != rows):
            raise DataError(f"{path}: {kind} of shape {list(shape)}; expected {dtype} [{rows or 'rows'}, {dim}]")
        self.rows, self.row_bytes = int(shape[0]), dim * kind.itemsize
        self.array = np.frombuffer(mapped, kind, self.rows * dim, self.offset).reshape(shape)

    def read(self, start: int, out: np.ndarray) -> None:
        """Fill `out` (contiguous, of the shard's type) with the rows from `start`; no page of the file is mapped."""
        left, at = _bytes_of(out), self.offset + start * self.row_bytes
        while left:
            count = os.preadv(self.stream.fileno(), [left], at)
            if not count:
                raise DataError(f"{self.path}: shorter than it was when it was opened")
            left, at = left[count:], at + count

    def pick(self, rows: np.ndarray, out: np.ndarray, places: np.ndarray) -> None:
        """Put each of these rows at its place in `out` (contiguous, of the shard's type), mapping nothing."""
        target, size, file = _bytes_of(out), self.row_bytes, self.stream.fileno()
        starts, goals = (rows * size + self.offset).tolist(), (places * size).tolist()
        for start, goal in zip(starts, goals, strict=True):
            if os.preadv(file, [target[goal : goal + size]], start) != size:
                raise DataError(f"{self.path}: shorter than it was when it was opened")


def _bytes_of(array: np.ndarray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def rows_a_chunk(dim: int, item_bytes: int = 4) -> int:
    """How many vectors of length `dim` one piece of a streaming pass holds."""
    return max(1, CHUNK_BYTES // (item_bytes * dim))


def chunks_of(shards: list[Shard], dim: int, dtype: str) -> Iterator[np.ndarray]:
    """All rows in order, in pieces `[≤ size, D]` of the stored type; a piece is gone once the next one is asked for."""
    size = rows_a_chunk(dim)
    buffer = np.empty((size, dim), dtype)
    for shard in shards:
        for start in range(0, shard.rows, size):
            piece = buffer[: min(size, shard.rows - start)]
            shard.read(start, piece)
            yield piece
