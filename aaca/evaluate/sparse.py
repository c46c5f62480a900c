"""How well sparse codes rebuild embeddings (streamed), and how well a learned dictionary rebuilds a known one."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from aaca.runtime.errors import DataError

DENSITY_EDGES = np.linspace(-8, 0, 33)
"""Bins of log10(density): four a decade, from one in 100 million images to all."""


class SparseMetrics(Metric):
    """Reconstruction and sparsity of `latents` codes over embeddings of `features` dimensions, exact over any batches.

    Sums are float64 and stay on the device; `update` never waits for it. Over several processes the sums add up; a
    row that a sampler repeats counts twice.
    """

    is_differentiable = False
    full_state_update = False
    n: Tensor
    nonzero: Tensor
    squares: Tensor
    errors: Tensor
    cosines: Tensor
    ratios: Tensor
    sums: Tensor
    fires: Tensor
    l0_counts: Tensor

    def __init__(self, features: int, latents: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.features, self.latents = features, latents
        for name in ("n", "nonzero", "squares", "errors", "cosines", "ratios"):
            self.add_state(name, default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("sums", default=torch.zeros(features, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("fires", default=torch.zeros(latents, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("l0_counts", default=torch.zeros(latents + 1, dtype=torch.int64), dist_reduce_fx="sum")

    @torch.no_grad()
    def update(self, x: Tensor, x_hat: Tensor, codes: Tensor) -> None:
        """Add embeddings `[B, D]`, their reconstructions `[B, D]` and codes `[B, h]` (a latent fires where > 0)."""
        batch = len(x)
        expected = ((batch, self.features), (batch, self.features), (batch, self.latents))
        if (tuple(x.shape), tuple(x_hat.shape), tuple(codes.shape)) != expected:
            raise DataError(
                f"SparseMetrics: x {tuple(x.shape)}, x_hat {tuple(x_hat.shape)} and codes {tuple(codes.shape)}; "
                f"expected [B, {self.features}] twice and [B, {self.latents}]"
            )
        x, x_hat = x.double(), x_hat.double()
        length, rebuilt = x.norm(dim=1), x_hat.norm(dim=1)
        some = length > 0  # a zero embedding has neither direction nor scale
        tiny = torch.finfo(torch.float64).tiny
        self.n += batch
        self.nonzero += some.sum()
        self.sums += x.sum(dim=0)
        self.squares += x.square().sum()
        self.errors += (x - x_hat).square().sum()
        self.cosines += ((x * x_hat).sum(dim=1) / (length * rebuilt).clamp_min(tiny)).sum()
        self.ratios += torch.where(some, rebuilt / length.clamp_min(tiny), 0).sum()
        fires = codes > 0
        self.fires += fires.sum(dim=0)
        l0 = fires.sum(dim=1)
        self.l0_counts.scatter_add_(0, l0, torch.ones_like(l0))

    def compute(self) -> dict[str, Any]:
        """Over all rows seen. Shares in [0, 1].

        `n`; `l0_mean`, `l0_median` (latents that fire an image); `fvu` = Σ‖x − x̂‖² / Σ‖x − mean x‖²;
        `explained_variance` = 1 − fvu; `normalised_mse` = Σ‖x − x̂‖² / Σ‖x‖²; `cosine` (mean of x with x̂; 0 where x̂ is
        0) and `shrinkage` (mean of ‖x̂‖ / ‖x‖), both over rows that are not 0; `dead_share` (latents that never fired);
        `density` `[h]` (share of rows on which a latent fires); `density_counts` `[32]`: latents that fired, by
        log10(density) between `DENSITY_EDGES`. `fvu` is NaN where x does not vary. Raises `DataError` without a row.
        """
        n = int(self.n)
        if n == 0:
            raise DataError("SparseMetrics: no embedding was seen; expected at least one")
        total, squares, nonzero = float(self.errors), float(self.squares), float(self.nonzero)
        variance = squares - float((self.sums / n).square().sum() * n)
        varies = variance > 1e-12 * squares  # below, it is what rounding left
        density = _numpy(self.fires) / n
        counts, _ = np.histogram(np.log10(np.maximum(density[density > 0], 10.0 ** DENSITY_EDGES[0])), DENSITY_EDGES)
        l0 = _numpy(self.l0_counts)
        fvu = total / variance if varies else float("nan")
        return {
            "n": n,
            "l0_mean": float(l0 @ np.arange(len(l0)) / n),
            "l0_median": _median(l0),
            "fvu": fvu,
            "explained_variance": 1 - fvu,
            "normalised_mse": total / squares if squares else float("nan"),
            "cosine": float(self.cosines) / nonzero if nonzero else float("nan"),
            "shrinkage": float(self.ratios) / nonzero if nonzero else float("nan"),
            "dead_share": float((density == 0).mean()),
            "density": density,
            "density_counts": counts,
        }


def _numpy(state: Tensor) -> np.ndarray:
    return np.asarray(state.cpu().numpy())


def _median(counts: np.ndarray) -> float:
    # of the values 0, 1, 2, … that occur so often: the mean of the two in the middle
    below, n = np.cumsum(counts), int(counts.sum())
    return float(np.searchsorted(below, [(n - 1) // 2, n // 2], side="right").mean())


def mmcs(true: np.ndarray, learned: np.ndarray) -> float:
    """Mean over true atoms `[D, m]` of the largest cosine with a learned one `[D, h]` (Sharkey et al. 2022)."""
    return float(_cosines(true, learned).max(axis=1).mean())


def recovered_share(true: np.ndarray, learned: np.ndarray, threshold: float = 0.9) -> float:
    """Share of true atoms `[D, m]` that have a learned one `[D, h]` at a cosine above `threshold`."""
    return float((_cosines(true, learned).max(axis=1) > threshold).mean())


def mcc(true: np.ndarray, learned: np.ndarray) -> float:
    """Mean cosine of true atoms `[D, m]` with their partners of `[D, h]`, matched one to one for the largest sum.

    Signed, for codes are not negative. A true atom without a partner (h < m) counts 0.
    """
    from scipy.optimize import linear_sum_assignment

    cosines = _cosines(true, learned)
    rows, columns = linear_sum_assignment(cosines, maximize=True)
    return float(cosines[rows, columns].sum() / len(cosines))


def uniqueness(learned: np.ndarray, threshold: float = 0.9, chunk: int = 1024) -> float:
    """Share of latents `[D, h]` whose nearest other latent has a cosine below `threshold`; `chunk` rows at a time."""
    columns = _unit(learned)
    unique = 0
    for start in range(0, len(columns), chunk):
        cosines = columns[start : start + chunk] @ columns.T
        rows = np.arange(len(cosines))
        cosines[rows, start + rows] = -np.inf
        unique += int((cosines.max(axis=1) < threshold).sum())
    return unique / len(columns)


def _cosines(true: np.ndarray, learned: np.ndarray) -> np.ndarray:
    if true.ndim != 2 or learned.ndim != 2 or len(true) != len(learned):
        raise DataError(f"dictionaries are {true.shape} and {learned.shape}; expected [D, m] and [D, h]")
    return np.asarray(_unit(true) @ _unit(learned).T)


def _unit(dictionary: np.ndarray) -> np.ndarray:
    # columns as rows of length 1, so that products of them run along memory
    columns = dictionary.T.astype(np.float64)
    lengths = np.linalg.norm(columns, axis=1, keepdims=True)
    wrong = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
    if len(wrong):
        raise DataError(f"dictionary column {wrong[0]} is zero or not finite; expected a direction")
    return np.ascontiguousarray(columns / lengths)
