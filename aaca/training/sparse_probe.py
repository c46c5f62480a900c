"""Sparse linear probes on concept codes: real zeros, at one strength or along a path, from CSR codes as they are.

Objective: mean cross-entropy + λ (α Σ|W| + (1 − α)/2 Σ W²); the bias is free. Its optimum is reached by orthant-wise
L-BFGS (Andrew & Gao, ICML 2007) over a working set of concepts from the strong rule (Tibshirani et al., JRSS B 2012).
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import load_file, save_file
from scipy.sparse import csr_array
from torch import Tensor

from aaca.evaluate.bottleneck import Codes, folded, logits_of, nec
from aaca.runtime.errors import ConfigError, DataError
from aaca.runtime.files import atomic_path, read_json, write_json
from aaca.training.sparse_descent import Columns, Loss, cross_entropy, descend, moments

Reduction = Literal["mean", "sum"]
WEIGHTS, META = "probe.safetensors", "probe.json"


@dataclass(frozen=True)
class Probe:
    """Logits = (X − mean) / scale · Wᵀ + b: weight `[C, h]`, bias `[C]`, mean and scale `[h]` where standardised."""

    weight: np.ndarray
    bias: np.ndarray | None = None
    mean: np.ndarray | None = None
    scale: np.ndarray | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    def raw(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Weights `[C, h]` and bias that give the same logits from raw codes; zeros stay zeros."""
        return folded(self.weight, self.bias, self.mean, self.scale)

    def logits(self, codes: Codes) -> np.ndarray:
        """Logits `[N, C]` of codes `[N, h]`. Raises `DataError` for another number of concepts."""
        return logits_of(codes, *self.raw())

    def save(self, folder: Path) -> None:
        """Write `probe.safetensors` and `probe.json`."""
        arrays = {name: getattr(self, name) for name in ("weight", "bias", "mean", "scale")}
        with atomic_path(folder / WEIGHTS) as temporary:
            save_file({name: np.ascontiguousarray(a) for name, a in arrays.items() if a is not None}, temporary)
        write_json(folder / META, self.meta)

    @classmethod
    def load(cls, folder: Path) -> "Probe":
        """Read what `save` wrote. Raises `DataError` where there is none."""
        try:
            return cls(**load_file(folder / WEIGHTS), meta=read_json(folder / META))
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"{folder}: no probe ({error})") from error


def check(codes: Codes, labels: np.ndarray, n_classes: int, bias: bool = False) -> None:
    """Raises `DataError` where codes and labels do not fit; with a free bias every class needs an image."""
    if not isinstance(codes, csr_array | np.ndarray) or codes.ndim != 2 or labels.shape != (codes.shape[0],):
        raise DataError(
            f"probe: {type(codes).__name__} and labels {labels.shape}; expected CSR or dense [N, h] and [N]"
        )
    if not len(labels) or labels.min() < 0 or labels.max() >= n_classes:
        raise DataError(f"probe: labels of {n_classes} classes; expected 0 to {n_classes - 1} and at least one image")
    if not np.isfinite(codes.data if isinstance(codes, csr_array) else codes).all():
        raise DataError("probe: codes are not all finite")
    if bias and not np.bincount(labels, minlength=n_classes).all():
        raise DataError("probe: a class has no image; its free bias has no optimum")


def fit_prox(
    codes: Codes,
    labels: np.ndarray,
    n_classes: int,
    strength: float,
    alpha: float = 1.0,
    bias: bool = False,
    reduction: Reduction = "mean",
    standardise: bool = False,
    tolerance: float = 1e-2,
    start: Probe | None = None,
    max_steps: int = 1000,
) -> Probe:
    """The optimum for codes `[N, h]` and labels `[N]`; `alpha` is the share of L1 in the penalty.

    `reduction`: penalties as a mean over C·h weights (DN-CBM) or a sum (scikit-learn, GLM-SAGA: their C is 1 / (N λ)).
    `tolerance`: the largest |subgradient| left, in units of λα (KKT). `start`: a probe of the same codes to start from.
    `meta` says the objective, the violation and whether it `converged` in `max_steps`. Raises `DataError` and
    `ConfigError`.
    """
    problem = _Problem(codes, labels, n_classes, bias, standardise)
    l1, l2 = _penalties(strength, alpha, reduction, n_classes * codes.shape[1])
    if start is None:
        screen = 2 * l1 - float(problem.gradient.abs().max())
    else:
        problem.move(start)
        screen = l1
    found = problem.solve(l1, l2, screen, tolerance, max_steps)
    return problem.probe({"strength": strength, "alpha": alpha, "reduction": reduction, **found})


