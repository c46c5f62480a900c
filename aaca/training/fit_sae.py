"""`fit_saes`: autoencoders and embeddings in, trained autoencoders out. Interrupted, it goes on."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger

from aaca.data.embedding_batches import EmbeddingBatches, Resident, Scale, Shuffle
from aaca.models.sae.base import SaeSpec, SparseAutoencoder
from aaca.runtime.config import identity
from aaca.runtime.files import digest
from aaca.runtime.stages import PROGRESS
from aaca.training.checkpoints import VerifiedCheckpoints
from aaca.training.curves import Curves
from aaca.training.resume import ResumeSpec, SaveProgress, left_by
from aaca.training.sae_data import EmbeddingDataModule
from aaca.training.sae_resample import ResampleDead, Resampling, Sample
from aaca.training.sparse_autoencoder import SaeTraining, SparseAutoencoderModule
from aaca.training.trainer import TrainerSpec

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SaeRecipe:
    """The `sae` config group: which autoencoder, and how it is trained.

    `resampling`: null: dead latents stay dead (but for AuxK). `center`, `scale`, `shuffle`, `block_rows`, `resident`:
    of the batches (`EmbeddingBatches`). `repeats`: autoencoders of seeds seed, seed + 1, … in one pass over the data;
    the first is the one that is used, the others say how stable it is. `holdout`: share of vectors for validation.
    """

    model: SaeSpec
    training: SaeTraining
    resampling: Resampling | None = None
    center: bool = False
    scale: Scale = "none"
    shuffle: Shuffle = "global"
    block_rows: Annotated[int, Field(ge=1)] = 65_536
    resident: Resident = "auto"
    repeats: Annotated[int, Field(ge=1)] = 1
    holdout: Annotated[float, Field(ge=0, lt=1)] = 0.05

    def fingerprint(self) -> dict[str, Any]:
        """What influences the trained weights: all but where the vectors are kept."""
        parts = {name: getattr(self, name) for name in ("center", "scale", "shuffle", "repeats")}
        parts |= {"block_rows": self.block_rows} if self.shuffle == "block" else {}
        return {
            "model": identity(self.model),
            "training": vars(self.training),
            "resampling": vars(self.resampling) if self.resampling else None,
            "holdout": self.holdout,
            **parts,
        }


@dataclass(frozen=True)
class SaeJob:
    """What a fit needs besides its autoencoders. `draw(n, seed)`: at most n training vectors for resampling.

    `settings`: what the autoencoders and the vectors are, for the fingerprint.
    """

    train: EmbeddingBatches
    val: EmbeddingBatches | None
    training: SaeTraining
    trainer: TrainerSpec
    seed: int
    settings: dict[str, Any]
    draw: Callable[[int, int], Sample]
    resampling: Resampling | None = None
    label: str = "sae"
    loggers: Sequence[Logger] = ()
    resume: ResumeSpec = field(default_factory=ResumeSpec)
    callbacks: Sequence[Callback] = ()

    def fingerprint(self) -> dict[str, Any]:
        """What a checkpoint must share with the fit that goes on from it."""
        plan = vars(self.resampling) if self.resampling else None
        return {
            "settings": digest([self.settings, vars(self.training), plan])[:16],
            "seed": self.seed,
            "world": self.trainer.world,
            "precision": self.trainer.precision,
            "device": self.trainer.device_kind,
        }


def fit_saes(saes: Sequence[SparseAutoencoder], job: SaeJob, folder: Path) -> list[dict[str, int]]:
    """Train `saes` in place; the rounds of resampling. All ranks call it.

    It goes on from what an interrupted call left in `folder` (checkpoints below `PROGRESS`); on the CPU the result is
    the same to the bit.
    """
    plan = job.training
    resample = ResampleDead(job.resampling, job.draw, job.seed) if job.resampling else None
    module = SparseAutoencoderModule(saes, plan, plan.epochs * len(job.train))
    loop = job.trainer.make(
        job.label,
        max_epochs=plan.epochs,
        callbacks=[
            *([resample] if resample else []),  # before what saves the state it changes
            *job.callbacks,
            Curves(folder / "log" / "metrics.csv"),
            SaveProgress(folder / PROGRESS, job.resume.every, job.label),
        ],
        loggers=job.loggers,
        plugins=[VerifiedCheckpoints(job.fingerprint())],
        gradient_clip_val=plan.clip_grad,
        limit_val_batches=None if job.val is not None else 0,
        check_val_every_n_epoch=max(1, plan.epochs // 20),
    )
    left = left_by(folder / PROGRESS, job.fingerprint(), job.resume.force)
    if left is not None:
        log.info("  %s  goes on after update %d of %d", job.label, int(left.stem), module.updates)
    loop.fit(module, datamodule=EmbeddingDataModule(job.train, job.val), ckpt_path=left, weights_only=True)
    return resample.rounds if resample else []
