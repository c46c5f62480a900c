"""From a Hydra config to a job: composition, run folders, and errors in one line with an exit status that says so."""

import hashlib
import importlib
import os
import re
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.markup import escape

from aaca.runtime.errors import AacaError, nearest
from aaca.runtime.log import console, setup_logging

INTERRUPTED = 130
STOPPED = "interrupted; finished stages are kept, run the same command again to go on"


def run_id(overrides: Sequence[str]) -> str:
    """The name of a run's folder: its overrides, sorted and made safe; the same command gives the same folder."""
    kept = sorted(item for item in overrides if not item.lstrip("+~").startswith(("paths.", "logger", "hydra")))
    text = ",".join(kept) or "default"
    safe = re.sub(r"[^A-Za-z0-9_=.,-]+", "_", text).lstrip(".")
    if safe == text and len(safe) <= 120:
        return safe
    return f"{safe[:100]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def run_job(name: str, job: Callable[[DictConfig], float | None]) -> int:
    """Compose `conf/<name>.yaml` with the command line's overrides, run `job` once, or once a trial of a sweep.

    A trial that fails with an error the user can mend does not stop the others. Returns the exit status: 0; 1 when
    anything failed (one line each on standard error); 130 after Ctrl-C.
    """
    OmegaConf.register_new_resolver("aaca.run_id", run_id, replace=True)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise instead of printing and exiting; we print below
    failures: list[str] = []

    def task(config: DictConfig) -> float | None:
        setup_logging()
        try:
            return job(config)
        except Exception as error:
            line = one_line(error)
            if line is None:
                raise
            failures.append(line)
            _print_error(line)
            return None

    app = hydra.main(version_base="1.3", config_path="pkg://aaca.conf", config_name=name)(task)
    try:
        app()
    except KeyboardInterrupt:
        _print_error(STOPPED)
        return INTERRUPTED
    except SystemExit as stop:  # Lightning turns Ctrl-C inside a loop into an exit
        if not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        _print_error(STOPPED)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except Exception as error:
        line = one_line(error)
        if line is None:
            raise
        _print_error(line)
        return 1
    if len(failures) > 1:
        _print_error(
            f"{len(failures)} trials failed; the others are finished. The same command runs only what is missing"
        )
    return 1 if failures else 0


def one_line(error: Exception) -> str | None:
    """The line to show for an error that the user can mend; None for a defect of ours, which deserves its traceback."""
    if isinstance(error, AacaError):
        return str(error)
    if isinstance(error, HydraException | OmegaConfBaseException):
        return explain(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    from_rank = re.search(r"^aaca\.runtime\.errors\.\w+: (.*)", str(error), re.MULTILINE)  # raised in a spawned rank
    return from_rank.group(1) if from_rank else None


def explain(error: Exception) -> str:
    """One line for an error of Hydra's or OmegaConf's: the key, what was wrong, the nearest valid choices."""
    text = str(error)
    option = re.search(r"Could not find '([\w/]+)/([^'/]+)'\n\nAvailable options in '[^']*':\n((?:\t.*\n?)+)", text)
    if option:
        group, value, listed = option.groups()
        return f"{group}: no option {value!r}; {nearest(value, listed.split())}"
    group_missing = re.search(r"Could not override '([^']+)'", text)
    if group_missing:
        name = group_missing.group(1)
        return f"{name}: unknown key; {nearest(name, _top_level_names())}"
    key_missing = re.search(r"Key '([^']+)' is not in struct\s+full_key: (\S+)", text)
    if key_missing:
        return f"{key_missing.group(2)}: unknown key"
    return " ".join(text.split())


def _top_level_names() -> list[str]:
    conf = Path(importlib.import_module("aaca.conf").__path__[0])
    return [path.name for path in conf.iterdir() if path.is_dir() and not path.name.startswith("_")] + ["seed"]


def _print_error(message: str) -> None:
    if os.environ.get("AACA_DEBUG"):
        traceback.print_exc()
    console.print(f"[bold red]error[/]: {escape(message)}", highlight=False, soft_wrap=True)
