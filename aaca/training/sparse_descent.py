"""Descent with real zeros: columns of codes as products, cross-entropy over them, orthant-wise L-BFGS.

Source: Andrew & Gao, ICML 2007.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import csr_array
from torch import Tensor

from aaca.evaluate.bottleneck import Codes

MEMORY = 10
"""Pairs of steps and gradient changes that L-BFGS keeps."""
ROUNDING = 2e-7
"""Relative error of a float32 objective; a step may seem to climb by that much."""


class Columns:
    """Columns of the codes, (X − mean) / scale, in products alone: a sparse X is never centred in memory."""

    def __init__(self, codes: Codes, by_concept: Codes, mean: Tensor, scale: Tensor) -> None:
        self.by_concept, self.mean, self.scale = by_concept, mean, scale
        self.images, self.concepts = _product(codes), _product(by_concept)

    def chosen(self, columns: Tensor) -> "Columns":
        """Some of them."""
        if len(columns) == len(self.mean):
            return self
        rows = self.by_concept[columns.numpy()]
        codes = rows.T.tocsr() if isinstance(rows, csr_array) else rows.T
        return Columns(codes, rows, self.mean[columns], self.scale[columns])

    def logits(self, weight: Tensor) -> Tensor:
        """Times weights `[a, C]`: `[N, C]`."""
        raw = weight / self.scale[:, None]
        return self.images(raw).sub_(self.mean @ raw)

    def gradient(self, residual: Tensor) -> Tensor:
        """Transposed, times `[N, C]`: `[a, C]`."""
        return (self.concepts(residual) - torch.outer(self.mean, residual.sum(dim=0))) / self.scale[:, None]


def _product(matrix: Codes) -> Callable[[Tensor], Tensor]:
    # an embedding bag is the fastest product of a CSR and a thin dense matrix that torch and scipy have on a CPU
    if isinstance(matrix, np.ndarray):
        return _tensor(matrix).mm
    indices, offsets, values = (_tensor(part) for part in (matrix.indices, matrix.indptr[:-1], matrix.data))
    return lambda dense: F.embedding_bag(indices, dense, offsets, mode="sum", per_sample_weights=values)


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def moments(codes: Codes) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation `[h]` of each concept, float64; 1 for the deviation of one that never changes."""
    n, h = codes.shape
    if isinstance(codes, csr_array):
        values = codes.data.astype(np.float64)
        sums = [np.bincount(codes.indices, weights=part, minlength=h) for part in (values, values**2)]
    else:
        sums = [codes.sum(axis=0, dtype=np.float64), np.einsum("ij,ij->j", codes, codes, dtype=np.float64)]
    mean, square = (total / n for total in sums)
    variance = square - mean**2
    return mean, np.sqrt(np.where(variance > 1e-12 * square, variance, 1.0))


class Loss:
    """Mean cross-entropy + l2/2 ΣW² and its gradient at variables `[a, C]`; with a bias, that is one row more."""

    def __init__(self, columns: Columns, labels: Tensor, l2: float, has_bias: bool) -> None:
        self.columns, self.labels, self.l2, self.has_bias = columns, labels, l2, has_bias

    def __call__(self, variables: Tensor) -> tuple[float, Tensor]:
        """The value and the gradient, of the shape of `variables`."""
        weight = variables[:-1] if self.has_bias else variables
        logits = self.columns.logits(weight)
        value, residual = cross_entropy(logits + variables[-1] if self.has_bias else logits, self.labels)
        gradient = self.columns.gradient(residual).add_(weight, alpha=self.l2)
        if self.has_bias:
            gradient = torch.cat([gradient, residual.sum(dim=0, keepdim=True)])
        return value + self.l2 / 2 * float(weight.double().square().sum()), gradient


def cross_entropy(logits: Tensor, labels: Tensor) -> tuple[float, Tensor]:
    """The mean over images, and its derivative by the logits `[N, C]`, in whose place it is."""
    rows = torch.arange(len(labels))
    logits -= logits.amax(dim=1, keepdim=True)
    own = logits[rows, labels]
    sums = logits.exp_().sum(dim=1, keepdim=True)
    value = float((sums[:, 0].log() - own).mean(dtype=torch.float64))
    logits /= sums * len(labels)
    logits[rows, labels] -= 1 / len(labels)
    return value, logits


def descend(
    loss: Callable[[Tensor], tuple[float, Tensor]],
    variables: Tensor,
    penalty: Tensor,
    metric: Tensor,
    tolerance: float,
    max_steps: int,
) -> tuple[Tensor, float, float, int]:
    """Minimise `loss` + Σ penalty · |variables| `[a, C]` by orthant-wise L-BFGS (Andrew & Gao, ICML 2007).

    `penalty`, `metric` `[a, 1]`: L1 factors ≥ 0; a diagonal that curvatures are near to. Signs are kept from step to
    step; unlike in the paper the direction has to agree with steepest descent only where a variable is zero, and the
    memory is read on the free variables, which makes the last digits many times faster. Returns the variables, the
    objective, the largest |subgradient| (≤ `tolerance` where it converged) and the number of steps.
    """
    penalised, memory = penalty > 0, list[tuple[Tensor, Tensor]]()
    smooth, gradient = loss(variables)
    value, steps = smooth + float((penalty * variables.abs()).sum(dtype=torch.float64)), 0
    while True:
        size = gradient.sign() * (gradient.abs() - penalty).clamp(min=0)
        slope = torch.where(variables != 0, gradient + penalty * variables.sign(), size)
        violation = float(slope.abs().max())
        if violation <= tolerance or steps >= max_steps:
            return variables, value, violation, steps
        way = _direction(slope, variables, metric, memory, penalised)
        if float((way * slope).sum()) >= 0:
            memory.clear()
            way = _direction(slope, variables, metric, memory, penalised)
        signs = torch.where(variables != 0, variables.sign(), -slope.sign())
        length = 1.0
        while length > 1e-6:
            there = variables + length * way
            there.masked_fill_(penalised & (there * signs <= 0), 0)
            smooth, change = loss(there)
            new = smooth + float((penalty * there.abs()).sum(dtype=torch.float64))
            if new <= value + 1e-4 * float((slope * (there - variables)).sum()) + ROUNDING * abs(value):
                break
            length /= 2
        steps += 1
        if length <= 1e-6:
            if not memory:  # not even steepest descent gets on: all that float32 can tell
                return variables, value, violation, steps
            memory.clear()
            continue
        memory.append((there - variables, change - gradient))
        del memory[:-MEMORY]
        variables, gradient, value = there, change, new


def _direction(
    slope: Tensor, variables: Tensor, metric: Tensor, memory: list[tuple[Tensor, Tensor]], penalised: Tensor
) -> Tensor:
    # − inverse Hessian · slope by the two loops of L-BFGS over the free variables
    free = (variables != 0) | (slope != 0)
    pairs = [(step * free, change * free) for step, change in memory]
    products = [float((step * change).sum()) for step, change in pairs]
    used = [(*pair, by) for pair, by in zip(pairs, products, strict=True) if by > 1e-10 * float(pair[1].square().sum())]
    way, factors = slope.clone(), []
    for step, change, by in reversed(used):
        factors.append(float((step * way).sum()) / by)
        way.sub_(change, alpha=factors[-1])
    way /= metric
    if used:
        _, change, by = used[-1]
        way *= by / float((change.square() / metric).sum())
    for (step, change, by), factor in zip(used, reversed(factors), strict=True):
        way.add_(step, alpha=factor - float((change * way).sum()) / by)
    return torch.where(free & (~penalised | (variables != 0) | (way * slope > 0)), -way, 0.0)
