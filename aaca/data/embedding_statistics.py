"""Statistics of an embedding store: one streamed pass over its rows, and the geometric median of a sample."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from aaca.data.embedding_shards import Shard, chunks_of, rows_a_chunk

MEDIAN_SAMPLE, MEDIAN_STEPS = 20_000, 200


@dataclass(frozen=True)
class Statistics:
    """What a store says of its rows: `mean`, `geometric_median` `[D]` float32, and norms of rows."""

    mean: np.ndarray
    mean_norm: float
    rms_norm: float
    centred_norm: float
    geometric_median: np.ndarray


def statistics_of(shards: list[Shard], dim: int, dtype: str) -> Statistics:
    """One pass over all rows in float64 sums; the median and the centred norm are those of a fixed sample of rows."""
    n = sum(shard.rows for shard in shards)
    wanted = np.sort(np.random.default_rng(0).choice(n, min(n, MEDIAN_SAMPLE), replace=False, shuffle=False))
    sample, filled = np.empty((len(wanted), dim), dtype), 0
    total, norms, squares, start = np.zeros(dim), 0.0, 0.0, 0
    for chunk in chunks_of(shards, dim, dtype):
        rows = chunk.astype(np.float64)
        total += rows.sum(axis=0)
        squared = np.einsum("nd,nd->n", rows, rows)
        norms, squares = norms + float(np.sqrt(squared).sum()), squares + float(squared.sum())
        low, high = np.searchsorted(wanted, [start, start + len(rows)])
        sample[low:high] = chunk[wanted[low:high] - start]
        filled, start = int(high), start + len(rows)
    assert filled == len(wanted)
    mean = total / n
    centred = sum(float(np.linalg.norm(part - mean, axis=1).sum()) for part in _parts(sample)) / len(sample)
    median = geometric_median(sample)
    return Statistics(
        mean.astype(np.float32), norms / n, float(np.sqrt(squares / n)), centred, median.astype(np.float32)
    )


def geometric_median(rows: np.ndarray) -> np.ndarray:
    """The point `[D]` (float64) with the least sum of distances to the rows `[N, D]`, to about 1e-7 of their spread.

    Weiszfeld's iteration from the mean, with the step of Vardi and Zhang (PNAS 2000) where it meets a row.
    """
    at = np.asarray(rows.mean(axis=0, dtype=np.float64))
    for _ in range(MEDIAN_STEPS):
        weighted, weights, distances, met = np.zeros(len(at)), 0.0, 0.0, 0
        for part in _parts(rows):
            away = np.linalg.norm(part - at, axis=1)
            inverse = np.divide(1.0, away, out=np.zeros_like(away), where=away > 0)
            weighted += inverse @ part
            weights, distances = weights + float(inverse.sum()), distances + float(away.sum())
            met += int((away == 0).sum())
        if not weights:  # every row is here
            return at
        step = weighted / weights - at
        pull = float(np.linalg.norm(step)) * weights
        moved = step * max(0.0, 1 - met / pull) if pull else step * 0
        at = at + moved
        if float(np.linalg.norm(moved)) <= 1e-7 * distances / len(rows):
            break
    return at


def _parts(rows: np.ndarray) -> Iterator[np.ndarray]:
    """The rows in float64 pieces of bounded size."""
    size = rows_a_chunk(rows.shape[1], 8)
    return (rows[start : start + size].astype(np.float64) for start in range(0, len(rows), size))
