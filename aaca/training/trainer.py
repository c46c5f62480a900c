"""`TrainerSpec`: where and how loops run (the `trainer` config group). Everything heavy is a loop of its Trainer."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, RichProgressBar
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins.environments import ClusterEnvironment

from aaca.data.table import ImageTable
from aaca.runtime.errors import AacaError, ConfigError
from aaca.runtime.log import console
from aaca.runtime.ranks import Ranks, current
from aaca.training.progress import ProgressLines

Precision = Literal["32-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true"]


class JoinedRanks(ClusterEnvironment):
    """Tells Lightning which rank this process is. The process group is there already; Lightning starts nothing."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks

    @property
    def creates_processes_externally(self) -> bool:
        """Always: the ranks of a run are started once, before the first loop."""
        return True

    @property
    def main_address(self) -> str:
        """Unused: the group exists."""
        return "127.0.0.1"

    @property
    def main_port(self) -> int:
        """Unused: the group exists."""
        return 0

    @staticmethod
    def detect() -> bool:
        """Never chosen by Lightning itself."""
        return False

    def world_size(self) -> int:
        """Ranks in all."""
        return self.ranks.world

    def set_world_size(self, size: int) -> None:
        """The group decides."""

    def global_rank(self) -> int:
        """This process."""
        return self.ranks.rank

    def set_global_rank(self, rank: int) -> None:
        """The group decides."""

    def local_rank(self) -> int:
        """This process on its machine."""
        return self.ranks.local_rank

    def node_rank(self) -> int:
        """This machine."""
        return self.ranks.rank // self.ranks.local_world


@dataclass(frozen=True, kw_only=True)
class TrainerSpec:
    """Device, ranks and precision of every Trainer of a run.

    `devices` on each of `nodes` machines, one rank each (DDP). On one machine aaca starts the ranks itself; on several,
    torchrun or SLURM does. `isolate` gives a one-device run a process of its own, so that a crash (or the system's
    out-of-memory killer) ends that trial of a sweep alone.
    """

    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    devices: int = 1
    nodes: int = 1
    isolate: bool = False
    precision: Precision = "32-true"
    workers: int | None = None  # dataloader workers a device; None = 0 for array files, else one a free core, at most 8

    def __post_init__(self) -> None:
        """Raise `ConfigError` on a device count that this machine cannot serve."""
        for name, count in (("devices", self.devices), ("nodes", self.nodes)):
            if count < 1:
                raise ConfigError(f"trainer.{name}: expected at least 1, got {count}")
        if self.accelerator == "gpu" and not torch.cuda.is_available():
            raise ConfigError("trainer.accelerator: 'gpu' was asked for, but torch sees none; nearest valid: cpu, auto")
        if self.accelerator == "gpu" and self.devices > torch.cuda.device_count():
            raise ConfigError(f"trainer.devices: {self.devices} asked for, {torch.cuda.device_count()} GPUs are here")

    @property
    def world(self) -> int:
        """Ranks in all."""
        return self.devices * self.nodes

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
        plugins: Sequence[Any] = (),
        **arguments: Any,
    ) -> pl.Trainer:
        """A Trainer for one loop; `label` names it on the progress display. Nothing is checkpointed behind our back.

        Raises `AacaError` when this process is not one of as many ranks as the spec asks for.
        """
        ranks = current()
        if (ranks.world, ranks.local_world) != (self.world, self.devices):
            raise AacaError(
                f"trainer.devices: {self.devices} on {self.nodes} node(s) asked for, but {ranks.world} rank(s) run, "
                f"{ranks.local_world} of them on this one"
            )
        bar = RichProgressBar(refresh_rate=10, leave=False) if console.is_terminal else ProgressLines(label)
        return pl.Trainer(
            accelerator=self.accelerator,
            devices=self.devices,
            num_nodes=self.nodes,
            strategy="ddp" if self.world > 1 else "auto",
            plugins=[JoinedRanks(ranks), *plugins],
            precision=self.precision,
            max_epochs=max_epochs,
            callbacks=[*callbacks, bar],
            logger=list(loggers) if ranks.rank == 0 else [],
            enable_checkpointing=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            log_every_n_steps=1_000_000,  # epochs are logged; a line an update would only cost time
            benchmark=torch.cuda.is_available(),
            default_root_dir=os.devnull,  # nothing is written there, and no checkpoint is looked for
            **arguments,
        )
