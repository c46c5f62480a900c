"""`TrainerSpec`: where and how loops run (the `trainer` config group). Everything heavy is a loop of its Trainer."""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, RichProgressBar
from pytorch_lightning.loggers import Logger

from aaca.data.table import ImageTable
from aaca.runtime.errors import ConfigError
from aaca.runtime.log import console
from aaca.training.progress import ProgressLines

Precision = Literal["32-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true"]


@dataclass(frozen=True, kw_only=True)
class TrainerSpec:
    """Device, strategy and precision of every Trainer of a run.

    Several devices use `ddp_spawn`: each loop starts its own ranks from this process and ends them, so that a sweep's
    trials and a run's stages can never disagree between ranks about what they are doing.
    """

    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    devices: int = 1
    strategy: Literal["auto", "ddp_spawn"] = "auto"
    precision: Precision = "32-true"
    workers: int | None = None  # dataloader workers a device; None = 0 for array files, else one a free core, at most 8

    def __post_init__(self) -> None:
        """Raise `ConfigError` on a device count that this machine or strategy cannot serve."""
        if self.devices < 1:
            raise ConfigError(f"trainer.devices: expected at least 1, got {self.devices}")
        if self.devices > 1 and self.strategy == "auto":
            raise ConfigError(f"trainer.strategy: {self.devices} devices need ddp_spawn, got 'auto' (try trainer=ddp)")
        if self.accelerator == "gpu" and not torch.cuda.is_available():
            raise ConfigError("trainer.accelerator: 'gpu' was asked for, but torch sees none; nearest valid: cpu, auto")
        if self.accelerator == "gpu" and self.devices > torch.cuda.device_count():
            raise ConfigError(f"trainer.devices: {self.devices} asked for, {torch.cuda.device_count()} GPUs are here")

    @property
    def device_kind(self) -> str:
        """What `accelerator` comes to on this machine: cpu, gpu or mps."""
        if self.accelerator != "auto":
            return self.accelerator
        return "gpu" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"

    def loader_workers(self, *tables: ImageTable) -> int:
        """Dataloader workers for these tables: image files are decoded beside training, array rows are not worth it."""
        if self.workers is not None:
            return self.workers
        if all((table.frame["row"] >= 0).all() for table in tables):
            return 0
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(0, min(8, (cores - 1) // self.devices))

    def make(
        self,
        label: str,
        max_epochs: int = 1,
        callbacks: Sequence[Callback] = (),
        loggers: Sequence[Logger] = (),
        **arguments: Any,
    ) -> pl.Trainer:
        """A Trainer for one loop; `label` names it on the progress display. Nothing is checkpointed behind our back."""
        bar = RichProgressBar(refresh_rate=10, leave=False) if console.is_terminal else ProgressLines(label)
        return pl.Trainer(
            accelerator=self.accelerator,
            devices=self.devices,
            strategy=self.strategy,
            precision=self.precision,
            max_epochs=max_epochs,
            callbacks=[*callbacks, bar],
            logger=list(loggers),
            enable_checkpointing=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            log_every_n_steps=1_000_000,  # epochs are logged; a line an update would only cost time
            benchmark=torch.cuda.is_available(),
            default_root_dir=tempfile.gettempdir(),  # nothing is written there
            **arguments,
        )
