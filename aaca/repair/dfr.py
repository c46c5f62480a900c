"""`repair=dfr`: refit the last layer on group-balanced held-out images (Kirichenko et al. 2023)."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import nn

from aaca.data.benchmark import Benchmark
from aaca.data.features import FeatureStore
from aaca.repair.base import Repair, RepairContext
from aaca.repair.group_dro import check_groups
from aaca.runtime.errors import AacaError, ConfigError
from aaca.runtime.files import write_json
from aaca.runtime.ranks import current
from aaca.runtime.seeding import purpose_seed
from aaca.runtime.stages import PROGRESS
from aaca.training.extract import extract_features
from aaca.training.fit import SUMMARY, WEIGHTS

STRENGTHS = (1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01)  # C of the L1 penalty, as published


class RefitHead(Repair):
    """Deep Feature Reweighting: L1 logistic regression on f0's standardised embeddings of audit images.

    Every group gives as many images as the smallest; C by worst-group accuracy on one half of audit after a fit on the
    other; then the mean of `refits` heads on balanced draws of all of it.

    Args:
        refits: how many balanced draws are averaged.

    """

    asks_for = "groups of audit"

    def __init__(self, refits: int = 20) -> None:
        if refits < 1:
            raise ConfigError(f"repair.refits: {refits}; expected 1 or more")
        self.refits = refits

    def fingerprint(self) -> dict[str, Any]:
        """All arguments."""
        return {"repair": "dfr", "init": "f0", **vars(self)}

    def check_images(self, benchmark: Benchmark) -> None:
        """Raise `DataError` where audit has one group a class."""
        check_groups(benchmark.split("audit"), "audit", "dfr")

    def apply(self, context: RepairContext, folder: Path) -> dict[str, Any]:
        """Fit the head; see `Repair.apply`."""
        classifier, audit = context.start("f0"), context.benchmark.split("audit")
        if not isinstance(classifier.head, nn.Linear):
            raise AacaError(f"repair: dfr needs a linear head, and this model has a {type(classifier.head).__name__}")
        work = folder / PROGRESS / "audit"
        batch = 4 * context.recipe.batch_size
        extract_features(classifier, audit, work, context.trainer, batch, label="features audit")
        summary: dict[str, Any] = {}
        if current().rank == 0:
            frame = audit.frame
            named = frame["group"].where(frame["group"] != "", frame["label"].astype(str))
            groups = pd.factorize(named, sort=True)[0]
            embeddings = FeatureStore(work).scored().embeddings.astype(np.float64)
            rng = np.random.default_rng(purpose_seed(context.seed, "repair") % 2**32)
            weight, bias, strength = balanced_head(embeddings, audit.labels, groups, self.refits, rng)
            with torch.no_grad():
                classifier.head.weight.copy_(torch.from_numpy(weight))
                classifier.head.bias.copy_(torch.from_numpy(bias))
            classifier.save(folder / WEIGHTS)
            summary = {"updates": 0, "C": strength, "refits": self.refits, "train_images": len(audit), "epochs": 0}
            write_json(folder / SUMMARY, summary)
        return dict(current().share(summary))


def balanced_rows(groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As many rows of every group as the smallest has."""
    names, counts = np.unique(groups, return_counts=True)
    return np.concatenate([rng.permutation(np.flatnonzero(groups == name))[: counts.min()] for name in names])


def balanced_head(
    embeddings: np.ndarray, labels: np.ndarray, groups: np.ndarray, refits: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, float]:
    """(weight `[C, D]`, bias `[C]`, the C chosen) of a head on embeddings `[N, D]` as they are."""
    mean, scale = embeddings.mean(axis=0), embeddings.std(axis=0)
    scale[scale < 1e-8] = 1.0
    values = (embeddings - mean) / scale
    half = rng.permutation(len(labels)) < len(labels) // 2
    rows = np.flatnonzero(half)[balanced_rows(groups[half], rng)]

    def worst(strength: float) -> float:
        weight, bias = _fit(values[rows], labels[rows], strength)
        right = (values[~half] @ weight.T + bias).argmax(axis=1) == labels[~half]
        return min(float(right[groups[~half] == name].mean()) for name in np.unique(groups[~half]))

    strength = max(STRENGTHS, key=worst)
    heads = []
    for _ in range(refits):
        rows = balanced_rows(groups, rng)
        heads.append(_fit(values[rows], labels[rows], strength))
    weight, bias = (np.mean([head[part] for head in heads], axis=0) for part in (0, 1))
    return weight / scale, bias - (weight / scale) @ mean, strength


def _fit(values: np.ndarray, labels: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray]:
    model = LogisticRegression(l1_ratio=1.0, C=strength, solver="saga", max_iter=200, tol=1e-3, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(values, labels)
    if len(model.classes_) == 2:  # one row, for the second class
        return np.concatenate([-model.coef_, model.coef_]) / 2, np.append(-model.intercept_, model.intercept_) / 2
    return model.coef_, model.intercept_
