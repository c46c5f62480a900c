"""The schema of the job `intrinsic`: what `conf/intrinsic.yaml` composes to, as types."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from aaca.runtime.errors import ConfigError
from aaca.training.intrinsic import ConceptLoss
from aaca.training.pretrain import Schedule
from aaca.training.resume import ResumeSpec
from aaca.training.trainer import TrainerSpec

from .paths_config import PathsConfig

Count = Annotated[int, Field(ge=1)]
NORMS = 4  # groups of a norm: they divide the channels


@dataclass(frozen=True, kw_only=True)
class ScenesConfig:
    """The procedural scenes. Of each Δ there is one set for concept vectors and another for scoring."""

    image_size: Annotated[int, Field(ge=11)]  # SSIM's window
    train: Count
    test: Count
    groups: Annotated[int, Field(ge=2)]
    members: Annotated[int, Field(ge=4)]
    seed: Annotated[int, Field(ge=0)]


@dataclass(frozen=True, kw_only=True)
class IntrinsicConfig:
    """One run of the job `intrinsic`."""

    seed: Annotated[int, Field(ge=0)]
    repeats: Count
    threads: Count | None
    size: Literal["smoke", "demo", "full"]
    scenes: ScenesConfig
    channels: Annotated[list[Count], Field(min_length=2)]
    base: Schedule
    finetune: Schedule
    concept: ConceptLoss
    trainer: TrainerSpec
    resume: ResumeSpec
    paths: PathsConfig

    def __post_init__(self) -> None:
        """Raise `ConfigError` for a network that does not fit itself or the images."""
        odd = [number for number in self.channels if number % NORMS]
        if odd:
            raise ConfigError(f"channels: {odd[0]}; expected multiples of {NORMS}, nearest: {_multiple(odd[0], NORMS)}")
        step, size = 2 ** (len(self.channels) - 1), self.scenes.image_size
        if size % step:
            raise ConfigError(
                f"scenes.image_size: {size}; {len(self.channels)} levels of channels need a multiple of {step}, "
                f"nearest: {_multiple(size, step)}"
            )


def _multiple(number: int, step: int) -> int:
    return max(step, round(number / step) * step)
