"""Where a run shows itself besides the terminal: plain files always, Weights & Biases when asked for."""

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pytorch_lightning.loggers import CSVLogger, Logger

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

        mode = self.mode
        if mode == "auto":
            key = os.environ.get("WANDB_API_KEY") or wandb.api.api_key
            mode = "online" if key else "offline"
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
        return self.run

    def _finish(self) -> None:
        if self.run is not None:
            self.run.finish()
            self.run = None
