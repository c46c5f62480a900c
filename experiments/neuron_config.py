"""The schema of the jobs `inspect`, `illusion` and `edit`: what `conf/neurons_base.yaml` composes to, as types."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from aaca.data.benchmark import BenchmarkSource
from aaca.discover.concepts.base import ConceptSource
from aaca.discover.neurons.inspect import InspectSpec
from aaca.evaluate.dashboard import Dashboard
from aaca.models.classifier import ClassifierSource
from aaca.models.given import check_given
from aaca.models.template import check_template
from aaca.models.zero_shot import ClipModel
from aaca.repair.edit import EditHead
from aaca.runtime.errors import ConfigError
from aaca.training.fit import SelectionRule
from aaca.training.illusion import IllusionSpec
from aaca.training.recipe import Recipe
from aaca.training.resume import ResumeSpec
from aaca.training.trainer import TrainerSpec

from .neuron_names_config import NeuronNamesConfig
from .paths_config import PathsConfig

Count = Annotated[int, Field(ge=1)]
Neurons = dict[str, list[Annotated[int, Field(ge=0)]]]


@dataclass(frozen=True, kw_only=True)
class IllusionConfig(IllusionSpec):
    """Which neurons are drawn, for which class, and whether texts guide; the rest is `IllusionSpec`."""

    neurons: Neurons | None = None
    top: Count = 5
    text: bool = False
    words: str = "{}"

    def spec(self) -> IllusionSpec:
        """How they are drawn."""
        return IllusionSpec(**{entry.name: getattr(self, entry.name) for entry in fields(IllusionSpec)})


@dataclass(frozen=True, kw_only=True)
class PageConfig:
    """How much the page shows: neurons a list, most active images and mistakes of each, changed images, illusions."""

    cards: Count = 6
    top: Count = 8
    mistakes: Annotated[int, Field(ge=0)] = 4
    images: Annotated[int, Field(ge=0)] = 12
    illusions: bool = False


@dataclass(frozen=True, kw_only=True)
class NeuronsConfig:
    """One run of `inspect`, `illusion` or `edit`."""

    dataset: BenchmarkSource
    model: ClassifierSource
    weights: str | None
    recipe: Recipe
    trainer: TrainerSpec
    resume: ResumeSpec
    logger: Dashboard
    paths: PathsConfig
    repair: EditHead
    seed: Annotated[int, Field(ge=0)]
    size: Literal["smoke", "demo", "full"]
    selection_rule: SelectionRule
    inspect: InspectSpec
    neuron_names: NeuronNamesConfig
    illusion: IllusionConfig
    page: PageConfig
    concepts: ConceptSource | None = None
    clip: ClipModel | None = None
    sets: str | None = None
    merge: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise `ConfigError` for what the configuration alone shows to be impossible."""
        check_given(self.weights)
        self.neuron_names.check(self.concepts, self.clip, self.dataset.truth())
        if self.illusion.text and self.clip is None:
            raise ConfigError("clip: missing, and illusion.text needs it; choose one: clip=tiny")
        if self.repair.needs_sets and (self.sets is None or self.concepts is None):
            raise ConfigError(
                "sets, concepts: missing, and repair.choose=sets needs both; expected sets=concept_sets.yaml and "
                "concepts=gt, or repair.choose=inspection"
            )
        if self.sets is not None and not Path(self.sets).is_file():
            raise ConfigError(f"sets: no file {self.sets}; expected a concept_sets.yaml")
        check_template(self.illusion.words, "illusion.words")
        if self.illusion.words != "{}" and not self.illusion.text:
            raise ConfigError("illusion.words: given, but nothing reads it; expected illusion.text=true")
        if self.sets is not None and not self.repair.needs_sets:
            raise ConfigError("sets: given, but nothing reads it; expected repair.choose=sets")
        if self.concepts is not None and self.neuron_names.by != "masks" and not self.repair.needs_responses:
            raise ConfigError("concepts: given, but nothing reads it; expected neuron_names.by=masks")
        reads = self.neuron_names.by == "clip" or self.illusion.text
        if self.clip is not None and not reads and not (self.concepts is not None and self.concepts.needs_clip):
            raise ConfigError("clip: given, but nothing reads it; expected illusion.text=true or neuron_names.by=clip")


def without_debug_sets(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a job without debug sets, of which the options of `size` also speak."""
    return {name: value for name, value in config.items() if name not in ("debugset", "preset")}
