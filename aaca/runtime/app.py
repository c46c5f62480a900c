"""From a Hydra config to a job: composition, run folders, and errors in one line with an exit status that says so."""

import logging
import os
import re
import signal
import sys
import time
import traceback
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import FrameType
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from rich.markup import escape

from aaca.runtime.config import plain
from aaca.runtime.errors import AacaError, ConfigError
from aaca.runtime.explain import one_line, summary
from aaca.runtime.failures import clear, failures, noted_since, record
from aaca.runtime.launch import launch
from aaca.runtime.log import console, setup_logging
from aaca.runtime.outside import Outside
from aaca.runtime.run_folder import RUN
from aaca.runtime.secrets import learn, mask_file, redact, refuse_secrets
from aaca.runtime.trial import SWEEP_VARIABLE, Trial, material, run_frozen, sweep_id

INTERRUPTED, TERMINATED = 130, 143
GO_ON = "finished stages are kept, run the same command again to go on"


def run_id(overrides: Sequence[str]) -> str:
    """The name of a run's folder: its overrides, sorted and made safe; the same command gives the same folder."""
    text = ",".join(sorted(material(list(overrides)))) or "default"
    safe = re.sub(r"[^A-Za-z0-9_=.,-]+", "_", text).lstrip(".")
    if safe == text and len(safe) <= 120:
        return safe
    return f"{safe[:100]}-{sha256(text.encode()).hexdigest()[:8]}"


# at import, since a launcher's worker composes before it runs a job, and all it has of ours by then is this module
OmegaConf.register_new_resolver("aaca.run_id", run_id, replace=True)


class Task:
    """What Hydra and its launchers call for one trial, in this process or in one of theirs (so it can be pickled)."""

    def __init__(self, name: str, is_trial: bool) -> None:
        self.name, self.is_trial, self.failed, self.home = name, is_trial, False, os.getpid()
        self.__name__ = self.__qualname__ = name

    def __call__(self, config: DictConfig) -> float | None:
        """Run it; its objective. Whatever goes wrong is said and noted in the trial's folder, and the value is None."""
        os.environ["HYDRA_FULL_ERROR"] = "1"
        outside, trial = Outside.find(), None
        rank = outside.rank if outside is not None else 0
        setup_logging(logging.WARNING if rank else logging.INFO, f"rank {rank}: " if rank else "")
        began = time.time()
        try:
            trial = _unresolved(self.name)
            trial = replace(trial, config=_resolved(config))
            value = _start(trial, outside)
            if self.is_trial and rank == 0:
                clear(trial.path)
            return value
        except Exception as error:
            self._fail(error, trial, outside, began)
            return None

    def _fail(self, error: Exception, trial: Trial | None, outside: Outside | None, began: float) -> None:
        self.failed = True
        line = one_line(error, self.name)
        trace = None if line else getattr(error, "trace", None) or traceback.format_exc()
        shown = line or (str(error) if isinstance(error, AacaError) else summary(error))
        # a single run that has not taken its folder yet leaves nothing: whoever mistyped is there to read the line
        if self.is_trial and trial is not None and (_sweeping() or (trial.path / RUN).is_file()):
            try:
                if outside is None or not noted_since(trial.path, began):  # the rank that fails first knows why
                    record(trial, shown, trace)
            except OSError as unwritable:
                console.print(f"the failure could not be noted in {trial.folder}: {unwritable.strerror}")
                if os.getpid() != self.home:  # in a launcher's worker this is the only way left to tell
                    raise error from unwritable
        if trace and not (self.is_trial and _sweeping()):
            console.print(redact(trace), markup=False, highlight=False)
        print_error(shown)
        if outside is not None:
            # the other ranks wait in the middle of this trial: the launcher has to end them, as it does when one exits
            sys.stderr.flush()
            os._exit(1)


def _sweeping() -> bool:
    return HydraConfig.get().mode is RunMode.MULTIRUN


def _resolved(config: DictConfig) -> dict[str, Any]:
    values = plain(config)
    learn(values)
    mask_file(Path(HydraConfig.get().sweep.dir) / "multirun.yaml")  # Hydra has just put the whole config there
    return values


def _unresolved(name: str) -> Trial:
    # what is known of a trial even if its config does not resolve
    hydra_config = HydraConfig.get()
    return Trial(
        job=name,
        config={},
        folder=str(hydra_config.runtime.output_dir),
        choices={group: str(option) for group, option in hydra_config.runtime.choices.items()},
        overrides=material(list(hydra_config.overrides.task)),
        sweep=sweep_id(),
    )


