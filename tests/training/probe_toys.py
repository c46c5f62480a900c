"""Toy codes and labels for sparse probes."""

import numpy as np
from scipy.sparse import csr_array

N, H, C = 300, 30, 4


def planted() -> tuple[csr_array, np.ndarray]:
    """Codes `[N, H]`, and labels drawn from sparse weights on them."""
    rng = np.random.default_rng(0)
    codes = (rng.uniform(0.3, 1.7, (N, H)) * (rng.random((N, H)) < 0.2)).astype(np.float32)
    codes[:, 7] = 0  # a concept that never fires
    weight = rng.normal(0, 2, (C, H)) * (rng.random((C, H)) < 0.3)
    labels = (codes @ weight.T + rng.gumbel(size=(N, C))).argmax(axis=1)
    return csr_array(codes), labels
