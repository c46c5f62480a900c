"""`Repair`: the role of the `repair` config group. A failing classifier in, a better one out."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.loggers import Logger

from aaca.data.benchmark import Benchmark
from aaca.data.table import ImageTable
from aaca.models.classifier import Classifier, ClassifierSource
from aaca.runtime.seeding import purpose_seed
from aaca.training.fit import SelectionRule
from aaca.training.recipe import Recipe
from aaca.training.resume import ResumeSpec
from aaca.training.trainer import TrainerSpec


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


class Repair(ABC):
    """A strategy that repairs a classifier; its constructor arguments are its config."""

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """Everything in it that influences the repaired classifier."""

    @abstractmethod
    def apply(self, context: RepairContext, folder: Path) -> dict[str, Any]:
        """Write the repaired classifier (`model.safetensors`) and `fit.json` to `folder`; return the latter."""


def start_classifier(model: ClassifierSource, n_classes: int, recipe: Recipe, seed: int) -> Classifier:
    """The start weights of a run: what the model source gives, fresh layers drawn from the run's `init` seed."""
    torch.manual_seed(purpose_seed(seed, "init"))
    return model.build(n_classes, recipe.drop_path)
