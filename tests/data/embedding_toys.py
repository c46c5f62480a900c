"""A toy embedding store: vectors, keys, labels and groups of 57 rows, in shards of ten."""

import numpy as np

from aaca.data.embedding_writer import EmbeddingWriter
from aaca.data.embeddings import EmbeddingStore

N, D, SHARD = 57, 6, 10
ABOUT = {"encoder": "toy", "transform": {"size": [8, 8]}}


def vectors(n: int = N, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(n, D)) + 0.5).astype(np.float32)


def add(writer: EmbeddingWriter, rows: np.ndarray, start: int, stop: int) -> None:
    at = range(start, stop)
    writer.add(rows[start:stop], [f"k{x}" for x in at], np.array(at) % 3, [f"g{x % 2}" for x in at])


def written(folder, rows: np.ndarray, dtype="float32", batch: int = 7) -> EmbeddingStore:
    writer = EmbeddingWriter(folder, D, dtype, ABOUT, SHARD)
    for start in range(0, len(rows), batch):
        add(writer, rows, start, min(start + batch, len(rows)))
    return writer.close()