def _start(trial: Trial, outside: Outside | None) -> float | None:
    # where a trial runs: here, in a tree of its own, or as one of the ranks that a launcher has started
    wanted = trial.config.get("trainer")
    trainer: Mapping[str, Any] = wanted if isinstance(wanted, dict) else {}
    devices, nodes = (trainer.get(key, 1) for key in ("devices", "nodes"))
    numbers = isinstance(devices, int) and isinstance(nodes, int)
    if outside is not None and numbers:
        outside.check(devices, nodes)
        with outside.join(_cuda(trainer)):
            return run_frozen(trial.to_json())
    if numbers and nodes > 1:
        raise ConfigError(
            f"trainer.nodes: {nodes} nodes need a launcher that starts a process for each device on each node; "
            "expected torchrun or srun (docs/launch.md)"
        )
    if numbers and (devices > 1 or trainer.get("isolate") is True):
        value: float | None = launch("aaca.runtime.trial:run_frozen", trial.to_json(), max(devices, 1), _cuda(trainer))
        return value
    return run_frozen(trial.to_json())


def _cuda(trainer: Mapping[str, Any]) -> bool:
    if trainer.get("accelerator") not in ("auto", "gpu"):
        return False
    import torch

    return torch.cuda.is_available()


class RememberSweep(Callback):
    """Hydra's word for where a sweep's trials lie, in the process that started it (`hydra.callbacks` of a job)."""

    folder: Path | None = None

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Keep the folder."""
        RememberSweep.folder = Path(str(config.hydra.sweep.dir))


def run_job(name: str, is_trial: bool = False) -> int:
    """Compose `conf/<name>.yaml` with the command line's overrides, run the job once, or once a trial of a sweep.

    A trial that fails does not stop the others. Returns the exit status: 0; 1 when anything failed (one line each on
    standard error); 130 after Ctrl-C; 143 after SIGTERM.
    """
    changed = {"HYDRA_FULL_ERROR": "1", SWEEP_VARIABLE: uuid.uuid4().hex}  # Hydra shall raise; we print
    kept = {key: os.environ.get(key) for key in changed}
    os.environ.update(changed)
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        return _run(Task(name, is_trial))
    finally:
        signal.signal(signal.SIGTERM, before)
        for key, value in kept.items():
            os.environ.pop(key)
            if value is not None:
                os.environ[key] = value


def _run(task: Task) -> int:
    RememberSweep.folder = None
    app = hydra.main(version_base="1.3", config_path="pkg://aaca.conf", config_name=task.name)(task)
    try:
        refuse_secrets(sys.argv[1:])
        app()
    except KeyboardInterrupt:
        print_error(f"interrupted; {GO_ON}")
        return INTERRUPTED
    except SystemExit as stop:
        if stop.code == TERMINATED:
            print_error(f"terminated; {GO_ON}")
            return TERMINATED
        if not isinstance(stop.__context__, KeyboardInterrupt):  # Lightning turns Ctrl-C inside a loop into an exit
            raise
        print_error(f"interrupted; {GO_ON}")
        return INTERRUPTED
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _reader_is_gone():
            return 0
        line = one_line(error, task.name)
        if line is None and _failed_trials():  # a sweeper stumbled over trials that failed: they are the news
            line = f"the sweep ended early ({summary(error)})"
        if line is None:
            raise
        print_error(line)
        return 1
    return 1 if _failed_trials() or task.failed else 0


def _failed_trials() -> int:
    """How many trials of this command's sweep failed, wherever they ran; says which."""
    failed = failures(RememberSweep.folder, sweep_id()) if RememberSweep.folder is not None else []
    if failed:
        print_error(f"{len(failed)} trial(s) failed; the same command runs only what is missing")
    for failure in failed:
        console.print(
            f"  {redact(failure.name)}: {redact(failure.reason)}", markup=False, highlight=False, soft_wrap=True
        )
    return len(failed)


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(TERMINATED)


def _reader_is_gone() -> bool:
    """Whether nobody reads our output any more (head, less), so that a broken pipe is no failure of the job."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return True
    return False


def print_error(message: str) -> None:
    """One line on standard error; with AACA_DEBUG set, the traceback before it."""
    if os.environ.get("AACA_DEBUG"):
        console.print(redact(traceback.format_exc()), markup=False, highlight=False)
    console.print(f"[bold red]error[/]: {escape(redact(message))}", highlight=False, soft_wrap=True)
