"""Squared L2 distances between embeddings, in float64 and in chunks; what failures a class has to compare with."""

import logging
from collections.abc import Iterator

import numpy as np

from aaca.data.features import Scored
from aaca.debugset.selectors.base import SelectionContext, by_id, map_chunks
from aaca.runtime.errors import DataError

log = logging.getLogger(__name__)

CENTRES_AT_ONCE = 512
KEEP_BYTES = 2**29


def embeddings(scored: Scored, l2_normalize: bool) -> np.ndarray:
    """Embeddings `[n, D]` float64, each of length 1 if `l2_normalize` (an all-zero one stays zero)."""
    values = scored.embeddings.astype(np.float64)
    if l2_normalize:
        lengths = np.sqrt(np.einsum("nd,nd->n", values, values))
        values /= np.where(lengths > 0, lengths, 1.0)[:, None]
    return values


def failure_embeddings(context: SelectionContext, l2_normalize: bool) -> np.ndarray:
    """Embeddings of the class's failures `[m, D]`; without failures, the mean of its audit images `[1, D]` (logged).

    Raises `DataError` where the class has no audit image either.
    """
    if len(context.failures):
        return embeddings(by_id(context.failures)[0], l2_normalize)
    if not len(context.audit):
        raise DataError(f"class {context.name} has no audit image, so no failure to select by; expected at least 1")
    log.warning(
        "class %s has no failures; selecting by the mean of its %d audit images", context.name, len(context.audit)
    )
    return embeddings(by_id(context.audit)[0], l2_normalize).mean(axis=0, keepdims=True)


def nearest_squared_distance(candidates: Scored, centres: np.ndarray, l2_normalize: bool) -> np.ndarray:
    """min_c ‖z − c‖² over centres `[m, D]`, `[n]`; reads the candidates in chunks."""
    return map_chunks(candidates, lambda chunk: _to_nearest(embeddings(chunk, l2_normalize), centres))


def _to_nearest(values: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Which centre is nearest comes from a matrix product; the distance itself from differences.

    The product's rounding depends on where a row stands in its block; differences give equal rows equal distances.
    `values` are used up.
    """
    best = np.full(len(values), np.inf)
    nearest = np.zeros(len(values), dtype=np.int64)
    for start in range(0, len(centres) if len(centres) > 1 else 0, CENTRES_AT_ONCE):
        block = centres[start : start + CENTRES_AT_ONCE]
        relative = values @ block.T
        relative *= -2.0
        relative += np.einsum("md,md->m", block, block)
        place = relative.argmin(axis=1)
        least = np.take_along_axis(relative, place[:, None], axis=1)[:, 0]
        closer = least < best
        best[closer], nearest[closer] = least[closer], start + place[closer]
    values -= centres if len(centres) == 1 else centres[nearest]
    return np.einsum("nd,nd->n", values, values)


class EmbeddingBlocks:
    """The candidates' embeddings in blocks, to be walked many times: kept in memory where small, else read again."""

    def __init__(self, candidates: Scored, l2_normalize: bool) -> None:
        self._candidates = candidates
        self._l2_normalize = l2_normalize
        n_bytes = 8 * len(candidates) * int(candidates.embeddings_all.shape[1])
        self._kept = list(self._read()) if n_bytes <= KEEP_BYTES else None

    def __iter__(self) -> Iterator[tuple[slice, np.ndarray]]:
        return iter(self._kept) if self._kept is not None else self._read()

    def row(self, position: int) -> np.ndarray:
        """The embedding at this position, `[D]` float64."""
        return embeddings(self._candidates.take(np.array([position])), self._l2_normalize)[0]

    def _read(self) -> Iterator[tuple[slice, np.ndarray]]:
        start = 0
        for chunk in self._candidates.chunks():
            yield slice(start, start + len(chunk)), embeddings(chunk, self._l2_normalize)
            start += len(chunk)
