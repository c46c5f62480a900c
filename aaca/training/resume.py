"""Interrupted work goes on: when a fit saves its progress, and from where it starts again (the `resume` group)."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytorch_lightning as pl
from pydantic import Field
from pytorch_lightning.callbacks import Callback

from aaca.runtime.ranks import current
from aaca.runtime.stages import note_spent, spent
from aaca.training.checkpoints import SUFFIX, newest

log = logging.getLogger(__name__)
SOON = 10  # updates until the next look at the clock, at most, while the pace is little known


@dataclass(frozen=True, kw_only=True)
class ResumeSpec:
    """What a started run does with what an interrupted one left.

    `every`: seconds between two checkpoints of a fit (0: at every update). `force`: go on although the run's folder
    holds an unfinished run of another config, or checkpoints of other library versions.
    """

    mode: Literal["auto", "never"] = "auto"
    force: bool = False
    every: Annotated[float, Field(ge=0)] = 300.0


def left_by(folder: Path, fit: Mapping[str, Any], force: bool) -> Path | None:
    """The checkpoint of this fit to go on from, where an interrupted one left any: rank 0 looks, all ranks agree."""
    ranks, name = current(), None
    if ranks.rank == 0:
        file = newest(folder, fit, force)
        name = None if file is None else file.name
    name = ranks.share(name)
    return None if name is None else folder / str(name)


class SaveProgress(Callback):
    """Saves the whole state of a fit into `folder` about every `every` seconds of a monotonic clock, after an update.

    All ranks save at the same update: rank 0 looks at its clock at an update that all of them know beforehand.
    """

    def __init__(self, folder: Path, every: float, label: str) -> None:
        self.folder, self.every, self.label = folder, every, label
        self.look = 1
        self.updates_before = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to count."""
        self.updates_before = trainer.global_step
        self.look += trainer.global_step
        self.began = self.saved = time.monotonic()
        self.earlier = spent(self.folder.parent)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save in the middle of an epoch. Gradients that are still adding up are not saved: wait for their update."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0 and not trainer.is_last_batch:
            self._save_if_due(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save between two epochs, after validation."""
        if trainer.current_epoch + 1 < (trainer.max_epochs or 0):
            self._save_if_due(trainer)

    def _save_if_due(self, trainer: pl.Trainer) -> None:
        if trainer.global_step < self.look:
            return
        due, self.look = trainer.strategy.broadcast(self._plan(trainer.global_step))
        if due:
            trainer.save_checkpoint(self.folder / f"{trainer.global_step:012d}{SUFFIX}", weights_only=False)
            if trainer.is_global_zero:
                note_spent(self.folder.parent, self.earlier + time.monotonic() - self.began)
            log.debug("  %s  saved at update %d", self.label, trainer.global_step)
            self.saved = time.monotonic()

    def _plan(self, update: int) -> tuple[bool, int]:
        # whether to save now, and the next update at which to look at the clock
        now = time.monotonic()
        waited = now - self.saved
        due = waited >= self.every
        pace = max((now - self.began) / max(update - self.updates_before, 1), 1e-6)
        left = self.every - (0.0 if due else waited)
        return due, update + max(1, min(int(left / pace), SOON + update - self.updates_before))
