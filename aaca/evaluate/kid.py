"""Kernel Inception Distance (Bińkowski et al. 2018) between two sets of embeddings, of whatever network."""

import numpy as np


def kid(first: np.ndarray, second: np.ndarray) -> float:
    """Unbiased squared maximum mean discrepancy of `[N, D]` and `[M, D]` with the kernel (x·y/D + 1)³; may be negative.

    NaN with fewer than two rows on a side. Unit vectors are scaled to length √D first, so that the kernel sees values
    of the size it was made for.
    """
    n, m, d = len(first), len(second), first.shape[1]
    if min(n, m) < 2:
        return float("nan")
    x, y = _scaled(first), _scaled(second)
    within_x, within_y, across = _kernel(x, x, d), _kernel(y, y, d), _kernel(x, y, d)
    same = (within_x.sum() - np.trace(within_x)) / (n * (n - 1)) + (within_y.sum() - np.trace(within_y)) / (m * (m - 1))
    return float(same - 2 * across.mean())


def _scaled(vectors: np.ndarray) -> np.ndarray:
    values = np.asarray(vectors, dtype=np.float64)
    return values / np.linalg.norm(values, axis=1, keepdims=True) * np.sqrt(values.shape[1])


def _kernel(x: np.ndarray, y: np.ndarray, d: int) -> np.ndarray:
    return np.asarray((x @ y.T / d + 1) ** 3)
