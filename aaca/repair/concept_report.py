"""`ConceptReport`: what concept vectors are worth, and how much the classifier depends on them, before and after."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from aaca.concepts.activations import logit_gradients, pooled
from aaca.concepts.cav import Cav
from aaca.concepts.tcav import p_value, tcav
from aaca.models.classifier import Classifier, parameters_sha256
from aaca.repair.vectors import PairVectors, key_of, save_cavs, strong
from aaca.runtime.errors import DataError
from aaca.runtime.files import write_json
from aaca.runtime.ranks import current

LAYER_PREFIX = "backbone."
REPORT, CAVS = "repair.json", "cavs"
RESAMPLES = 30
CHANCE = 0.6
"""Balanced held-out accuracy up to which a vector fitted anew says nothing about its concept."""


@dataclass
class ConceptReport:
    """Of labelled audit images `[N, 3, S, S]`, `[N]`: the gradients of their true class's logit at the layer."""

    vectors: PairVectors
    images: Tensor
    labels: Tensor
    found: dict[str, Any] = field(default_factory=dict)
    own: list[Cav] = field(default_factory=list)  # f0's vectors, by its own activations
    of: dict[str, Any] = field(default_factory=dict)  # f0's weights and transform: what the vectors belong to

    def before(
        self, classifier: Classifier, taught: dict[str, np.ndarray] | None, least: float
    ) -> tuple[list[Cav], PairVectors]:
        """The vectors in f0 (of `taught` activations, where a teacher gives them) that are worth `least`; their pairs.

        The others stand in the report as left out. What f0 depends on is measured along vectors of its own activations.
        """
        self.of = {
            "weights_sha256": parameters_sha256(classifier),
            "transform": {"size": classifier.image_size, "mean": list(classifier.mean), "std": list(classifier.std)},
        }
        own = self.vectors.cavs(classifier)
        cavs = own if taught is None else self.vectors.fitted(taught)
        kept = strong(cavs, least)
        weak = [cav for index, cav in enumerate(cavs) if index not in kept]
        cavs, self.own = [cavs[index] for index in kept], [own[index] for index in kept]
        self.vectors = replace(self.vectors, pairs=[self.vectors.pairs[index] for index in kept])
        self.found |= {
            "layer": self.vectors.layer.removeprefix(LAYER_PREFIX),
            "concepts": [
                {
                    "concept": pair.positive.name,
                    "origin": pair.positive.origin,
                    "against": pair.negative.name,
                    "direction": pair.direction,
                    "images": [cav.n_positive, cav.n_negative],
                    "accuracy": [cav.accuracy_positive, cav.accuracy_negative],
                }
                for pair, cav in zip(self.vectors.pairs, cavs, strict=True)
            ],
            "left_out": [
                {"concept": cav.meta["concept"], "accuracy": [cav.accuracy_positive, cav.accuracy_negative]}
                for cav in weak
            ],
            "before": self._depends(classifier, self.own),
            "p_before": self._significance(classifier),
        }
        return cavs, self.vectors

    def after(self, classifier: Classifier) -> "ConceptReport":
        """The same along f0's vectors (`after_along_f0`), and along vectors fitted anew in the repaired classifier.

        A new vector that no longer tells its concept says nothing: null, with its accuracy beside it.
        """
        self.found["after_along_f0"] = self._depends(classifier, self.own)
        try:
            anew = self.vectors.cavs(classifier)
        except DataError:  # the concept has left the layer without a trace
            self.found |= {"after": [None] * len(self.own), "accuracy_after": [None] * len(self.own)}
            return self
        worth = [cav.balanced_accuracy for cav in anew]
        depends = self._depends(classifier, anew)
        self.found["accuracy_after"] = worth
        self.found["after"] = [one if at > CHANCE else None for one, at in zip(depends, worth, strict=True)]
        return self

    def _significance(self, classifier: Classifier) -> list[list[float]]:
        # p of each concept and class: TCAV of vectors between random halves of C and C' against that of vectors between
        # halves that are mixed alike (differences of means), Bonferroni over all
        activations, flat = self.vectors.activations(classifier), self._slopes(classifier)
        labels, rng = self.labels.numpy(), np.random.default_rng(self.vectors.seed)
        classes, found = np.unique(labels), []
        for pair in self.vectors.pairs:
            sides = [activations[key_of(one)] for one in (pair.positive, pair.negative)]
            told, mixed = (
                np.stack([_difference(sides[0], sides[1], rng, mix) for _ in range(RESAMPLES)]) for mix in (False, True)
            )
            own = []
            for label in classes:
                scores = [[one.sign_count for one in tcav(flat[labels == label], part)] for part in (told, mixed)]
                own.append(p_value(scores[0], scores[1], len(self.vectors.pairs) * len(classes)))
            found.append(own)
        return found

    def _slopes(self, classifier: Classifier) -> np.ndarray:
        # [N, D]: gradients of the true classes' logits
        layer = self.vectors.layer
        gradients = logit_gradients(classifier, self.images, self.labels, [layer], flatten=False)[layer]
        return pooled(gradients, "none" if self.vectors.pool == "none" else "gap").numpy()

    def _depends(self, classifier: Classifier, cavs: list[Cav]) -> list[dict[str, Any]]:
        flat = self._slopes(classifier)
        directions = np.stack([cav.direction for cav in cavs])
        lengths = np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)
        cosines = np.abs(flat / lengths @ directions.T).mean(axis=0)
        labels = self.labels.numpy()
        scores = {label: tcav(flat[labels == label], directions) for label in np.unique(labels)}
        return [
            {
                "abs_cos": float(cosines[index]),
                "tcav": [scores[label][index].sign_count for label in scores],  # by class
            }
            for index in range(len(cavs))
        ]

    def finish(self, classifier: Classifier, cavs: list[Cav], folder: Path) -> None:
        """Look at the repaired classifier; write `repair.json` and f0's vectors that it was trained with at first.

        Each says of which weights and under which transform.
        """
        self.after(classifier.cpu().eval())
        if current().rank == 0:
            write_json(folder / REPORT, self.found)
            save_cavs([replace(cav, meta=cav.meta | self.of) for cav in cavs], folder / CAVS)


def _difference(positive: np.ndarray, negative: np.ndarray, rng: np.random.Generator, mix: bool) -> np.ndarray:
    halves = [rng.permutation(len(side)) < len(side) // 2 for side in (positive, negative)]
    if not mix:
        return np.asarray(positive[halves[0]].mean(axis=0) - negative[halves[1]].mean(axis=0))
    one = np.concatenate([positive[halves[0]], negative[halves[1]]])
    other = np.concatenate([positive[~halves[0]], negative[~halves[1]]])
    return np.asarray(one.mean(axis=0) - other.mean(axis=0))
