"""One process tree a trial: its ranks are started from a frozen request, watched, and ended together."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aaca.runtime.errors import AacaError
from aaca.runtime.files import read_json

GRACE = 5.0  # seconds that the other ranks get to say what they know when one has failed
PORT = "port"


class TreeFailed(AacaError):
    """A rank failed or is gone. `trace` holds the traceback when the reason is a defect that no user can mend."""

    def __init__(self, reason: str, trace: str | None = None) -> None:
        super().__init__(reason, trace)
        self.reason, self.trace = reason, trace

    def __str__(self) -> str:
        return self.reason


def launch(target: str, argument: Mapping[str, Any], world: int, cuda: bool = False) -> Any:
    """Run `target` (`module:function`) with `argument` (plain JSON) on `world` ranks of this machine; rank 0's value.

    All ranks are children of this process, each the leader of its own process group, so that nothing of a trial
    outlives it: not when a rank fails, not when this process is interrupted, and not when it is killed (the ranks read
    their request from a pipe that breaks then, and the request, which may hold secrets, is on no disk). This process's
    environment stays as it is. Raises `TreeFailed`.
    """
    with tempfile.TemporaryDirectory(prefix="aaca-ranks-") as name:
        folder = Path(name)  # readable by this user alone
        request = {"target": target, "argument": dict(argument), "world": world, "cuda": cuda, "path": sys.path}
        line = json.dumps(request).encode() + b"\n"
        ranks: list[subprocess.Popen[bytes]] = []
        try:
            for rank in range(world):
                command = [sys.executable, "-m", "aaca.runtime.rank", str(folder), str(rank)]
                environment = _environment(world)
                ranks.append(subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, env=environment))
            for process in ranks:
                _tell(process, line)
            _watch(folder, ranks)
            if any(process.returncode != 0 for process in ranks):
                raise _reason(folder, ranks)
            values = [read_json(result_file(folder, rank)) for rank in range(world)]
        finally:
            for process in ranks:
                _end(process)
    return values[0]["value"]


def _tell(process: subprocess.Popen[bytes], line: bytes) -> None:
    # the pipe stays open: that it breaks is how a rank learns that this process is gone
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it is gone already, and _watch will say so
        process.stdin.write(line)
        process.stdin.flush()


def _environment(world: int) -> dict[str, str]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {"OMP_NUM_THREADS": str(max(1, cores // world)), **os.environ}


def _watch(folder: Path, ranks: list[subprocess.Popen[bytes]]) -> None:
    # until all have ended well, or one has not and the others have had their say; a rank that has noted an error has
    # failed also while it still hangs in its own clean-up
    failed_at = None
    while None in [process.poll() for process in ranks]:
        failed = any(process.returncode for process in ranks) or any(folder.glob("error-*.json"))
        if failed_at is None and failed:
            failed_at = time.monotonic()
        if failed_at is not None and time.monotonic() - failed_at > GRACE:
            return
        time.sleep(0.02)


def _end(process: subprocess.Popen[bytes]) -> None:
    # the whole group: also the data loading processes of a rank that has ended itself
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()


def result_file(folder: Path, rank: int) -> Path:
    """Where a rank leaves its value."""
    return folder / f"rank-{rank}.json"


def error_file(folder: Path, rank: int) -> Path:
    """Where a rank leaves its error."""
    return folder / f"error-{rank}.json"


def _reason(folder: Path, ranks: list[subprocess.Popen[bytes]]) -> TreeFailed:
    # A rank that vanished is the cause of what the others say, unless it aborted: that is how communication libraries
    # end a rank whose peer is gone. Else errors that a user can mend go before defects (a broken connection looks like
    # one), and what a rank knows itself before what it heard of another.
    said, vanished = [], []
    for rank, process in enumerate(ranks):
        if error_file(folder, rank).is_file():
            result = read_json(error_file(folder, rank))
            said.append((result["trace"] is not None, result["heard"], result["when"], rank, result))
        elif process.returncode:
            vanished.append((process.returncode == -signal.SIGABRT, rank, process.returncode))
    if vanished and not (said and min(vanished)[0]):
        _, rank, code = min(vanished)
        return TreeFailed(f"rank {rank} of {len(ranks)} {_ended(code)}")
    *_, rank, first = min(said)
    where = f"rank {rank}: " if rank and not first["error"].startswith("rank") else ""
    return TreeFailed(where + first["error"], first["trace"])


def _ended(code: int) -> str:
    if code < 0:
        name = signal.Signals(-code).name
        hint = " (the system's out-of-memory killer does that)" if name == "SIGKILL" else ""
        return f"was ended by {name}{hint}"
    return f"ended with status {code} and no word"
