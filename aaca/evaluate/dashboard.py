"""Where a run shows itself besides the terminal: plain files always, Weights & Biases when asked for."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse

import pandas as pd
from pytorch_lightning.loggers import Logger, WandbLogger

from aaca.runtime.errors import AacaError
from aaca.runtime.files import write_text
from aaca.runtime.secrets import redacted
from aaca.runtime.stages import PROGRESS

TAG_LENGTH = 64  # wandb's limit


class Dashboard(ABC):
    """The role of the `logger` config group."""

    def begin(self, root: Path, study: str, tags: list[str], config: Mapping[str, Any]) -> None:
        """What the following stages belong to: study, overrides, resolved config; files go below `root`."""
        self.root, self.study, self.config = root, study, redacted(config)
        self.tags = [tag[:TAG_LENGTH] for tag in redacted(tags)]

    @abstractmethod
    def loop(self, stage: str, folder: Path) -> AbstractContextManager[list[Logger]]:
        """Lightning loggers for a training loop whose stage is made in `folder`, closed afterwards, failed or not."""

    @abstractmethod
    def record(
        self, stage: str, numbers: Mapping[str, Any], tables: Mapping[str, pd.DataFrame], images: Mapping[str, Path]
    ) -> None:
        """Show one finished stage: headline numbers, tables, pictures by name."""


class Files(Dashboard):
    """Nothing but the files that stages and runs write anyway (training curves: `log/metrics.csv` in the stage)."""

    @contextmanager
    def loop(self, stage: str, folder: Path) -> Iterator[list[Logger]]:
        """No loggers."""
        yield []

    def record(
        self, stage: str, numbers: Mapping[str, Any], tables: Mapping[str, pd.DataFrame], images: Mapping[str, Path]
    ) -> None:
        """Nothing to do: the stage wrote its files itself."""


class Wandb(Dashboard):
    """Plain files, and one wandb run a stage: group = study, job type = stage, tags = overrides.

    `mode` auto logs online where wandb finds a key in its environment or netrc, else offline (`wandb sync` uploads it
    later). No key is ever an argument here, so none can reach a config or a file.
    """

    def __init__(
        self, project: str = "aaca", entity: str | None = None, mode: Literal["auto", "online", "offline"] = "auto"
    ) -> None:
        self.project, self.entity, self.mode = project, entity, mode

    @contextmanager
    def loop(self, stage: str, folder: Path) -> Iterator[list[Logger]]:
        """A wandb logger; an interrupted loop goes on in the same wandb run."""
        note = folder / PROGRESS / "wandb-run"
        known = note.read_text(encoding="utf-8").strip() if note.is_file() else None
        with self._run(stage, known) as run:
            write_text(note, run.id)
            yield [WandbLogger(experiment=run)]

    def record(
        self, stage: str, numbers: Mapping[str, Any], tables: Mapping[str, pd.DataFrame], images: Mapping[str, Path]
    ) -> None:
        """A run of its own: summary numbers, tables, a table of pictures, bars where methods are compared."""
        import wandb

        with self._run(stage) as run:
            run.summary.update(dict(numbers))
            run.log({name: wandb.Table(dataframe=frame.astype(object)) for name, frame in tables.items()})
            run.log({name: wandb.Image(str(path)) for name, path in images.items()})
            pictures = [[name, wandb.Image(str(path))] for name, path in images.items()]
            run.log({"pictures": wandb.Table(columns=["name", "picture"], data=pictures)})
            for name, frame in tables.items():
                if {"method", "accuracy"} <= set(frame.columns):
                    bars = wandb.Table(dataframe=frame[["method", "accuracy"]].astype(object))
                    run.log({f"{name} chart": wandb.plot.bar(bars, "method", "accuracy", title=name)})

    @contextmanager
    def _run(self, stage: str, known: str | None = None) -> Iterator[Any]:
        import wandb

        mode = ("online" if _has_key() else "offline") if self.mode == "auto" else self.mode
        try:
            run = wandb.init(
                project=self.project,
                entity=self.entity,
                group=self.study,
                job_type=stage,
                tags=self.tags,
                config=dict(self.config),
                dir=self.root,
                mode=mode,
                reinit="finish_previous",
                id=known,
                resume="allow" if known else None,
                settings=wandb.Settings(console="off", silent=True, disable_git=True, save_code=False),
            )
        except wandb.errors.Error as error:
            reason = str(error).splitlines()[0]
            raise AacaError(f"logger.mode: wandb cannot log {mode} ({reason}); nearest valid: offline") from error
        try:
            yield run
        except BaseException:
            run.finish(exit_code=1)
            raise
        run.finish()


def _has_key() -> bool:
    """Whether wandb would find a key without asking for one: in the environment, or in a netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    file = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    try:
        return file.is_file() and netrc(file).authenticators(host) is not None
    except NetrcParseError as error:
        raise AacaError(
            f"{file}: not a readable netrc file ({error.msg}); mend it or set logger.mode=offline"
        ) from error
