"""The schema of the job `pretrain`: what `conf/pretrain.yaml` composes to, as types."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from aaca.training.pretrain import Schedule
from aaca.training.resume import ResumeSpec
from aaca.training.trainer import TrainerSpec

from .paths_config import PathsConfig

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """The image-text model."""

    image_size: Count
    width: Count
    layers: Count
    embed_dim: Count
    context: Annotated[int, Field(ge=8)]
    schedule: Schedule


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """The image autoencoder."""

    channels: list[int]
    latent_channels: Count
    edges: Share
    kl: Share
    schedule: Schedule


@dataclass(frozen=True, kw_only=True)
class ColoursConfig:
    """The autoencoder, trained on with a loss that sees hues."""

    edges: Share
    kl: Share
    weight: Share
    schedule: Schedule


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """The autoencoder's decoder, trained on while the encoder stays."""

    edges: Share
    schedule: Schedule


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig:
    """The text-conditional denoiser of latents."""

    channels: list[int]
    heads: Count
    drop_caption: Annotated[float, Field(ge=0, lt=1)]
    ema: Annotated[float, Field(ge=0, lt=1)]
    snr: Annotated[float, Field(gt=0)]
    text_lr: Share
    schedule: Schedule


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """The masked autoencoder."""

    network: dict[str, int]
    mask: Annotated[float, Field(gt=0, lt=1)]
    decoder_width: Count
    decoder_depth: Count
    schedule: Schedule


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """The referee."""

    schedule: Schedule


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """One run of the job `pretrain`."""

    network: Literal["clip", "autoencoder", "colours", "decoder", "diffusion", "backbone", "judge"]
    seed: Annotated[int, Field(ge=0)]
    images: Count
    workers: Count
    threads: Count | None
    into: str | None
    size: Literal["smoke", "demo", "full"]
    clip: ClipConfig
    autoencoder: AutoencoderConfig
    colours: ColoursConfig
    decoder: DecoderConfig
    diffusion: DiffusionConfig
    backbone: BackboneConfig
    judge: JudgeConfig
    trainer: TrainerSpec
    resume: ResumeSpec
    paths: PathsConfig
