"""The schema of the jobs around sparse autoencoders: what `conf/sae_base.yaml` and theirs compose to, as types."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from aaca.concepts.intervene import Intervention
from aaca.data.benchmark import BenchmarkSource
from aaca.data.synthetic_sparse import SyntheticSparse
from aaca.data.webdataset_tars import Tars
from aaca.evaluate.dashboard import Dashboard
from aaca.models.classifier import ClassifierSource
from aaca.models.zero_shot import ClipModel
from aaca.runtime.errors import ConfigError
from aaca.training.fit_sae import SaeRecipe
from aaca.training.probes import ProbeSpec
from aaca.training.resume import ResumeSpec
from aaca.training.trainer import TrainerSpec
from aaca.world.shipped import MODELS

from .naming_config import NamingConfig
from .paths_config import PathsConfig
from .trained_config import TrainedConfig

Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True)
class FeaturesConfig:
    """Which vectors, and how they are kept.

    `of`: the image-text model's image tower (its output as it is), or the embeddings of `model=`. `splits`: whose
    images the autoencoder learns from.
    """

    of: Literal["clip", "model"] = "clip"
    splits: Annotated[list[str], Field(min_length=1)]
    dtype: Literal["float16", "float32"] = "float16"
    batch_size: Count = 128
    shard_rows: Count = 100_000

    def __post_init__(self) -> None:
        """Raise `ConfigError` on splits that are there twice or are not to be learnt from."""
        for split in self.splits:
            if split.startswith("test"):
                raise ConfigError(f"features.splits: {split!r}; no autoencoder learns from test; expected train, pool")
            if self.splits.count(split) > 1:
                raise ConfigError(f"features.splits: {split!r} is there twice; expected each split once")


@dataclass(frozen=True, kw_only=True)
class ExplainConfig:
    """How much is shown: concepts a bar chart, images explained, k-means clusters."""

    top: Count = 8
    images: Count = 12
    clusters: Annotated[int, Field(ge=0)] = 12


@dataclass(frozen=True, kw_only=True)
class InterveneConfig:
    """What is switched off, and how.

    One of: `names` (patterns, as "sand*"), `latents` (numbers), `text` (words whose direction the concept has, with
    `least_cosine`, against the words of `against`), `sets` (a concept_sets.yaml: what confounds). `kind`: mean (as if
    always as strong as on average), zero, scale or set (with `value`) at the activation, mask at the weight. `refit`:
    also a probe that never saw them. `controls`: draws of as many other live concepts.
    """

    names: list[str] | None = None
    latents: list[int] | None = None
    text: list[str] | None = None
    against: list[str] | None = None
    least_cosine: float = 0.3
    sets: str | None = None
    kind: Literal["mean", "zero", "scale", "set", "mask"] = "mean"
    value: float | None = None
    refit: bool = True
    controls: Count = 5

    def chosen(self) -> str:
        """The one way that is given. Raises `ConfigError` where none or several are."""
        Intervention(self.kind, (), self.value)  # says what is wrong with them
        if self.sets is not None and not Path(self.sets).is_file():
            raise ConfigError(f"intervene.sets: no file {self.sets}; expected a concept_sets.yaml")
        given = [name for name in ("names", "latents", "text", "sets") if getattr(self, name)]
        if len(given) != 1:
            raise ConfigError(
                f"intervene: {', '.join(given) or 'nothing'} given; expected one of names, latents, text, sets, as in "
                "intervene.names=[sand,grass]"
            )
        if self.against and not self.text:
            raise ConfigError("intervene.against: given, but intervene.text is not; expected both")
        return given[0]


@dataclass(frozen=True, kw_only=True)
class SaeConfig:
    """One run of `features`, `sae`, `name`, `bottleneck`, `explain` or `intervene`."""

    dataset: object
    trainer: TrainerSpec
    resume: ResumeSpec
    paths: PathsConfig
    seed: Annotated[int, Field(ge=0)]
    size: Literal["smoke", "demo", "full"]
    features: FeaturesConfig
    sae: SaeRecipe
    naming: NamingConfig
    probe: ProbeSpec
    explain: ExplainConfig
    intervene: InterveneConfig
    clip: ClipModel | None = None
    logger: Dashboard
    trained: TrainedConfig
    export: Literal["none", "dncbm", "saelens", "dictionary_learning"]
    model: ClassifierSource | None = None

    def __post_init__(self) -> None:
        """Raise `ConfigError` on parts that do not fit together."""
        if not isinstance(self.dataset, BenchmarkSource | SyntheticSparse | Tars):
            raise ConfigError(f"dataset: {type(self.dataset).__name__} has no images; expected one of conf/dataset")
        if isinstance(self.dataset, SyntheticSparse):
            return
        if self.features.of == "clip" and self.clip is None:
            raise ConfigError("clip: missing, and features.of=clip needs it; choose one: clip=tiny")
        if (self.features.of == "model") != (self.model is not None):
            raise ConfigError("features.of: model and model= go together; expected both or neither")
        if self.model is not None and not any(getattr(self.model, name, None) for name in ("pretrained", "checkpoint")):
            raise ConfigError(
                "model: its weights are random, and so would the vectors be; expected model.pretrained=true or "
                "model.checkpoint, as model=small_vit_mae has it"
            )

    def benchmark(self) -> BenchmarkSource:
        """The dataset, where labels are needed. Raises `ConfigError` on one without."""
        if not isinstance(self.dataset, BenchmarkSource):
            raise ConfigError(
                f"dataset: {type(self.dataset).__name__} has no labelled splits, and this job needs them; expected a "
                "benchmark, as dataset=stampscenes"
            )
        return self.dataset

    def text(self) -> ClipModel:
        """The image-text model that names. Raises `ConfigError` where vectors are of something else."""
        if self.clip is None or self.features.of != "clip" or isinstance(self.dataset, SyntheticSparse):
            raise ConfigError(
                "features.of: only latents of an image-text model's vectors can be named by words; expected clip, and "
                "a dataset of images"
            )
        if self.naming.vocabulary is None and not Path(self.clip.model).is_relative_to(MODELS):
            raise ConfigError(
                "naming.vocabulary: missing; the words that ship are of the embedded world; expected a text file, a "
                "word a line (DN-CBM: the 20,000 of CLIP-Dissect, with naming.templates=[{}])"
            )
        return self.clip
