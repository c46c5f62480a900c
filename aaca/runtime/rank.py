"""The process of one rank: `python -m aaca.runtime.rank FOLDER RANK`, started by `aaca.runtime.launch` alone.

Standard input brings the request, one line of JSON, and ends when the process that started it is gone.
"""

import contextlib
import importlib
import json
import logging
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from aaca.runtime.files import write_json, write_text
from aaca.runtime.launch import PORT, error_file, result_file
from aaca.runtime.log import setup_logging
from aaca.runtime.ranks import ARRIVAL, RankGone, joined
from aaca.runtime.secrets import learn


def main(folder: Path, rank: int) -> int:
    """Do what is asked as this rank; leave the value, or the error, in a file. Returns the exit status."""
    line = sys.stdin.buffer.readline()
    if not line:
        return 1
    request = json.loads(line)
    threading.Thread(target=_die_with_parent, args=(folder,), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle; it ends us
    learn(request["argument"])
    sys.path[:] = request["path"]
    setup_logging(logging.INFO if rank == 0 else logging.WARNING, f"rank {rank}: " if rank else "")
    try:
        world = request["world"]
        with contextlib.ExitStack() as stack:
            if world > 1:
                stack.enter_context(joined(_meet(folder, rank, world), rank, world, rank, world, request["cuda"]))
            module, _, name = request["target"].partition(":")
            try:
                value = getattr(importlib.import_module(module), name)(request["argument"])
            except Exception as error:  # noted before the group is destroyed, which the others will stumble over
                write_json(error_file(folder, rank), _described(error, request))
                return 1
    except Exception as error:
        write_json(error_file(folder, rank), _described(error, request))
        return 1
    write_json(result_file(folder, rank), {"value": value})
    return 0


def _described(error: Exception, request: dict[str, Any]) -> dict[str, Any]:
    from aaca.runtime.explain import one_line, summary

    line = one_line(error, str(request["argument"].get("job", "")))
    trace = None if line else traceback.format_exc()
    return {
        "error": line or summary(error),
        "trace": trace,
        "heard": isinstance(error, RankGone),
        "when": time.monotonic(),
    }


def _meet(folder: Path, rank: int, world: int) -> Any:
    # Rank 0 listens on a port that the system chooses and tells it in the folder: two trials never want the same one.
    import torch.distributed as dist

    if rank == 0:
        store = dist.TCPStore("127.0.0.1", 0, world, is_master=True, wait_for_workers=False)
        write_text(folder / PORT, str(store.port))
        return store
    began = time.monotonic()
    while not (folder / PORT).is_file():
        if time.monotonic() - began > ARRIVAL:
            raise RankGone(f"rank {rank}: rank 0 did not start within {ARRIVAL:.0f} s")
        time.sleep(0.02)
    return dist.TCPStore("127.0.0.1", int((folder / PORT).read_text()), world, is_master=False)


def _die_with_parent(folder: Path) -> None:
    # The parent never writes again: reading returns when it is gone, however it went.
    os.read(sys.stdin.fileno(), 1)
    shutil.rmtree(folder, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
