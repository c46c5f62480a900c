"""From a Hydra config to a job: composition, run folders, and errors in one line with an exit status that says so."""

import hashlib
import importlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.markup import escape

from aaca.runtime.errors import AacaError, nearest
from aaca.runtime.files import DISK_ERRORS
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
            line = one_line(error, name)
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
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _reader_is_gone():
            return 0
        line = one_line(error, name)
        if line is None:
            raise
        _print_error(line)
        return 1
    if len(failures) > 1:
        _print_error(
            f"{len(failures)} trials failed; the others are finished. The same command runs only what is missing"
        )
    return 1 if failures else 0


def _reader_is_gone() -> bool:
    """Whether nobody reads our output any more (head, less), so that a broken pipe is no failure of the job."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return True
    return False


def one_line(error: Exception, name: str) -> str | None:
    """The line to show for an error that the user can mend; None for a defect of ours, which deserves its traceback."""
    if isinstance(error, AacaError):
        return str(error)
    if isinstance(error, HydraException | OmegaConfBaseException):
        return explain(error, name)
    if isinstance(error, OSError) and (error.filename is not None or error.errno in DISK_ERRORS):
        return f"{error.filename or 'paths.root'}: {error.strerror}"
    from_rank = re.search(r"^aaca\.runtime\.errors\.\w+: (.*)", str(error), re.MULTILINE)  # raised in a spawned rank
    return from_rank.group(1) if from_rank else None


def explain(error: Exception, name: str) -> str:
    """One line for an error of Hydra's or OmegaConf's in job `name`: the key, what was wrong, the nearest choices."""
    text = str(error)
    option = re.search(r"Could not find '([\w/]+)/([^'/]+)'\n\nAvailable options in '[^']*':\n((?:\t.*\n?)+)", text)
    if option:
        group, value, listed = option.groups()
        return f"{group}: no option {value!r}; {nearest(value, listed.split())}"
    unknown = re.search(r"Could not override '([^']+)'", text)
    if unknown:
        parent, _, key = unknown.group(1).rpartition(".")
        return f"{unknown.group(1)}: unknown key; {nearest(key, _siblings(name, parent))}"
    return " ".join(text.split())


def _siblings(name: str, parent: str) -> list[str]:
    """The keys beside a misspelt one: those of `parent` in the job's config with the command line's group choices."""
    GlobalHydra.instance().clear()
    groups = Path(importlib.import_module("aaca.conf").__path__[0])
    choices = [item for item in sys.argv[1:] if (groups / item.split("=")[0]).is_dir() and "," not in item]
    with hydra.initialize_config_module("aaca.conf", version_base="1.3"):
        config = hydra.compose(name, overrides=choices)
    node = OmegaConf.select(config, parent) if parent else config
    return [str(key) for key in node] if isinstance(node, DictConfig) else []


def _print_error(message: str) -> None:
    if os.environ.get("AACA_DEBUG"):
        traceback.print_exc()
    console.print(f"[bold red]error[/]: {escape(message)}", highlight=False, soft_wrap=True)
