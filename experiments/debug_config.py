"""The schema of the job `debug`: what `conf/debug.yaml` composes to, as types."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from aaca.annotate.aggregate import VoteRules
from aaca.annotate.annotators.base import Annotator
from aaca.data.benchmark import BenchmarkSource
from aaca.debugset.build import Fill
from aaca.debugset.filters import FilterChain
from aaca.debugset.generators.base import Generator
from aaca.debugset.prompts.base import PromptWriter
from aaca.debugset.selectors.base import Selector
from aaca.discover.attribution.base import Attribution
from aaca.discover.concepts.base import ConceptSource
from aaca.discover.evidence import EvidenceRules
from aaca.discover.neurons.inspect import InspectSpec
from aaca.discover.rivals.base import Rival
from aaca.evaluate.dashboard import Dashboard
from aaca.models.classifier import ClassifierSource
from aaca.models.given import check_given
from aaca.models.teacher import TeacherSource
from aaca.models.text_to_image import Diffusion
from aaca.models.zero_shot import ClipModel
from aaca.repair.base import Repair
from aaca.repair.pairs import PairSource
from aaca.runtime.errors import ConfigError
from aaca.training.fit import SelectionRule
from aaca.training.fit_sae import SaeRecipe
from aaca.training.inversion import InversionRecipe
from aaca.training.probes import ProbeSpec
from aaca.training.recipe import Recipe
from aaca.training.resume import ResumeSpec
from aaca.training.trainer import TrainerSpec

from .naming_config import NamingConfig
from .neuron_names_config import NeuronNamesConfig
from .paths_config import PathsConfig

NEEDED = {
    "attribution": "choose one: attribution=auto",
    "concepts": "choose one: concepts=gt",
    "annotator": "choose one: annotator=oracle",
}
HINTS_OF_RIVALS = {
    "clip": "choose one: clip=tiny",
    "concepts": NEEDED["concepts"],
    "sae": "choose one: sae=relu",
}
HINTS = {
    "generator": "choose one: generator=text_to_image",
    "prompts": "choose one: prompts=class_name",
    "diffusion": "choose one: diffusion=tiny",
    "clip": "choose one: clip=tiny, or switch the filters that use it off",
    "inversion": "choose one: inversion=tiny",
    "filters": "choose one: filters=default",
}


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """The preset's name, as the paper has it."""

    name: Annotated[str, Field(pattern=r"^[\w.-]{1,60}$")]


@dataclass(frozen=True, kw_only=True)
class DebugSetConfig:
    """How many images a class, from where, and what to do where there are fewer.

    `quotas`: of generated candidates, each recipe or each prompt keeps the share that was asked for.
    """

    candidates: Literal["pool", "train", "none", "generated"]
    per_class: Annotated[int, Field(ge=1)]
    oversample: Annotated[float, Field(ge=1)]
    fill: Fill
    quotas: Literal["none", "recipe", "prompt"] = "none"

    @property
    def asked(self) -> int:
        """Images a class that a generator is asked for."""
        return math.ceil(round(self.per_class * self.oversample, 6))


@dataclass(frozen=True)
class Generation:
    """The groups that make images, all there."""

    generator: Generator
    prompts: PromptWriter
    diffusion: Diffusion
    clip: ClipModel
    inversion: InversionRecipe
    filters: FilterChain


@dataclass(frozen=True, kw_only=True)
class TasksConfig:
    """How many images of a class annotators are shown, at most: failures, right ones, and of each suspected concept."""

    failures: Annotated[int, Field(ge=1)]
    controls: Annotated[int, Field(ge=0)]
    suspects: Annotated[int, Field(ge=0)] = 4


