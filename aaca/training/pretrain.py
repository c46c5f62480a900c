"""`pretrain`: a module, a table and a number of updates in; trained weights out. Interrupted, it goes on."""

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytorch_lightning as pl
import torch
from pydantic import Field
from pytorch_lightning.loggers import Logger
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from aaca.data.module import ImageDataModule
from aaca.data.table import ImageTable
from aaca.data.transforms import BatchAugment
from aaca.runtime.errors import AacaError
from aaca.runtime.files import digest
from aaca.runtime.ranks import current
from aaca.runtime.stages import PROGRESS, spent
from aaca.training.checkpoints import VerifiedCheckpoints
from aaca.training.curves import Curves
from aaca.training.optim import learning_rate
from aaca.training.resume import ResumeSpec, SaveProgress, left_by
from aaca.training.trainer import TrainerSpec

log = logging.getLogger(__name__)
CURVE = 100  # updates a row of the training curve, at most
HALF = [0.5, 0.5, 0.5]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how fast: AdamW with a warm-up and a cosine down to zero. `batch_size` is per device."""

    updates: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)]
    lr: Annotated[float, Field(gt=0)]
    warmup: Annotated[int, Field(ge=0)] = 100  # updates
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    beta2: Annotated[float, Field(gt=0, lt=1)] = 0.999
    clip_grad: Annotated[float, Field(gt=0)] | None = 1.0

    def factor(self, update: int) -> float:
        """Share of `lr` at this update."""
        return learning_rate(update + 1.0, self.updates + 1.0, 1.0, 0.0, float(self.warmup))


@dataclass(frozen=True, kw_only=True)
class Constant(Schedule):
    """The same rate all along, after the warm-up."""

    def factor(self, update: int) -> float:
        """Share of `lr` at this update."""
        return min(1.0, (update + 1) / (self.warmup + 1))


@dataclass(frozen=True)
class PretrainJob:
    """What a run needs besides its module. `augment` must not flip where captions say left and right."""

    table: ImageTable
    schedule: Schedule
    trainer: TrainerSpec
    seed: int
    label: str
    image_size: int
    settings: dict[str, Any]  # of the module, for the fingerprint
    augment: BatchAugment = field(default_factory=lambda: BatchAugment(scale_min=1.0, hflip=0.0, brightness=0.0))
    values: np.ndarray | None = None  # what is shown in place of the table's images
    loggers: Sequence[Logger] = ()
    resume: ResumeSpec = field(default_factory=ResumeSpec)

    def fingerprint(self) -> dict[str, Any]:
        """What a checkpoint must share with the run that goes on from it."""
        return {
            "images": digest(self.table.ids.tolist())[:16],
            "settings": digest([self.settings, vars(self.schedule)])[:16],
            "seed": self.seed,
            "world": self.trainer.world,
            "precision": self.trainer.precision,
            "device": self.trainer.device_kind,
        }


class Pretraining(pl.LightningModule, ABC):
    """A loss over `(images in [-1, 1], labels, rows)`, its optimiser, and the curve of what it logs.

    A subclass gives `losses(batch)`: named scalars, of which `loss` is minimised.
    """

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.schedule = schedule
        self.sums: dict[str, float] = {}

    @abstractmethod
    def losses(self, batch: Any) -> dict[str, Tensor]:
        """Named scalars of a batch; `loss` is the one to minimise."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """One loss. Raises `AacaError` when it is not finite."""
        losses = self.losses(batch)
        if not losses["loss"].detach().isfinite():
            raise AacaError(f"update {self.global_step}: the loss is {float(losses['loss'])}; lower schedule.lr")
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value.detach())
        batches = int(self.trainer.num_training_batches)
        if batch_idx + 1 == batches:  # a row of the curve: means over its updates
            for name, total in self.sums.items():
                self.log(name, total / batches, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(batch[0]))
        return losses["loss"]

    def on_train_epoch_start(self) -> None:
        """A new row of the curve."""
        self.sums = {}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the sums of the current row."""
        checkpoint["sums"] = {name: sum(values) / len(values) for name, values in self._all_sums().items()}

    def _all_sums(self) -> dict[str, list[float]]:
        parts = current().exchange(self.sums)
        return {name: [part[name] for part in parts] for name in self.sums}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with them."""
        self.sums = dict(checkpoint["sums"])

    def optimizer_step(self, *arguments: Any, **more: Any) -> None:
        """One update and what follows from it, before any callback saves the weights."""
        super().optimizer_step(*arguments, **more)
        with torch.no_grad():
            self.updated(self.global_step + 1)

    def updated(self, count: int) -> None:
        """What a subclass does after update number `count`."""

    def trained(self) -> list[dict[str, Any]]:
        """Parameter groups for the optimiser; matrices decay, all else does not."""
        own = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return [
            {"params": [parameter for parameter in own if parameter.ndim > 1]},
            {"params": [parameter for parameter in own if parameter.ndim <= 1], "weight_decay": 0.0},
        ]

    def configure_optimizers(self) -> Any:
        """AdamW and the schedule."""
        schedule = self.schedule
        optimizer = AdamW(
            self.trained(), lr=schedule.lr, betas=(0.9, schedule.beta2), weight_decay=schedule.weight_decay
        )
        return [optimizer], [{"scheduler": LambdaLR(optimizer, schedule.factor), "interval": "step"}]


def pretrain(module: Pretraining, job: PretrainJob, folder: Path, finish: Callable[[], None] = lambda: None) -> float:
    """Train `module` in place; the seconds that all attempts took. All ranks call it.

    It goes on from what an interrupted call left in `folder` (checkpoints below `PROGRESS`); on the CPU the result is
    the same to the bit. `finish` runs on every rank after the last update.
    """
    began, earlier = time.monotonic(), spent(folder)
    world = job.trainer.world
    updates = job.schedule.updates
    rows = max(
        row for row in range(1, CURVE + 1) if updates % row == 0
    )  # whole rows: an epoch is what Lightning counts
    data = ImageDataModule(
        job.image_size,
        HALF,
        HALF,
        job.schedule.batch_size,
        train=job.table,
        augment=job.augment,
        values=job.values,
        epoch_size=rows * job.schedule.batch_size * world,
        seed=job.seed,
        workers=job.trainer.loader_workers(job.table),
    )
    loop = job.trainer.make(
        job.label,
        max_epochs=updates // rows,
        callbacks=[
            Curves(folder / "log" / "metrics.csv"),
            SaveProgress(folder / PROGRESS, job.resume.every, job.label),
        ],
        loggers=job.loggers,
        plugins=[VerifiedCheckpoints(job.fingerprint())],
        gradient_clip_val=job.schedule.clip_grad,
        limit_val_batches=0,
    )
    left = left_by(folder / PROGRESS, job.fingerprint(), job.resume.force)
    if left is not None:
        log.info("  %s  goes on after update %d of %d", job.label, int(left.stem), updates)
    loop.fit(module, datamodule=data, ckpt_path=left, weights_only=True)
    finish()
    return earlier + time.monotonic() - began
