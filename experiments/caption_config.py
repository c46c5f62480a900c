"""The schema of the job `caption`: what `conf/caption.yaml` composes to, as types."""

from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from aaca.data.scenegraph.placing import OnMissingBox
from aaca.data.scenegraph.store import FeatureType
from aaca.evaluate.dashboard import Dashboard
from aaca.models.captioner.spec import CaptionerSpec
from aaca.models.classifier import ClassifierSource
from aaca.models.graph_source import GraphSource
from aaca.runtime.errors import ConfigError
from aaca.training.caption_recipe import CaptionRecipe
from aaca.training.resume import ResumeSpec
from aaca.training.trainer import TrainerSpec

from .paths_config import PathsConfig

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]

LEAST_NATS, LEAST_ATTENTION = 1.0, 0.2
"""`regraph.threshold` where it is null: all methods but attention score in nats (of log p, or what approximates it)."""
READ_BY = {
    "captions": ("score",),
    "reference_index": ("score", "filter", "regraph"),
    "score.metrics": ("score",),
    "score.clip_weights": ("score",),
    "rationale.test": ("score",),
    "filter.records": ("filter",),
    "image": ("image",),
    "asg": ("image",),
    "region": ("image",),
}
"""What has no value unless you give one, and the actions that read it."""


@dataclass(frozen=True, kw_only=True)
class CaptionerConfig:
    """Which parts a captioner has and how large they are: `CaptionerSpec` but for what the data says."""

    role: bool
    edges: bool
    flow: bool
    memory: bool
    hidden: Count
    attention: Count
    layers: Count
    embed_first: bool
    dropout: float
    relation_init: Literal["per_relation", "upstream"]

    def spec(self, words: int, features: int, global_features: int) -> CaptionerSpec:
        """With the sizes of the data."""
        return CaptionerSpec(words=words, features=features, global_features=global_features, **vars(self))


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """What `score` makes beside the figures: see `conf/caption.yaml`."""

    examples: Annotated[int, Field(ge=0)]
    diversity: Annotated[int, Field(ge=0)]
    metrics: tuple[Literal["meteor", "spice", "clip_score"], ...]
    clip_weights: str | None

    def __post_init__(self) -> None:
        """Raise `ConfigError` for one caption an image, and for a CLIP score without its model."""
        if self.diversity == 1:
            raise ConfigError("score.diversity: 1; expected 2 or more captions an image, or 0 for none")
        if "clip_score" in self.metrics and self.clip_weights is None:
            raise ConfigError(
                "score.clip_weights: missing; expected the folder of a CLIP model, which clip_score needs"
            )
        if self.clip_weights is not None and "clip_score" not in self.metrics:
            raise ConfigError("score.clip_weights: given, but not asked for; expected score.metrics=[clip_score]")


@dataclass(frozen=True, kw_only=True)
class RationaleConfig:
    """Nodes that are no rationale, put into graphs: see `conf/caption.yaml`."""

    foreign: Annotated[int, Field(ge=0)]
    test: bool


@dataclass(frozen=True, kw_only=True)
class RegraphConfig:
    """How graphs are made wrong, diagnosed and mended: see `conf/caption.yaml`."""

    wrong: Share
    by: Literal["attention", "gradient_x_input", "integrated_gradients", "occlusion"]
    threshold: float | None
    samples: Count
    steps: Annotated[int, Field(ge=2)]

    def __post_init__(self) -> None:
        """Raise `ConfigError` for a threshold that no node's attention is above."""
        if self.by == "attention" and self.least >= 1:
            raise ConfigError(
                f"regraph.threshold: {self.least} with regraph.by=attention, a share; expected less than 1, or null "
                f"for {LEAST_ATTENTION}"
            )

    @property
    def least(self) -> float:
        """The threshold, by method where none is given."""
        if self.threshold is not None:
            return self.threshold
        return LEAST_ATTENTION if self.by == "attention" else LEAST_NATS


