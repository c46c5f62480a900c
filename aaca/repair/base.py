"""`Repair`: the role of the `repair` config group. A failing classifier in, a better one out."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from pytorch_lightning.loggers import Logger

from aaca.concepts.concept_sets import ConceptSets
from aaca.concepts.images import ConceptPair
from aaca.data.benchmark import Benchmark
from aaca.data.table import ImageTable
from aaca.discover.concepts.table import ConceptTable
from aaca.models.classifier import Classifier, ClassifierSource
from aaca.models.head import FeatureBank
from aaca.models.teacher import TeacherSource
from aaca.models.zero_shot import ClipModel
from aaca.runtime.seeding import purpose_seed
from aaca.training.finetune import FineTune
from aaca.training.fit import WEIGHTS, FitJob, ModuleOf, SelectionRule, fit_classifier
from aaca.training.recipe import Recipe
from aaca.training.resume import ResumeSpec
from aaca.training.trainer import TrainerSpec

Init = Literal["pretrained", "f0"]
"""The start of a repair: the very start weights of f0, or f0 as it is."""


@dataclass(frozen=True)
class RepairContext:
    """What a repair may use. The test splits of `benchmark` are not for it."""

    benchmark: Benchmark
    debug: ImageTable | None  # the debug set's rows, labelled; None where the method builds none
    f0_weights: Path  # the failing classifier
    model: ClassifierSource
    recipe: Recipe
    trainer: TrainerSpec
    rule: SelectionRule
    epoch_size: int  # images an epoch draws: the same for every method of a comparison
    seed: int
    loggers: Sequence[Logger] = ()
    resume: ResumeSpec = field(default_factory=ResumeSpec)
    pairs: Sequence[ConceptPair] = ()  # where the repair needs them
    masks: ConceptTable | None = None  # what the training images show and where, blamed concepts alone; likewise
    teacher: TeacherSource | None = None
    bottleneck: object = None  # a `ConceptModel`, where the repair needs one
    sets: ConceptSets | None = None  # what is blamed, where the repair needs it
    banks: Mapping[str, FeatureBank] = field(default_factory=dict)  # f0's features of train and audit, likewise
    inspection: object = None  # an `Inspection` of f0, likewise
    responses: object = None  # `Responses` of f0's neurons to concepts, likewise

    @property
    def train(self) -> ImageTable:
        """The training images and the debug set."""
        train = self.benchmark.split("train")
        return train if self.debug is None else train.concat(self.debug)

    def start(self, init: Init) -> Classifier:
        """A classifier with the weights that `init` names."""
        classes = self.benchmark.classes
        classifier = start_classifier(self.model, len(classes), self.recipe, self.seed)
        return classifier.load(self.f0_weights) if init == "f0" else classifier

    def fit(
        self,
        classifier: Classifier,
        folder: Path,
        recipe: Recipe | None = None,
        train: ImageTable | None = None,
        module: ModuleOf = FineTune,
        objective: str = "loss of the recipe",
        label: str = "refit",
    ) -> dict[str, Any]:
        """Train `classifier` in place into `folder`; see `fit_classifier`."""
        job = FitJob(
            train=self.train if train is None else train,
            audit=self.benchmark.split("audit"),
            recipe=recipe or self.recipe,
            trainer=self.trainer,
            rule=self.rule,
            epoch_size=self.epoch_size,
            seed=purpose_seed(self.seed, "order"),
            label=label,
            loggers=self.loggers,
            resume=self.resume,
            module=module,
            objective=objective,
        )
        return fit_classifier(classifier, job, folder)


class Repair(ABC):
    """A strategy that repairs a classifier; its constructor arguments are its config."""

    needs_pairs: bool = False  # whether `RepairContext.pairs` is read
    can_sensitise: bool = False  # whether a pair's direction may be `sensitise`, and its weight and classes count
    takes_teacher: bool = False  # whether `RepairContext.teacher` is
    needs_masks: bool = False  # whether `RepairContext.masks` is
    needs_bottleneck: bool = False  # whether `RepairContext.bottleneck` is
    needs_sets: bool = False  # whether concept sets are needed
    needs_banks: bool = False  # whether `RepairContext.banks` is read
    needs_inspection: bool = False  # whether `RepairContext.inspection` is
    needs_responses: bool = False  # whether `RepairContext.responses` is
    reads_debug: bool = True  # whether the images of a debug set are used
    keeps_model: bool = True  # whether the repaired classifier is of f0's architecture
    asks_for: str = ""  # what it uses beyond labelled images, for tables: "groups of audit", "concept images" …

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """Everything in it that influences the repaired classifier."""

    @abstractmethod
    def apply(self, context: RepairContext, folder: Path) -> dict[str, Any]:
        """Write the repaired classifier (`model.safetensors`) and `fit.json` to `folder`; return the latter."""

    def check(self, model: ClassifierSource, recipe: Recipe) -> None:
        """Raise `ConfigError` for what the configuration alone shows to be impossible."""
        return None

    def restored(
        self, model: ClassifierSource, n_classes: int, recipe: Recipe, folder: Path, clip: ClipModel | None
    ) -> Classifier:
        """The classifier that `apply` left in `folder`."""
        return model.build(n_classes, recipe.drop_path, start_weights=False).load(folder / WEIGHTS)

    def check_images(self, benchmark: Benchmark) -> None:
        """Raise an error, before any training, where the images lack what it uses (groups …)."""
        return None


def start_classifier(model: ClassifierSource, n_classes: int, recipe: Recipe, seed: int) -> Classifier:
    """The start weights of a run: what the model source gives, fresh layers drawn from the run's `init` seed."""
    torch.manual_seed(purpose_seed(seed, "init"))
    return model.build(n_classes, recipe.drop_path)