@dataclass(frozen=True)
class Discovery:
    """The groups that find out why, all there."""

    attribution: Attribution
    concepts: ConceptSource
    annotator: Annotator
    evidence: EvidenceRules
    votes: VoteRules
    tasks: TasksConfig


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
    dry_run: bool
    weights: str | None = None
    generator: Generator | None = None
    prompts: PromptWriter | None = None
    diffusion: Diffusion | None = None
    clip: ClipModel | None = None
    inversion: InversionRecipe | None = None
    filters: FilterChain | None = None
    attribution: Attribution | None = None
    concepts: ConceptSource | None = None
    annotator: Annotator | None = None
    discovery: Rival | None = None
    concept_images: PairSource | None = None
    teacher: TeacherSource | None = None
    sae: SaeRecipe | None = None
    probe: ProbeSpec | None = None
    naming: NamingConfig = field(default_factory=NamingConfig)
    inspect: InspectSpec = field(default_factory=InspectSpec)
    neuron_names: NeuronNamesConfig = field(default_factory=NeuronNamesConfig)
    evidence: EvidenceRules
    votes: VoteRules
    tasks: TasksConfig

    def __post_init__(self) -> None:
        """Raise `ConfigError` where the file of a given classifier is missing."""
        check_given(self.weights)

    @property
    def discovers(self) -> bool:
        """Whether concept sets are needed first: for prompts, for concept images, for masks of what is blamed."""
        prompts = self.prompts is not None and self.prompts.needs_concepts
        pairs = self.repair.needs_pairs and self.concept_images is not None and self.concept_images.needs_sets
        return prompts or pairs or self.repair.needs_masks or self.repair.needs_sets

    def rival(self) -> Rival:
        """The discovery that asks nobody. Raises `ConfigError` naming what it misses."""
        assert self.discovery is not None
        needs = self.discovery
        for name, is_needed in (
            ("clip", needs.needs_clip),
            ("concepts", needs.needs_concepts),
            ("sae", needs.needs_codes),
        ):
            if is_needed and getattr(self, name) is None:
                raise ConfigError(f"{name}: missing, and this discovery needs it; {HINTS_OF_RIVALS[name]}")
        if self.discovery.needs_neurons:
            if self.neuron_names.by not in ("masks", "clip"):
                raise ConfigError(
                    f"neuron_names.by: {self.neuron_names.by}; expected masks (concepts=gt) or clip (clip=tiny), by "
                    "which this discovery names neurons"
                )
            self.neuron_names.check(self.concepts, self.clip, self.dataset.truth())
        if self.discovery.needs_concepts and self.concepts.needs_clip and self.clip is None:  # type: ignore[union-attr]
            raise ConfigError(f"clip: missing, and concepts needs it; {HINTS_OF_RIVALS['clip']}")
        return self.discovery

    def asking(self) -> Discovery:
        """The groups that find out why by asking people. Raises `ConfigError` naming the first that is missing."""
        for name, hint in NEEDED.items():
            if getattr(self, name) is None:
                raise ConfigError(f"{name}: missing, and finding out why needs it; {hint}")
        looks = [name for name in ("concepts", "annotator") if getattr(self, name).needs_clip]
        if looks and self.clip is None:
            raise ConfigError(f"clip: missing, and {looks[0]} needs it; choose one: clip=tiny")
        return Discovery(**{name: getattr(self, name) for name in (*NEEDED, "evidence", "votes", "tasks")})

    def generation(self) -> Generation:
        """The groups that make images. Raises `ConfigError` naming the first that is missing or of no use."""
        if self.debugset.candidates != "generated":
            raise ConfigError(
                f"generator: given, but debugset.candidates is {self.debugset.candidates}; expected generated, as in "
                "method=g_llm"
            )
        needed = {"generator": True, "prompts": True, "filters": True}
        if self.generator is not None and self.filters is not None:
            needed |= {"diffusion": self.generator.needs_diffusion, "inversion": self.generator.needs_tokens}
            needed["clip"] = self.filters.needs_clip
        for name, is_needed in needed.items():
            if is_needed and getattr(self, name) is None:
                raise ConfigError(f"{name}: missing, and debugset.candidates=generated needs it; {HINTS[name]}")
        return Generation(**{name: getattr(self, name) for name in HINTS})


def without_size_presets(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a job that has neither debug sets nor recipes, of which the options of `size` also speak."""
    return {name: value for name, value in config.items() if name not in ("debugset", "recipe")}
