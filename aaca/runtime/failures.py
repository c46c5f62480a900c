"""What is left of a trial that failed: `failed.json` in its folder, with the reason, until a later attempt succeeds."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from aaca.runtime.files import write_json, write_text
from aaca.runtime.secrets import redact, redacted
from aaca.runtime.trial import Trial

FAILED = "failed.json"
TRACEBACK = "traceback.txt"


@dataclass(frozen=True)
class Failure:
    """Which trial failed, and why, in one line."""

    folder: str
    reason: str
    overrides: list[str]
    method: str
    seed: int | None
    when: str
    sweep: str

    @property
    def name(self) -> str:
        """What the trial is called: its overrides, or its folder's name."""
        return " ".join(self.overrides) or Path(self.folder).name


def record(trial: Trial, reason: str, trace: str | None = None) -> Failure:
    """Mark the trial's folder as failed. What it published earlier stays."""
    config = trial.config
    method = config.get("method")
    seed = config.get("seed")
    failure = Failure(
        folder=trial.folder,
        reason=reason,
        overrides=trial.overrides,
        method=str(method.get("name", "")) if isinstance(method, dict) else "",
        seed=seed if isinstance(seed, int) else None,
        when=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        sweep=trial.sweep,
    )
    noted = {name: value for name, value in asdict(failure).items() if name != "folder"}
    write_json(trial.path / FAILED, redacted(noted))
    if trace is not None:
        write_text(trial.path / TRACEBACK, redact(trace))
    return failure


def noted_since(folder: Path, began: float) -> bool:
    """Whether a failure was noted after `began` (seconds of the wall clock)."""
    file = folder / FAILED
    return file.is_file() and file.stat().st_mtime >= began


def clear(folder: Path) -> None:
    """Forget earlier failures: the trial has succeeded."""
    for name in (FAILED, TRACEBACK):
        (folder / name).unlink(missing_ok=True)


def failures(root: Path, sweep: str | None = None) -> list[Failure]:
    """Failed trials whose folders lie directly in `root`, sorted by folder; of one command where `sweep` is given."""
    found = [failure_in(file.parent) for file in sorted(root.glob(f"*/{FAILED}"))]
    return [failure for failure in found if failure is not None and sweep in (None, failure.sweep)]


def failure_in(folder: Path) -> Failure | None:
    """The failure noted in a trial's folder, if there is one."""
    file = folder / FAILED
    if not file.is_file():
        return None
    try:
        return Failure(folder=str(folder), **json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        return Failure(str(folder), f"{file} is unreadable ({error})", [], "", None, "", "")
