"""`repair=p_clarc | a_clarc`: take blamed concepts out of a layer, or put them everywhere (Anders et al. 2022)."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from aaca.concepts.activations import activations_of
from aaca.concepts.cav import Kind
from aaca.models.classifier import Classifier, ClassifierSource
from aaca.repair.base import RepairContext
from aaca.repair.concept_distillation import layer_of
from aaca.repair.concept_report import LAYER_PREFIX, ConceptReport
from aaca.repair.tune import Tuning
from aaca.repair.vectors import PairVectors, Which, key_of, sample_of
from aaca.runtime.errors import ConfigError, nearest
from aaca.runtime.seeding import purpose_seed
from aaca.training.artifacts import ArtifactAugment, is_passed_by, project_in, project_out, readers_of
from aaca.training.concept_distillation import frozen_through
from aaca.training.finetune import FineTune
from aaca.training.recipe import Recipe


@dataclass(frozen=True)
class Place:
    """The layer whose output is changed, by its own weights (and the `norm` behind it) or by those of its `readers`."""

    layer: str
    norm: str | None = None
    readers: tuple[str, ...] = ()


class Clarc(Tuning):
    """Channel-wise concept vectors of f0; what comes after the layer is trained on, the layer and before held fixed.

    Args:
        how: project (P-ClArC: the span of the vectors is held at the mean of training images, or at 0; folded into
            weights) | augment (A-ClArC: half of the training images carry a concept).
        layer: module of the backbone; auto: a late one. A projection is folded into the layer itself (linear, or a
            convolution, with a bias or a batch norm behind it), or into the convolutions that alone read it.
        directions: concepts | random, shuffled (controls).
        cav, folds, least_accuracy: see `DistilConcepts`.
        share: of the images that carry a concept (augment).
        epochs, lr, batch_size: of this training; null: the recipe's.

    """

    needs_pairs = True
    asks_for = "concept images"

    def __init__(
        self,
        how: Literal["project", "augment"] = "project",
        layer: str = "auto",
        directions: Which = "concepts",
        cav: Kind = "mean_difference",
        folds: int = 5,
        least_accuracy: float = 0.7,
        share: float = 0.5,
        epochs: int | None = 8,
        lr: float | None = 1e-3,
        batch_size: int | None = None,
    ) -> None:
        super().__init__(epochs, lr, batch_size)
        if folds < 2:
            raise ConfigError(f"repair.folds: {folds}; expected 2 or more")
        for name, value in (("share", share), ("least_accuracy", least_accuracy)):
            if not 0 <= value <= 1:
                raise ConfigError(f"repair.{name}: {value}; expected a share in 0…1")
        self.how, self.layer, self.directions, self.cav = how, layer, directions, cav
        self.folds, self.least_accuracy, self.share = folds, least_accuracy, share

    def fingerprint(self) -> dict[str, Any]:
        """All arguments."""
        return {"repair": "clarc", "init": "f0", **vars(self)}

    def check(self, model: ClassifierSource, recipe: Recipe) -> None:
        """Raise `ConfigError` for a layer that the model lacks, or that cannot be projected."""
        super().check(model, recipe)
        self._place(model.build(2, start_weights=False).eval())

    def _place(self, classifier: Classifier) -> Place:
        name = layer_of(classifier, self.layer)
        if self.how == "augment":
            return Place(name)
        probe = torch.linspace(-2, 2, 2 * 3 * classifier.image_size**2).view(2, 3, *[classifier.image_size] * 2)
        fit = holders(classifier)
        if name in fit and not is_passed_by(classifier, name, probe):
            return Place(name, norm=fit[name])
        if readers := readers_of(classifier, name, probe):
            return Place(name, readers=tuple(readers))
        if self.layer != "auto":
            passed = [other for other in fit if not is_passed_by(classifier, other, probe)]
            known = [other.removeprefix(LAYER_PREFIX) for other in passed]
            hint = nearest(self.layer, known) if known else "this model has none: expected repair.how=augment"
            raise ConfigError(
                f"repair.layer: {self.layer}: a projection is folded into a linear layer or convolution that all must "
                f"pass, or into the convolutions that alone read a layer; {hint}"
            )
        raise ConfigError(
            f"repair.layer: auto: {name.removeprefix(LAYER_PREFIX)} has a shortcut around it, which a projection "
            "folded into weights does not reach; expected repair.how=augment, or a layer that all must pass"
        )

    def apply(self, context: RepairContext, folder: Path) -> dict[str, Any]:
        """Project or augment, train what follows, and write `repair.json`."""
        classifier = context.start("f0").eval()
        place = self._place(classifier)
        seed = purpose_seed(context.seed, "repair") % 2**31
        vectors = PairVectors(context.pairs, place.layer, "gap", self.cav, self.folds, seed, self.directions)
        audit = sample_of(context.benchmark.split("audit"), 50, seed, classifier)
        report = ConceptReport(vectors, *audit)
        found, vectors = report.before(classifier, None, self.least_accuracy)
        directions = vectors(classifier)
        frozen = frozen_through(classifier, place.norm or place.layer, audit[0][:2])
        if self.how == "project":
            self._project(context, classifier, vectors, directions, place)
            for name in place.readers:
                classifier.get_submodule(name).weight.requires_grad_(False)
            module: Any = partial(FineTune, frozen=frozen)
        else:
            seen = vectors.activations(classifier)
            values = torch.stack(
                [
                    torch.from_numpy(seen[key_of(pair.positive)]).mean(dim=0) @ direction
                    for pair, direction in zip(vectors.pairs, directions, strict=True)
                ]
            )
            module = partial(
                ArtifactAugment,
                layer=place.layer,
                directions=directions,
                values=values,
                share=self.share,
                frozen=frozen,
            )
        summary = context.fit(classifier, folder, self.tuned(context.recipe), module=module, objective=repr(vars(self)))
        report.finish(classifier, found, folder)
        return summary

    def _project(
        self, context: RepairContext, classifier: Classifier, vectors: PairVectors, directions: Tensor, place: Place
    ) -> None:
        if place.readers:
            project_in([classifier.get_submodule(name) for name in place.readers], directions)
            return
        own: Any = classifier.get_submodule(place.layer)
        norm: Any = classifier.get_submodule(place.norm) if place.norm else None
        project_out(own, directions, self._centre(context, classifier, vectors), norm)

    def _centre(self, context: RepairContext, classifier: Classifier, vectors: PairVectors) -> torch.Tensor:
        # the mean activation of training images, channel by channel: what the rest of the network expects
        pixels, _ = sample_of(context.train, 100, vectors.seed, classifier)
        return activations_of(classifier, pixels, [vectors.layer], "gap")[vectors.layer].mean(dim=0)


def holders(classifier: Classifier) -> dict[str, str | None]:
    """Modules that a projection can be folded into → the batch norm that takes their bias (None: they have one)."""
    size = classifier.image_size
    order = frozen_through(classifier, "backbone", torch.zeros(2, 3, size, size), freeze=False)
    called = [(name, classifier.get_submodule(name)) for name in order]
    found: dict[str, str | None] = {}
    for (name, module), (after, norm) in zip(called, [*called[1:], ("", nn.Identity())], strict=True):
        if not isinstance(module, nn.Conv2d | nn.Linear) or module is classifier.head:
            continue
        if module.bias is not None:
            found[name] = None
        elif isinstance(norm, nn.BatchNorm2d) and norm.num_features == len(module.weight):
            found[name] = after
    return found