def path(
    codes: Codes,
    labels: np.ndarray,
    n_classes: int,
    n_lambdas: int = 150,
    ratio: float = 2**0.1,
    alpha: float = 0.99,
    bias: bool = True,
    standardise: bool = True,
    nec_limit: float | None = None,
    tolerance: float = 1e-2,
    max_steps: int = 1000,
) -> list[Probe]:
    """Optima from the smallest all-zero λ in `n_lambdas` steps down to it / ratio^n_lambdas, each from the one before.

    The regularisation path of GLM-SAGA as VLG-CBM uses it (reduction "sum"; Srivastava et al., NeurIPS 2024). Ends with
    the first probe whose NEC reaches `nec_limit`. Raises `DataError`, `ConfigError`.
    """
    problem = _Problem(codes, labels, n_classes, bias, standardise)
    top = float(problem.gradient.abs().max())
    if top == 0:
        raise DataError("probe: no concept tells the classes apart; expected a gradient at zero weights")
    probes: list[Probe] = []
    for number in range(n_lambdas + 1):
        strength = top / alpha * ratio**-number
        l1, l2 = _penalties(strength, alpha, "sum", 1)
        screen = l1 * (2 - (ratio if number else 1))
        found = problem.solve(l1, l2, screen, tolerance, max_steps)
        probes.append(problem.probe({"strength": strength, "alpha": alpha, "reduction": "sum", **found}))
        if nec_limit is not None and nec(probes[-1].weight) >= nec_limit:
            break
    return probes


def strength_max(
    codes: Codes,
    labels: np.ndarray,
    n_classes: int,
    alpha: float = 1.0,
    bias: bool = False,
    reduction: Reduction = "mean",
    standardise: bool = False,
) -> float:
    """The smallest λ at which all weights are zero: the largest |gradient| there / α, in closed form."""
    top = float(_Problem(codes, labels, n_classes, bias, standardise).gradient.abs().max())
    return top / _penalties(1.0, alpha, reduction, n_classes * codes.shape[1])[0]


def objective(
    probe: Probe, codes: Codes, labels: np.ndarray, strength: float, alpha: float, reduction: Reduction
) -> float:
    """The objective of a probe in float64 throughout."""
    weight, bias = (None if part is None else part.astype(np.float64) for part in (probe.weight, probe.bias))
    assert weight is not None
    weight, bias = folded(weight, bias, probe.mean, probe.scale)
    logits = torch.from_numpy(logits_of(codes.astype(np.float64), weight, bias))
    l1, l2 = _penalties(strength, alpha, reduction, weight.size)
    penalty = l1 * np.abs(probe.weight).sum(dtype=np.float64) + l2 / 2 * np.square(probe.weight, dtype=np.float64).sum()
    return float(F.cross_entropy(logits, torch.from_numpy(labels)) + penalty)


def _penalties(strength: float, alpha: float, reduction: Reduction, weights: int) -> tuple[float, float]:
    # factors of Σ|W| and of ½ ΣW²
    if not strength > 0 or not 0 < alpha <= 1:
        raise ConfigError(f"probe: strength {strength}, alpha {alpha}; expected strength > 0 and 0 < alpha <= 1")
    if reduction not in ("mean", "sum"):
        raise ConfigError(f"probe.reduction: {reduction!r}; expected mean or sum")
    each = strength / weights if reduction == "mean" else strength
    return each * alpha, each * (1 - alpha)


