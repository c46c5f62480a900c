"""`Trial`: one composed job, frozen: what every rank of it runs, whoever started them."""

import importlib
import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aaca.runtime.files import digest
from aaca.runtime.ranks import ARRIVAL, current

SWEEP_VARIABLE = "AACA_SWEEP"
"""Environment variable: names the command that started a trial, also where a launcher runs it elsewhere."""

IMMATERIAL = ("paths", "logger", "resume")
"""Config groups that say where a run is kept and shown, not what it is."""

Job = Callable[["Trial"], float | None]


@dataclass(frozen=True)
class Trial:
    """A job's name, its resolved config as plain values, its folder, and what of the config was chosen."""

    job: str
    config: dict[str, Any]
    folder: str
    choices: dict[str, str]  # config group → option
    overrides: list[str]  # without those of IMMATERIAL groups
    sweep: str

    @property
    def path(self) -> Path:
        """The folder that all ranks share."""
        return Path(self.folder)

    @property
    def config_sha256(self) -> str:
        """Hash of what the run is: two runs of the same hash do the same."""
        return digest({name: value for name, value in self.config.items() if name not in IMMATERIAL})

    def to_json(self) -> dict[str, Any]:
        """Plain values, for a process that continues with them."""
        return asdict(self)


def material(overrides: list[str]) -> list[str]:
    """The overrides that say what a run is."""
    return [item for item in overrides if not item.lstrip("+~").startswith(("paths.", "logger", "resume", "hydra"))]


def sweep_id() -> str:
    """The id of this command, made on first use and inherited by every process that it starts."""
    return os.environ.setdefault(SWEEP_VARIABLE, uuid.uuid4().hex)


def run_frozen(frozen: Mapping[str, Any]) -> float | None:
    """Run a trial in this process, as the rank that this process is; its objective, the same on every rank.

    Raises `AacaError` with all values when the ranks do not hold the same config or end with different objectives.
    """
    trial = Trial(**frozen)
    ranks = current()
    ranks.agree("config", digest(trial.config), within=ARRIVAL)
    job: Job = importlib.import_module(f"aaca.experiments.{trial.job}").job
    value = job(trial)
    ranks.agree("objective", repr(value))
    return value