@dataclass(frozen=True, kw_only=True)
class ExplainConfig:
    """Which nodes words hang on. `samples`: of test; `pictures`: of them drawn; `steps`: of integrated gradients."""

    by: Literal["attention", "gradient_x_input", "integrated_gradients", "occlusion"]
    samples: Count
    pictures: Annotated[int, Field(ge=0)]
    steps: Annotated[int, Field(ge=2)]


@dataclass(frozen=True, kw_only=True)
class FilterConfig:
    """How wrong annotations are found, of which set: see `conf/caption.yaml`."""

    set: Literal["train", "test"]
    records: str | None
    by: Literal["records", "swap", "choice", "hold"]
    rule: Literal["released", "relation_aware"]
    pool: Literal["min", "mean"]
    threshold: Share
    keep: Share | None
    noise: Share
    rating_noise: Share


@dataclass(frozen=True, kw_only=True)
class CaptionConfig:
    """One run of the job `caption`."""

    graphs: GraphSource
    captioner: CaptionerConfig
    training: CaptionRecipe
    model: ClassifierSource
    trainer: TrainerSpec
    resume: ResumeSpec
    logger: Dashboard
    paths: PathsConfig
    seed: Annotated[int, Field(ge=0)]
    size: Literal["smoke", "demo", "full"]
    action: Literal["score", "explain", "filter", "regraph", "image"]
    on_missing_box: OnMissingBox
    feature_dtype: FeatureType
    captions: str | None
    reference_index: str | None
    score: ScoreConfig
    rationale: RationaleConfig
    regraph: RegraphConfig
    explain: ExplainConfig
    filter: FilterConfig
    image: str | None
    asg: str | None
    region: str | int | None  # ids are text, but a number on the command line is one

    def __post_init__(self) -> None:
        """Raise `ConfigError` for parts that do not fit together, and files that are not there."""
        if (self.image is None) != (self.asg is None):
            raise ConfigError("image, asg: an image and its scene graph go together; expected both or neither")
        self._check_read()
        if self.action == "image" and self.image is None:
            raise ConfigError("image: missing; expected an image file, and asg= its scene graph as region JSON")
        if self.action == "image" and not self.graphs.embeds:
            raise ConfigError(
                "graphs: the features of these graphs were made elsewhere, and your image has none; expected "
                "graphs=stampscenes, whose features are made here"
            )
        for name, file in self.files().items():
            if not Path(file).is_file():
                raise ConfigError(f"{name}: no file {file}")
        self._check_rationale()
        if self.filter.records is not None and self.filter.by != "records":
            raise ConfigError(f"filter.records: given, but filter.by is {self.filter.by}; expected filter.by=records")
        if self.action == "filter" and self.filter.noise and not self.graphs.drawn:
            raise ConfigError("filter.noise: only planted in embedded graphs; expected 0 and filter.records=")
        if (
            self.action == "filter"
            and not self.filter.noise
            and self.filter.by == "records"
            and not self.filter.records
        ):
            raise ConfigError("filter.records: missing, and nothing is planted; expected a file, or another filter.by")

    def _check_read(self) -> None:
        for key, actions in READ_BY.items():
            value = reduce(getattr, key.split("."), self)
            given = value is not None and value is not False and value != ()
            if given and self.action not in actions:
                raise ConfigError(f"{key}: given, but action is {self.action}; expected action={' or '.join(actions)}")

    def _check_rationale(self) -> None:
        align, rationale = self.training.align, self.rationale
        if align in ("leak", "attribution") and not rationale.foreign:
            raise ConfigError(
                f"training.align: {align} holds nothing against nodes that are all rationale; expected "
                "rationale.foreign=1 or more"
            )
        if rationale.test and not rationale.foreign:
            raise ConfigError("rationale.test: no foreign object is asked for; expected rationale.foreign=1 or more")
        if rationale.test and self.captions is not None:
            raise ConfigError("rationale.test: captions= are given, nothing is captioned; expected one of the two")

    def files(self) -> dict[str, str]:
        """The files of yours that the run reads, by the key that names them."""
        named = {"captions": self.captions, "filter.records": self.filter.records, "image": self.image, "asg": self.asg}
        return {key: file for key, file in named.items() if file is not None}
