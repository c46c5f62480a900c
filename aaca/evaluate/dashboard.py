"""Where a run shows itself besides the terminal: plain files always, Weights & Biases when asked for."""

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from netrc import netrc
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse

import pandas as pd
from pytorch_lightning.loggers import CSVLogger, Logger

from aaca.runtime.errors import AacaError

log = logging.getLogger(__name__)
TAG_LENGTH = 64  # wandb's limit


class Dashboard(ABC):
    """The role of the `logger` config group."""

    def begin(self, root: Path, study: str, tags: list[str]) -> None:
        """Tell the dashboard which study and overrides the following stages belong to; its files go below `root`."""
        self.root, self.study, self.tags = root, study, [tag[:TAG_LENGTH] for tag in tags]

    @abstractmethod
    def loop_loggers(self, stage: str, folder: Path) -> list[Logger]:
        """Lightning loggers for a training loop whose stage is made in `folder`."""

    @abstractmethod
    def end_loop(self) -> None:
        """Close what `loop_loggers` opened."""

    @abstractmethod
    def record(
        self, stage: str, numbers: Mapping[str, Any], tables: Mapping[str, pd.DataFrame], images: Mapping[str, Path]
    ) -> None:
        """Show one finished stage: headline numbers, tables, pictures by name."""


class Files(Dashboard):
    """Training curves as `log/metrics.csv` inside the stage; outcomes and comparisons are files anyway."""

    def loop_loggers(self, stage: str, folder: Path) -> list[Logger]:
        """A CSV logger in the stage's folder."""
        return [CSVLogger(folder, name="", version="log")]

    def end_loop(self) -> None:
        """Nothing is open."""

    def record(
        self, stage: str, numbers: Mapping[str, Any], tables: Mapping[str, pd.DataFrame], images: Mapping[str, Path]
    ) -> None:
        """Nothing to do: the stage wrote its files itself."""


class Wandb(Files):
    """Also one wandb run a stage: group = study, job type = stage, tags = overrides.

    `mode` auto logs online where wandb finds a key in its environment or netrc, else offline (`wandb sync` uploads it
    later). No key is ever an argument here, so none can reach a config or a file.
    """

    def __init__(
        self, project: str = "aaca", entity: str | None = None, mode: Literal["auto", "online", "offline"] = "auto"
    ) -> None:
        self.project, self.entity, self.mode = project, entity, mode
        self.run: Any = None

    def loop_loggers(self, stage: str, folder: Path) -> list[Logger]:
        """The CSV logger and a wandb logger."""
        from pytorch_lightning.loggers import WandbLogger

        return [*super().loop_loggers(stage, folder), WandbLogger(experiment=self._start(stage))]

    def end_loop(self) -> None:
        """Finish the run of the loop that just ended."""
        self._finish()

    def record(
        self, stage: str, numbers: Mapping[str, Any], tables: Mapping[str, pd.DataFrame], images: Mapping[str, Path]
    ) -> None:
        """A run of its own with summary numbers, tables (with a bar chart of the first) and images."""
        import wandb

        run = self._start(stage)
        run.summary.update(dict(numbers))
        run.log({name: wandb.Table(dataframe=frame.astype(object)) for name, frame in tables.items()})
        run.log({name: wandb.Image(str(path)) for name, path in images.items()})
        for name, frame in tables.items():
            if {"method", "accuracy"} <= set(frame.columns):
                chart = wandb.plot.bar(wandb.Table(dataframe=frame.astype(object)), "method", "accuracy", title=name)
                run.log({f"{name} chart": chart})
        self._finish()

    def _start(self, stage: str) -> Any:
        import wandb

        mode = ("online" if _has_key() else "offline") if self.mode == "auto" else self.mode
        try:
            self.run = wandb.init(
                project=self.project,
                entity=self.entity,
                group=self.study,
                job_type=stage,
                tags=self.tags,
                dir=self.root,
                mode=mode,
                reinit="finish_previous",
                settings=wandb.Settings(console="off", silent=True, disable_git=True, save_code=False),
            )
        except wandb.errors.Error as error:
            reason = str(error).splitlines()[0]
            raise AacaError(f"logger.mode: wandb cannot log {mode} ({reason}); nearest valid: offline") from error
        return self.run

    def _finish(self) -> None:
        if self.run is not None:
            self.run.finish()
            self.run = None


def _has_key() -> bool:
    """Whether wandb would find a key without asking for one: in the environment, or in a netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    file = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    return file.is_file() and netrc(file).authenticators(host) is not None
