"""Concept activation vectors: the direction in a layer from images without a concept to images with it."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from safetensors.numpy import load_file, save_file
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import LinearSVC

from aaca.runtime.errors import ConfigError, DataError, nearest
from aaca.runtime.files import write_json

Kind = Literal["mean_difference", "ridge", "logistic", "linear_svc", "pattern"]
WEIGHTS, META = "cav.safetensors", "cav.json"


@dataclass(frozen=True)
class Cav:
    """A unit vector `[D]` from C' (without the concept) to C (with it).

    `accuracy_positive`, `accuracy_negative`: shares of held-out images of C and C' on the right side of the threshold
    half-way between the projected means of the training folds. `meta`: what it is of (weights, layer, transform).
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
    values = np.concatenate([positive, negative]).astype(np.float64)
    labels = np.repeat([1, 0], [len(positive), len(negative)])
    right: dict[int, list[bool]] = {0: [], 1: []}
    for train, held in StratifiedKFold(folds, shuffle=True, random_state=seed).split(values, labels):
        direction = _direction(values[train], labels[train], kind, seed)
        projected = values @ direction
        middle = (projected[train][labels[train] == 1].mean() + projected[train][labels[train] == 0].mean()) / 2
        for label in (0, 1):
            right[label] += list((projected[held][labels[held] == label] > middle) == bool(label))
    return Cav(
        direction=_direction(values, labels, kind, seed).astype(np.float32),
        kind=kind,
        accuracy_positive=float(np.mean(right[1])),
        accuracy_negative=float(np.mean(right[0])),
        n_positive=len(positive),
        n_negative=len(negative),
        folds=folds,
        seed=seed,
        meta=dict(meta or {}),
    )


def _direction(values: np.ndarray, labels: np.ndarray, kind: Kind, seed: int) -> np.ndarray:
    if kind == "mean_difference":
        vector = values[labels == 1].mean(axis=0) - values[labels == 0].mean(axis=0)
    elif kind == "pattern":
        t = labels - labels.mean()
        vector = t @ (values - values.mean(axis=0)) / (t @ t)
    else:
        classifiers = {
            "ridge": lambda: RidgeClassifier(alpha=1.0),
            "logistic": lambda: LogisticRegression(C=1.0, max_iter=2000),
            "linear_svc": lambda: LinearSVC(C=1.0, dual=True, max_iter=20_000, random_state=seed),
        }
        vector = classifiers[kind]().fit(values, labels).coef_.ravel()
    length = np.linalg.norm(vector)
    if not np.isfinite(length) or length < 1e-12:
        raise DataError("concept vector: images with and without the concept have the same activations")
    return np.asarray(vector / length)
