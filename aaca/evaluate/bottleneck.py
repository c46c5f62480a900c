"""What a linear probe on concepts gets right, and how few it decides by: NEC, accuracy at equal NEC, NCC, coverage.

Weights are `[C, h]`, codes `[N, h]` dense or CSR; CSR codes are read a chunk of images at a time and never densified.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from scipy.sparse import csr_array

from aaca.evaluate.metrics import WorstGroupAccuracy
from aaca.runtime.errors import ConfigError, DataError

Codes: TypeAlias = csr_array | np.ndarray
ENTRIES = 1 << 22
"""Contributions sorted at a time; 4 bytes each, a few copies."""
CHUNK = 4096
"""Images whose logits are in memory at once where only classes are asked for."""


def folded(
    weight: np.ndarray, bias: np.ndarray | None, mean: np.ndarray | None, scale: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Weights `[C, h]` and bias `[C]` that do on raw codes what the given ones do on (X − mean) / scale."""
    if mean is None or scale is None:
        return weight, bias
    raw = weight.astype(np.float64) / scale
    shift = -(raw @ mean)
    kind = weight.dtype
    return raw.astype(kind), (shift if bias is None else bias + shift).astype(kind)


def logits_of(codes: Codes, weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    """Logits `[N, C]`. Raises `DataError` where codes and weights have not the same concepts."""
    if codes.shape[1] != weight.shape[1]:
        raise DataError(f"probe: codes of {codes.shape[1]} concepts; its weights are of {weight.shape[1]}")
    logits: np.ndarray = codes @ np.ascontiguousarray(weight.T)
    return logits if bias is None else logits + bias


def predict(codes: Codes, weight: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    """The classes `[N]` that a linear probe predicts, from logits in float64; ties: the lowest index.

    Raises `DataError` where codes and weights have not the same concepts, or there is no image.
    """
    _check_shapes(codes, weight)
    exact = weight.astype(np.float64)
    starts = range(0, codes.shape[0], CHUNK)
    return np.concatenate([logits_of(codes[at : at + CHUNK], exact, bias).argmax(axis=1) for at in starts])


def group_outcome(
    codes: Codes, weight: np.ndarray, bias: np.ndarray | None, labels: np.ndarray, groups: np.ndarray
) -> dict[str, Any]:
    """What a probe gets right: accuracy, worst_group_accuracy, worst_group, balanced_accuracy, per_group, per_group_n.

    `groups` `[N]` ≥ 0. Accuracies in [0, 1]; balanced: mean over the groups that have images; NaN where one has none.
    """
    metric = WorstGroupAccuracy()
    predicted = predict(codes, weight, bias)
    parts = (predicted, np.asarray(labels), np.asarray(groups), np.arange(len(predicted)))
    metric.update(*(torch.from_numpy(part.astype(np.int64)) for part in parts))
    found = metric.compute()
    return {
        "accuracy": float(found["accuracy"]),
        "worst_group_accuracy": float(found["worst_group_accuracy"]),
        "worst_group": int(found["worst_group"]),
        "balanced_accuracy": float(found["per_group"].nanmean()),
        "per_group": [float(value) for value in found["per_group"]],
        "per_group_n": [int(value) for value in found["per_group_n"]],
    }


def nec(weight: np.ndarray) -> float:
    """Number of effective concepts: non-zero weights a class (Srivastava et al., NeurIPS 2024)."""
    return float(np.count_nonzero(weight) / len(weight))


def zero_counts(weight: np.ndarray, thresholds: Sequence[float] = (0, 1e-9, 1e-6, 1e-3, 1e-1)) -> dict[float, int]:
    """Number of weights with |w| < threshold; at threshold 0, of exact zeros."""
    sizes = np.abs(weight)
    return {limit: int((sizes < limit).sum() if limit else (sizes == 0).sum()) for limit in thresholds}


def truncated(weight: np.ndarray, target_nec: float) -> np.ndarray:
    """The weights with all but the round(`target_nec` · C) largest |w| of all classes at zero; of ties the first stay.

    Raises `DataError` where fewer weights are non-zero.
    """
    keep = round(target_nec * len(weight))
    if np.count_nonzero(weight) < keep:
        raise DataError(
            f"NEC {target_nec:g}: the weights have {nec(weight):g} non-zero a class; expected at least as many"
        )
    order = np.argsort(-np.abs(weight), axis=None, kind="stable")
    result = np.zeros_like(weight)
    result.flat[order[:keep]] = weight.flat[order[:keep]]
    return result


def accuracy_at_nec(
    weights: Sequence[np.ndarray],
    biases: Sequence[np.ndarray | None],
    codes: Codes,
    labels: np.ndarray,
    targets: Sequence[float] = (5, 10, 15, 20, 25, 30),
    mean: np.ndarray | None = None,
    scale: np.ndarray | None = None,
) -> dict[float, float]:
    """Accuracy at each target NEC of a path of probes that grows denser (Srivastava et al., NeurIPS 2024).

    Of the first probe at least that dense the smallest |w| are dropped down to the target, without a refit and with its
    bias. `mean`, `scale` `[h]`: of codes standardised for the probes, whose |w| then compares. Raises `DataError` where
    the path ends sparser than a target.
    """
    found = {}
    for target in targets:
        dense = [
            place for place, weight in enumerate(weights) if np.count_nonzero(weight) >= round(target * len(weight))
        ]
        if not dense:
            raise DataError(
                f"NEC {target:g}: the densest of {len(weights)} probes has {max(map(nec, weights), default=0):g}"
            )
        weight, bias = folded(truncated(weights[dense[0]], target), biases[dense[0]], mean, scale)
        found[target] = float((predict(codes, weight, bias) == labels).mean())
    return found


def anec(accuracies: dict[float, float]) -> float:
    """Mean of the accuracies at the targets."""
    return float(np.mean(list(accuracies.values())))


def ncc(codes: Codes, weight: np.ndarray, share: float = 0.95) -> float:
    """Number of contributing concepts: how many make up `share` of Σ|z w|, mean over images and classes (M-CBM).

    Counted from 1; 0 for an image and class to which no concept contributes.
    """
    _check(codes, weight, share)
    by_concept = np.abs(weight.T).astype(np.float32)
    total = 0
    for values, concepts in _chunks(codes, len(weight)):
        total += int(_needed(np.abs(values)[..., None] * by_concept[concepts], share).sum())
    return total / (codes.shape[0] * len(weight))


def coverage(
    codes: Codes,
    weight: np.ndarray,
    share: float,
    kind: Literal["positive", "absolute"] = "positive",
    by: Literal["predicted"] | np.ndarray = "predicted",
    bias: np.ndarray | None = None,
) -> float:
    """Mean number of concepts that make up `share` of the (positive | absolute) contributions to one logit an image.

    `by`: the predicted class (DN-CBM), or the class of each image `[N]`. Counted from 1 (the released code of DN-CBM
    counts from 0); 0 for an image without any such contribution.
    """
    _check(codes, weight, share)
    if kind not in ("positive", "absolute"):
        raise ConfigError(f"coverage.kind: {kind!r}; expected positive or absolute")
    chosen = predict(codes, weight, bias) if isinstance(by, str) else by
    total, start = 0, 0
    for values, concepts in _chunks(codes, 1):
        parts = values * weight[chosen[start : start + len(values), None], concepts]
        parts = np.abs(parts) if kind == "absolute" else np.maximum(parts, 0)
        total, start = total + int(_needed(parts[..., None], share).sum()), start + len(values)
    return total / codes.shape[0]


def _check(codes: Codes, weight: np.ndarray, share: float) -> None:
    if not 0 < share <= 1:
        raise ConfigError(f"share: {share}; expected more than 0 and at most 1")
    _check_shapes(codes, weight)


def _check_shapes(codes: Codes, weight: np.ndarray) -> None:
    if weight.ndim != 2 or codes.shape[1:] != weight.shape[1:] or not codes.shape[0]:
        raise DataError(
            f"codes {codes.shape}: expected at least one image of {weight.shape[-1]} concepts; weights {weight.shape}: "
            "expected [C, h]"
        )


def _chunks(codes: Codes, width: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    # codes `[n, K]` and their concepts, K the most an image has; where it has fewer, code 0 of concept 0
    if isinstance(codes, np.ndarray):
        step = max(1, ENTRIES // (codes.shape[1] * width))
        for start in range(0, len(codes), step):
            yield codes[start : start + step], np.arange(codes.shape[1])[None]
        return
    lengths = np.diff(codes.indptr)
    places = np.arange(max(1, int(lengths.max())))
    step = max(1, ENTRIES // (len(places) * width))
    for start in range(0, len(lengths), step):
        own = lengths[start : start + step, None]
        there = places < own
        entries = np.where(there, codes.indptr[start : start + len(own), None] + places, 0)
        if codes.nnz:
            yield np.where(there, codes.data[entries], 0), np.where(there, codes.indices[entries], 0)
        else:
            yield np.zeros(there.shape, np.float32), np.zeros(there.shape, np.int64)


def _needed(parts: np.ndarray, share: float) -> np.ndarray:
    # how many of the largest along axis 1 of `[n, K, C]` ≥ 0 reach the share: `[n, C]`
    sums = np.cumsum(-np.sort(-parts, axis=1), axis=1, dtype=np.float64)
    # rounding must not ask for one more where some add up to the share exactly
    below = (sums < share * (1 - 1e-9) * sums[:, -1:]).sum(axis=1)
    return np.where(sums[:, -1] > 0, below + 1, 0)
