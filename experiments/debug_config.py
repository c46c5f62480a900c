"""The schema of the job `debug`: what `conf/debug.yaml` composes to, as types."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from aaca.data.benchmark import BenchmarkSource
from aaca.debugset.selectors.base import Selector
from aaca.evaluate.dashboard import Dashboard
from aaca.models.classifier import ClassifierSource
from aaca.repair.base import Repair
from aaca.training.fit import SelectionRule
from aaca.training.recipe import Recipe
from aaca.training.resume import ResumeSpec
from aaca.training.trainer import TrainerSpec


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """The preset's name, as the paper has it."""

    name: Annotated[str, Field(pattern=r"^[\w.-]{1,60}$")]


@dataclass(frozen=True, kw_only=True)
class PathsConfig:
    """Where everything is written."""

    root: Annotated[str, Field(min_length=1)]


@dataclass(frozen=True, kw_only=True)
class DebugSetConfig:
    """How many images a class, from where, and what to do where there are fewer."""

    candidates: Literal["pool", "train", "none"]
    per_class: Annotated[int, Field(ge=1)]
    fill: Literal["none", "random", "repeat"]


@dataclass(frozen=True, kw_only=True)
class DebugConfig:
    """One run of the job `debug`."""

    method: MethodConfig
    dataset: BenchmarkSource
    model: ClassifierSource
    recipe: Recipe
    trainer: TrainerSpec
    selector: Selector
    repair: Repair
    logger: Dashboard
    resume: ResumeSpec
    paths: PathsConfig
    debugset: DebugSetConfig
    size: Literal["smoke", "demo", "full"]
    seed: Annotated[int, Field(ge=0)]
    study: Annotated[str, Field(min_length=1, max_length=100)]
    selection_rule: SelectionRule


def without_size_presets(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a job that has neither debug sets nor recipes, of which the options of `size` also speak."""
    return {name: value for name, value in config.items() if name not in ("debugset", "recipe")}
