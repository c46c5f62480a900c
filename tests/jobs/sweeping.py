"""Starting `aaca` as a person does, in a process of its own; and a repair that fails where a file says so."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch

from aaca.repair.augment import AugmentAndRetrain
from aaca.repair.base import RepairContext

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]
FAULTS = "AACA_TEST_FAULTS"


class Faulty(AugmentAndRetrain):
    """Augments, unless the file that the environment names plants a fault for this seed."""

    def apply(self, context: RepairContext, folder: Path) -> dict:
        fault = json.loads(Path(os.environ[FAULTS]).read_text()).get(str(context.seed))
        if fault == "nan":
            recipe = replace(context.recipe, lr=1e30, warmup_epochs=0.0, layer_decay=1.0)
            return super().apply(replace(context, recipe=recipe), folder)
        if fault == "memory":
            torch.empty(10**15)
        if fault == "defect":
            raise ZeroDivisionError("planted")
        if fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().apply(context, folder)


def aaca(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / "aaca"), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, **environment},
    )


def ranks_left() -> list[str]:
    """Ranks that this test (which they know by pytest's variable) has started and that are still there."""
    mine = f"PYTEST_CURRENT_TEST={os.environ['PYTEST_CURRENT_TEST'].split(' (')[0]}".encode()
    commands = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mine in (process / "environ").read_bytes():
                commands.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue  # it has just ended
    return [command for command in commands if "aaca.runtime.rank" in command]


def runs(root: Path) -> list[Path]:
    return sorted(path for path in (root / "runs").iterdir() if path.is_dir() and not path.name.startswith("."))
