"""Writing an embedding store: shard after shard, resumable, the statistics and the manifest last."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
from safetensors.numpy import save_file

from aaca.data.embedding_shards import (
    MANIFEST,
    SCHEMA,
    STATISTICS,
    Dtype,
    Shard,
    describe,
    feat_file,
    rows_a_chunk,
    rows_file,
)
from aaca.data.embedding_statistics import statistics_of
from aaca.data.embeddings import EmbeddingStore
from aaca.runtime.errors import ConfigError, DataError, nearest
from aaca.runtime.files import atomic_path, digest, file_sha256, read_json, write_json

WRITING = "writing.json"
NO_LABEL = -1


class EmbeddingWriter:
    """Writes a store row after row. A shard is published whole; a writer on a half-written folder goes on after it.

    `about` (plain JSON: encoder, transform, dataset …) says what the rows are. Raises `DataError` where `folder` holds
    rows of something else. `done` rows are there already: `add` expects the rows after them.
    """

    filled: int  # rows in `buffer` that are not yet published, and their columns
    keys: list[str]
    labels: list[int]
    groups: list[str]

    def __init__(self, folder: Path, dim: int, dtype: Dtype, about: dict[str, Any], shard_rows: int = 100_000) -> None:
        if dtype not in get_args(Dtype):
            raise ConfigError(f"dtype: {dtype!r}; {nearest(dtype, get_args(Dtype))}")
        self.folder, self.dim, self.dtype, self.shard_rows = folder, dim, dtype, shard_rows
        self.plan = {"schema": SCHEMA, "dim": dim, "dtype": dtype, "about": about}
        if (folder / WRITING).is_file():
            if digest(read_json(folder / WRITING)) != digest(self.plan):
                raise DataError(f"{folder}: holds embeddings of another kind ({WRITING}); expected a new folder")
        else:
            write_json(folder / WRITING, self.plan)
        self.shards: list[Shard] = []
        while feat_file(folder, len(self.shards)).is_file():
            self.shards.append(Shard(feat_file(folder, len(self.shards)), dim, dtype))
        self.buffer = np.empty((shard_rows, dim), dtype)
        self._clear()

    @property
    def done(self) -> int:
        """Rows in published shards."""
        return sum(shard.rows for shard in self.shards)

    @property
    def last_key(self) -> str | None:
        """Key of the last published row; None where there is none."""
        if not self.shards:
            return None
        return str(pd.read_parquet(rows_file(self.folder, len(self.shards) - 1), columns=["key"])["key"].iloc[-1])

    def add(
        self,
        vectors: np.ndarray,
        keys: Sequence[str],
        labels: np.ndarray | None = None,
        groups: Sequence[str] | None = None,
    ) -> None:
        """Append vectors `[B, D]` with their keys, labels `[B]` (-1: none) and groups ("": none).

        Raises `DataError` on a wrong shape, on NaN or infinity (also what overflows the store's type), or where the
        store was closed before.
        """
        count = len(keys)
        marks = [NO_LABEL] * count if labels is None else np.asarray(labels).tolist()
        names = [""] * count if groups is None else list(groups)
        if vectors.shape != (count, self.dim) or len(marks) != count or len(names) != count:
            raise DataError(
                f"{self.folder}: vectors {list(vectors.shape)}, {len(marks)} labels, {len(names)} groups for {count} "
                f"keys; expected [{count}, {self.dim}] and {count} of each"
            )
        if (self.folder / MANIFEST).is_file():
            raise DataError(f"{self.folder}: this store is complete; expected no more rows")
        with np.errstate(over="ignore"):  # it is refused below, by name
            rows = np.asarray(vectors).astype(self.dtype, copy=False)
        finite = np.isfinite(rows).all(axis=1)
        if not finite.all():
            key = keys[int(finite.argmin())]
            raise DataError(f"{self.folder}: the vector of {key!r} holds NaN or infinity (as {self.dtype})")
        at = 0
        while at < count:
            taken = min(count - at, self.shard_rows - self.filled)
            self.buffer[self.filled : self.filled + taken] = rows[at : at + taken]
            self.keys += keys[at : at + taken]
            self.labels += marks[at : at + taken]
            self.groups += names[at : at + taken]
            self.filled, at = self.filled + taken, at + taken
            if self.filled == self.shard_rows:
                self._publish()

    def close(self) -> EmbeddingStore:
        """Publish what is left, compute the statistics, write the manifest. Raises `DataError` without any row."""
        if self.filled:
            self._publish()
        if not self.shards:
            raise DataError(f"{self.folder}: no embedding was written; expected at least one")
        if not (self.folder / MANIFEST).is_file():
            self._conclude()
        return EmbeddingStore.open(self.folder)

    def _publish(self) -> None:
        # the rows first: a shard counts as soon as its vectors are there
        number = len(self.shards)
        labels = np.array(self.labels, dtype=np.int64)
        frame = pd.DataFrame({"key": self.keys, "label": labels, "group": self.groups})
        with atomic_path(rows_file(self.folder, number)) as temporary:
            frame.to_parquet(temporary, index=False)
        with atomic_path(feat_file(self.folder, number)) as temporary, temporary.open("wb") as stream:
            np.save(stream, self.buffer[: self.filled])
        self.shards.append(Shard(feat_file(self.folder, number), self.dim, self.dtype))
        self._clear()

    def _clear(self) -> None:
        self.filled = 0
        self.keys, self.labels, self.groups = [], [], []

    def _conclude(self) -> None:
        found = statistics_of(self.shards, self.dim, self.dtype)
        with atomic_path(self.folder / STATISTICS) as temporary:
            save_file({"mean": found.mean, "geometric_median": found.geometric_median}, temporary)
        facts = {
            **self.plan,
            "rows": self.done,
            "shards": [describe(self.folder, number, shard.rows) for number, shard in enumerate(self.shards)],
            "statistics": {
                "mean_norm": found.mean_norm,
                "rms_norm": found.rms_norm,
                "centred_norm": found.centred_norm,
                "sha256": file_sha256(self.folder / STATISTICS),
            },
        }
        write_json(self.folder / MANIFEST, {**facts, "content": digest(facts)})


def store_of_array(
    folder: Path,
    array: np.ndarray,
    keys: Sequence[str] | None = None,
    labels: np.ndarray | None = None,
    groups: Sequence[str] | None = None,
    about: dict[str, Any] | None = None,
) -> EmbeddingStore:
    """Write an array `[N, D]` as a new store: float16 stays, all else becomes float32. Default keys: row numbers.

    Raises `DataError` where `folder` holds embeddings already.
    """
    if (folder / WRITING).is_file():
        raise DataError(f"{folder}: holds embeddings already; expected a new folder")
    dtype: Dtype = "float16" if array.dtype == np.float16 else "float32"
    writer = EmbeddingWriter(folder, array.shape[1], dtype, about or {})
    size = rows_a_chunk(writer.dim)
    for start in range(0, len(array), size):
        cut = slice(start, start + size)
        part = np.asarray(array[cut])
        names = [f"{row:08d}" for row in range(start, start + len(part))] if keys is None else keys[cut]
        marks = None if labels is None else labels[cut]
        writer.add(part, names, marks, None if groups is None else groups[cut])
    return writer.close()
