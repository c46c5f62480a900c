"""`repair=concept_distillation`: train f0 on with a loss that says which concepts of a layer not to use."""

from functools import partial
from pathlib import Path
from typing import Any

import torch

from aaca.concepts.activations import Pool, activations_of, module_of
from aaca.concepts.cav import Kind
from aaca.concepts.images import ConceptPair
from aaca.concepts.mapping import Kind as MappingKind
from aaca.models.classifier import Classifier, ClassifierSource
from aaca.repair.base import RepairContext
from aaca.repair.concept_report import LAYER_PREFIX, ConceptReport
from aaca.repair.tune import Tuning
from aaca.repair.vectors import PairVectors, Which, sample_of
from aaca.runtime.errors import ConfigError
from aaca.runtime.seeding import purpose_seed
from aaca.training.concept_distillation import (
    ConceptDistillation,
    ConceptObjective,
    Target,
    default_layer,
    frozen_through,
)
from aaca.training.concept_loss import Distance
from aaca.training.recipe import Recipe


class DistilConcepts(Tuning):
    """Concept Distillation (NeurIPS 2023), and with distance=sq_dot, freeze=true RR-ClArC (AAAI 2024).

    Args:
        layer: module of the backbone whose output is read; auto: a late one with something non-linear behind it.
        pool: none (every place its own direction) | gap | max (one direction for all places).
        target: whose gradient must not point along a concept: random_sign | logit | ce | proto.
        distance: abs_cos | sq_cos | sq_dot.
        strength: λ, of a mean over images and concepts (the released code sums: its λ times batch times concepts).
        directions: concepts | random, shuffled (controls).
        cav: how a vector is fitted: mean_difference | ridge | logistic | linear_svc | pattern.
        folds: of the cross-validation that says how well it tells them apart.
        least_accuracy: a vector below this balanced accuracy is refused.
        refresh_epochs: vectors and prototypes are fitted anew so often (0: never; with a teacher vectors stay).
        ema: share of the new vector in a refresh.
        prototypes: K of a class, for target=proto.
        alpha: share of the new prototypes in a refresh.
        prototype_images: training images a class that prototypes are fitted to, at most.
        freeze: hold the layer and all before it as f0 has them.
        mapping: ridge | conv, how a teacher's features are brought to the layer (teacher=).
        epochs, lr, batch_size: of this training; null: the recipe's.

    """

    needs_pairs = True
    takes_teacher = True
    mixes_well = False
    asks_for = "concept images"

    def __init__(
        self,
        layer: str = "auto",
        pool: Pool = "none",
        target: Target = "random_sign",
        distance: Distance = "abs_cos",
        strength: float = 200.0,
        directions: Which = "concepts",
        cav: Kind = "mean_difference",
        folds: int = 5,
        least_accuracy: float = 0.7,
        refresh_epochs: int = 1,
        ema: float = 0.3,
        prototypes: int = 7,
        alpha: float = 0.3,
        prototype_images: int = 500,
        freeze: bool = False,
        mapping: MappingKind = "ridge",
        epochs: int | None = 8,
        lr: float | None = 1e-3,
        batch_size: int | None = None,
    ) -> None:
        super().__init__(epochs, lr, batch_size)
        if strength < 0:
            raise ConfigError(f"repair.strength: {strength}; expected 0 or more")
        if folds < 2:
            raise ConfigError(f"repair.folds: {folds}; expected 2 or more")
        if refresh_epochs < 0:
            raise ConfigError(f"repair.refresh_epochs: {refresh_epochs}; expected 0 (never) or more")
        for name, share in (("ema", ema), ("alpha", alpha), ("least_accuracy", least_accuracy)):
            if not 0 <= share <= 1:
                raise ConfigError(f"repair.{name}: {share}; expected a share in 0…1")
        if target == "proto" and freeze:
            raise ConfigError(
                "repair.freeze: true, but prototypes' gradients see only what comes before the layer: nothing would be "
                "learnt; expected repair.freeze=false, or repair.target=random_sign"
            )
        if prototype_images < prototypes or prototypes < 1:
            raise ConfigError(
                f"repair.prototypes: {prototypes} of {prototype_images} images; expected 1…repair.prototype_images"
            )
        self.layer, self.pool, self.target, self.distance = layer, pool, target, distance
        self.strength, self.directions, self.cav, self.folds = strength, directions, cav, folds
        self.least_accuracy, self.refresh_epochs, self.ema = least_accuracy, refresh_epochs, ema
        self.prototypes, self.alpha, self.prototype_images = prototypes, alpha, prototype_images
        self.freeze, self.mapping = freeze, mapping

    @property
    def can_sensitise(self) -> bool:  # type: ignore[override]
        """A squared slope has no largest value."""
        return self.distance != "sq_dot"

    def fingerprint(self) -> dict[str, Any]:
        """All arguments."""
        return {"repair": "concept_distillation", "init": "f0", **vars(self)}

    def check(self, model: ClassifierSource, recipe: Recipe) -> None:
        """Raise `ConfigError` for a layer that the model lacks, and for mixed images."""
        super().check(model, recipe)
        classifier = model.build(2, start_weights=False)
        layer = layer_of(classifier, self.layer)
        size = classifier.image_size
        frozen_through(classifier, layer, torch.zeros(2, 3, size, size), freeze=self.freeze)
        if not any(parameter.requires_grad for parameter in classifier.parameters()):
            raise ConfigError(
                f"repair.freeze: nothing after {self.layer} could learn; expected an earlier repair.layer"
            )

    def apply(self, context: RepairContext, folder: Path) -> dict[str, Any]:
        """Fit vectors, train, and write `repair.json` (what the vectors are worth, sensitivity before and after)."""
        classifier = context.start("f0")
        layer = layer_of(classifier, self.layer)
        seed = purpose_seed(context.seed, "repair") % 2**31
        vectors = PairVectors(context.pairs, layer, self.pool, self.cav, self.folds, seed, self.directions)
        audit = sample_of(context.benchmark.split("audit"), 50, seed, classifier)
        report = ConceptReport(vectors, *audit)
        taught = self._teach(context, vectors, classifier, folder)
        found, vectors = report.before(classifier, taught, self.least_accuracy)
        size = len(found[0].direction)
        objective = self._objective(context, classifier, vectors, found, audit[0][:2])
        module = partial(ConceptDistillation, objective=objective, size=size)
        summary = context.fit(classifier, folder, self.tuned(context.recipe), module=module, objective=repr(vars(self)))
        report.finish(classifier, found, folder)
        return summary

    def _teach(
        self, context: RepairContext, vectors: PairVectors, classifier: Classifier, folder: Path
    ) -> dict[str, Any] | None:
        # activations of all sets as the teacher sees them, brought to the layer; None without a teacher
        if context.teacher is None:
            return None
        from aaca.repair.taught import taught_activations

        return taught_activations(context, vectors, classifier, self.mapping, folder)

    def _objective(
        self, context: RepairContext, classifier: Classifier, vectors: PairVectors, found: Any, probe: torch.Tensor
    ) -> ConceptObjective:
        fixed = PairVectors.directions_of(found)
        if context.teacher is None or self.directions != "concepts":
            directions: Any = vectors
        else:
            directions = lambda _: fixed  # noqa: E731 (a teacher's vectors stay)
        per_class = (context.train, self.prototype_images, vectors.seed)

        def images(now: Classifier) -> tuple[torch.Tensor, torch.Tensor]:
            pixels, labels = sample_of(*per_class, now)
            return activations_of(now, pixels, [vectors.layer], vectors.pool)[vectors.layer], labels

        return ConceptObjective(
            layer=vectors.layer,
            pool=self.pool,
            target=self.target,
            distance=self.distance,
            strength=self.strength,
            desensitise=torch.tensor([pair.direction == "desensitise" for pair in vectors.pairs]),
            weights=torch.tensor([pair.weight for pair in vectors.pairs]),
            counts=counts_of(vectors.pairs, context.benchmark.classes),
            directions=directions,
            images=images,
            refresh_epochs=self.refresh_epochs,
            ema=self.ema,
            prototypes=self.prototypes,
            alpha=self.alpha,
            frozen=frozen_through(classifier, vectors.layer, probe) if self.freeze else (),
        )


def layer_of(classifier: Classifier, name: str) -> str:
    """The layer's name within the classifier. Raises `ConfigError` with the nearest one."""
    if name == "auto":
        return default_layer(classifier)
    module_of(classifier.backbone, name, "repair.layer")
    return LAYER_PREFIX + name


def counts_of(pairs: Any, classes: tuple[str, ...]) -> torch.Tensor:
    """bool `[C, P]`: whether a pair's concept matters for images of a class."""

    def counts(pair: ConceptPair, name: str) -> bool:
        return pair.classes is None or name in pair.classes

    return torch.tensor([[counts(pair, name) for pair in pairs] for name in classes])