class _Problem:
    """One set of codes and labels: weights `[h, C]`, the bias, the gradient of all weights; solved for a penalty."""

    def __init__(self, codes: Codes, labels: np.ndarray, n_classes: int, bias: bool, standardise: bool) -> None:
        check(codes, labels, n_classes, bias)
        codes = codes.astype(np.float32, copy=False)
        h, (mean, scale) = codes.shape[1], moments(codes)
        spread = np.ones(h) if standardise else scale**2 + mean**2
        # the diagonal of a bound on the Hessian; the rarest concepts must not take steps without end
        self.curvature = torch.from_numpy(np.maximum(spread, 1e-4 * spread.max()) / 4).float()[:, None]
        self.mean: np.ndarray | None = mean if standardise else None
        self.scale: np.ndarray | None = scale if standardise else None
        statistics = (mean, scale) if standardise else (np.zeros(h), np.ones(h))
        by_concept = codes.T.tocsr() if isinstance(codes, csr_array) else codes.T
        self.columns = Columns(codes, by_concept, *(torch.from_numpy(part).float() for part in statistics))
        self.labels, self.has_bias = torch.from_numpy(labels.astype(np.int64)), bias
        frequencies = np.bincount(labels, minlength=n_classes) / len(labels)
        first = np.log(frequencies) if bias else np.zeros(n_classes)  # the optimum without any concept
        self.weight, self.bias = torch.zeros(h, n_classes), torch.from_numpy(first).float()
        self._renew(torch.arange(1))

    def move(self, start: Probe) -> None:
        """Take over the weights of `start`."""
        if start.weight.shape != tuple(self.weight.T.shape) or (start.bias is not None) != self.has_bias:
            expected = f"{tuple(self.weight.T.shape)} {'with' if self.has_bias else 'without'} a bias"
            raise DataError(f"probe.start: weights {start.weight.shape}; expected {expected}")
        self.weight = torch.from_numpy(start.weight.T.copy())
        if start.bias is not None:
            self.bias = torch.from_numpy(start.bias.copy())
        self._renew(torch.arange(len(self.weight)))

    def _renew(self, own: Tensor) -> None:
        # the gradient of all weights, where those outside `own` are zero
        logits = self.columns.chosen(own).logits(self.weight[own]) + self.bias
        self.gradient = self.columns.gradient(cross_entropy(logits, self.labels)[1])

    def solve(self, l1: float, l2: float, screen: float, tolerance: float, max_steps: int) -> dict[str, Any]:
        """Minimise over the concepts in use or with |gradient| ≥ `screen`, add those that break KKT, and again."""
        own = (self.weight.any(dim=1) | (self.gradient.abs().amax(dim=1) >= screen)).nonzero()[:, 0]
        own, steps = own if len(own) else self.gradient.abs().amax(dim=1).argmax()[None], 0
        while True:
            loss = Loss(self.columns.chosen(own), self.labels, l2, self.has_bias)
            metric, penalty = self.curvature[own] + l2, torch.full((len(own), 1), l1)
            variables = self.weight[own]
            if self.has_bias:
                metric, penalty = (
                    torch.cat([part, torch.full((1, 1), end)]) for part, end in ((metric, 0.25), (penalty, 0))
                )
                variables = torch.cat([variables, self.bias[None]])
            variables, value, violation, taken = descend(
                loss, variables, penalty, metric, tolerance * l1, max_steps - steps
            )
            steps += taken
            self.weight[own] = variables[: len(own)]
            self.bias = variables[-1] if self.has_bias else self.bias
            self._renew(own)
            outside = self.gradient.abs().amax(dim=1) - l1
            outside[own] = 0
            broken = outside > tolerance * l1
            if steps >= max_steps or not broken.any():
                break
            broken[own] = True
            own = broken.nonzero()[:, 0]
        violation = max(violation, float(outside.max())) / l1
        return {"objective": value, "violation": violation, "converged": violation <= tolerance, "steps": steps}

    def probe(self, meta: dict[str, Any]) -> Probe:
        """What was found, as it is now."""
        bias = self.bias.numpy().copy() if self.has_bias else None
        return Probe(self.weight.T.numpy().copy(), bias, self.mean, self.scale, meta)
