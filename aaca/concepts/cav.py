"""Concept activation vectors: the direction in a layer from images without a concept to images with it."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from safetensors.numpy import load_file, save_file
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.svm import LinearSVC

from aaca.runtime.errors import ConfigError, DataError, nearest
from aaca.runtime.files import write_json

Kind = Literal["mean_difference", "ridge", "logistic", "linear_svc", "pattern"]
WEIGHTS, META = "cav.safetensors", "cav.json"


@dataclass(frozen=True)
class Cav:
    """A unit vector `[D]` from C' (without the concept) to C (with it).

    `accuracy_positive`, `accuracy_negative`: shares of held-out images of C and C' on the right side of the threshold
    half-way between the projected means of the training folds. `meta`: what it is of (concept, layer, pool, …);
    `load` refuses another.
    """

    direction: np.ndarray
    kind: Kind
    accuracy_positive: float
    accuracy_negative: float
    n_positive: int
    n_negative: int
    folds: int
    seed: int
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def balanced_accuracy(self) -> float:
        """Mean of the two."""
        return (self.accuracy_positive + self.accuracy_negative) / 2

    def save(self, folder: Path) -> None:
        """Write `cav.safetensors` and `cav.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file({"direction": self.direction}, folder / WEIGHTS)
        write_json(folder / META, {name: value for name, value in asdict(self).items() if name != "direction"})

    @classmethod
    def load(cls, folder: Path, meta: dict[str, Any] | None = None) -> "Cav":
        """Read what `save` wrote. Raises `DataError` where it is of other weights, layer or transform than `meta`."""
        try:
            fields = json.loads((folder / META).read_text(encoding="utf-8"))
            direction = load_file(folder / WEIGHTS)["direction"]
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{folder}: no concept vector ({error})") from error
        found = cls(direction=direction, **fields)
        for name, value in (meta or {}).items():
            if found.meta.get(name) != value:
                raise DataError(f"{folder}: a concept vector of {name} {found.meta.get(name)!r}; expected {value!r}")
        return found


def fit_cav(
    positive: np.ndarray,
    negative: np.ndarray,
    kind: Kind = "mean_difference",
    folds: int = 5,
    seed: int = 0,
    meta: dict[str, Any] | None = None,
) -> Cav:
    """Fit a direction to activations `[N, D]` of C and `[M, D]` of C'; accuracies by stratified cross-validation.

    `mean_difference`: mean(C) − mean(C'). `ridge`, `logistic`, `linear_svc`: the normal of that classifier. `pattern`:
    cov(a, t) / var(t) (Haufe et al. 2014), which for two sets is the mean difference. Raises `DataError` for sets that
    are too small or alike.
    """
    if kind not in get_args(Kind):
        raise ConfigError(f"cav.kind: {kind!r}; {nearest(kind, get_args(Kind))}")
    if min(len(positive), len(negative)) < max(2, folds) or folds < 2:
        raise DataError(
            f"concept vector: {len(positive)} images with and {len(negative)} without the concept; expected at least "
            f"{max(2, folds)} each (folds: {folds})"
        )
    values = np.concatenate([positive, negative])
    labels = np.repeat([1, 0], [len(positive), len(negative)])
    fold = _folds(labels, folds, seed)
    fit = _mean_differences if kind in ("mean_difference", "pattern") else _classifiers
    directions = fit(values, labels, fold, folds, kind, seed)  # [folds + 1, D]: without each fold, and of all
    projected = values @ directions[:-1].T.astype(values.dtype)
    right = np.zeros(len(labels), dtype=bool)
    for index in range(folds):
        held, own = fold == index, projected[:, index]
        middle = (own[~held & (labels == 1)].mean() + own[~held & (labels == 0)].mean()) / 2
        right[held] = (own[held] > middle) == (labels[held] == 1)
    return Cav(
        direction=directions[-1].astype(np.float32),
        kind=kind,
        accuracy_positive=float(right[labels == 1].mean()),
        accuracy_negative=float(right[labels == 0].mean()),
        n_positive=len(positive),
        n_negative=len(negative),
        folds=folds,
        seed=seed,
        meta=dict(meta or {}),
    )


def _folds(labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    # the fold of each row; every fold has its share of both sets
    rng, found = np.random.default_rng(seed), np.empty(len(labels), dtype=np.int64)
    for label in (0, 1):
        own = np.flatnonzero(labels == label)
        found[rng.permutation(own)] = np.arange(len(own)) % folds
    return found


def _mean_differences(
    values: np.ndarray, labels: np.ndarray, fold: np.ndarray, folds: int, kind: Kind, seed: int
) -> np.ndarray:
    # all from the sums of every fold, one product with the activations; cov(a, t) / var(t) of two sets is the same
    cells = np.zeros((2 * folds, len(labels)), dtype=values.dtype)
    cells[labels * folds + fold, np.arange(len(labels))] = 1
    sums = (cells @ values).astype(np.float64).reshape(2, folds, -1)
    counts = cells.sum(axis=1).astype(np.float64).reshape(2, folds, 1)
    total, number = sums.sum(axis=1, keepdims=True), counts.sum(axis=1, keepdims=True)
    means = np.concatenate([(total - sums) / (number - counts), total / number], axis=1)
    return _unit(means[1] - means[0])


def _classifiers(
    values: np.ndarray, labels: np.ndarray, fold: np.ndarray, folds: int, kind: Kind, seed: int
) -> np.ndarray:
    make: Any = {
        "ridge": lambda: RidgeClassifier(alpha=1.0),
        "logistic": lambda: LogisticRegression(C=1.0, max_iter=2000),
        "linear_svc": lambda: LinearSVC(C=1.0, dual=True, max_iter=20_000, random_state=seed),
    }[kind]
    exact = values.astype(np.float64)
    parts = [fold != index for index in range(folds)] + [np.ones(len(labels), dtype=bool)]
    return _unit(np.stack([make().fit(exact[part], labels[part]).coef_.ravel() for part in parts]))


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or lengths.min() < 1e-12:
        raise DataError("concept vector: images with and without the concept have the same activations")
    return np.asarray(vectors / lengths)
