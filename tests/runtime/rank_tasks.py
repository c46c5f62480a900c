"""What the ranks of `test_launch` do."""

import os
import signal
import sys
import time
from typing import Any

from aaca.runtime.errors import ConfigError
from aaca.runtime.ranks import current


def who(argument: dict[str, Any]) -> dict[str, Any]:
    """Everything the ranks know of each other."""
    ranks = current()
    mine = {"rank": ranks.rank, "pid": os.getpid(), "parent": os.getppid(), "threads": os.environ["OMP_NUM_THREADS"]}
    shared = ranks.share({"from": ranks.rank, **argument})
    return {"world": ranks.world, "everyone": ranks.exchange(mine), "shared": ranks.exchange(shared)}


def disagree(argument: dict[str, Any]) -> None:
    current().agree("config", f"value of {current().rank}")


def fail(argument: dict[str, Any]) -> None:
    """One rank fails as asked; the others wait for it in a collective."""
    import torch

    if current().rank == argument["rank"]:
        if argument["how"] == "user":
            raise ConfigError("dataset.root: not there")
        if argument["how"] == "defect":
            raise ZeroDivisionError("planted")
        if argument["how"] == "exit":
            sys.exit(3)
        if argument["how"] == "memory":
            torch.empty(10**15)
        os.kill(os.getpid(), signal.SIGKILL)
    if argument["wait"] == "collective":
        torch.distributed.all_reduce(torch.ones(1))
    elif argument["wait"] == "exchange":
        current().exchange(1)
    else:
        time.sleep(3600)


def sleep_with_a_child(argument: dict[str, Any]) -> None:
    """Say who is there, then hang; the child is what a data loader's worker would be."""
    child = os.fork()
    if not child:
        time.sleep(3600)
    with open(f"{argument['folder']}/{current().rank}", "w") as stream:  # noqa: PTH123
        stream.write(f"{os.getpid()} {child}")
    time.sleep(3600)
