"""The ranks of a run: who this process is, and how ranks agree outside of training.

All ranks run the same job. What only one may do (locks, folders, files) is done by rank 0, whose value the others get.
"""

import datetime
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aaca.runtime.errors import AacaError

ARRIVAL = 600.0  # seconds that ranks wait for each other at the start
COLLECTIVE = datetime.timedelta(minutes=30)  # a collective of training that takes longer has lost a rank


class RankGone(AacaError):
    """Another rank is gone or does not come; why, only that one knows."""


@dataclass
class Ranks:
    """This process among the `world` processes of a run (a single one by default)."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1
    store: Any = None  # a torch.distributed store, apart from the process group: waiting in it never times out
    _step: int = field(default=0, repr=False)

    def share(self, value: Any = None) -> Any:
        """Rank 0's `value` (plain JSON) on every rank. Ranks other than 0 wait as long as rank 0 lives."""
        if self.world == 1:
            return value
        self._step += 1
        key = f"share/{self._step}"
        if self.rank == 0:
            self.store.set(key, json.dumps(value))
            return value
        self._wait(key, None, "rank 0")
        return json.loads(self.store.get(key))

    def exchange(self, value: Any, within: float | None = None) -> list[Any]:
        """The values (plain JSON) of all ranks, in order. Raises `RankGone` when one does not come `within` seconds.

        Without a limit it waits as long as the others take: whoever started the ranks ends this one when one is gone.
        """
        if self.world == 1:
            return [value]
        self._step += 1
        self.store.set(f"exchange/{self._step}/{self.rank}", json.dumps(value))
        values = []
        for rank in range(self.world):
            key = f"exchange/{self._step}/{rank}"
            self._wait(key, within, f"rank {rank}")
            values.append(json.loads(self.store.get(key)))
        return values

    def _wait(self, key: str, seconds: float | None, whom: str) -> None:
        began, pause = time.monotonic(), 0.002
        while True:
            try:
                if self.store.check([key]):
                    return
            except RuntimeError as error:
                raise RankGone(f"rank {self.rank}: {whom} is gone ({str(error).splitlines()[0]})") from error
            if seconds is not None and time.monotonic() - began > seconds:
                raise RankGone(f"rank {self.rank}: {whom} did not arrive within {seconds:.0f} s")
            time.sleep(pause)
            pause = min(2 * pause, 0.2)

    def agree(self, what: str, value: str, within: float | None = None) -> None:
        """Raise `AacaError` with all values unless `value` is the same on every rank."""
        values = self.exchange(value, within)
        if len(set(values)) > 1:
            listed = ", ".join(f"rank {rank}: {value}" for rank, value in enumerate(values))
            raise AacaError(f"ranks disagree about the {what} ({listed}); nothing was run")


_current = Ranks()


def current() -> Ranks:
    """The ranks of the run that this process takes part in."""
    return _current


@contextmanager
def joined(store: Any, rank: int, world: int, local_rank: int, local_world: int, cuda: bool) -> Iterator[Ranks]:
    """Be rank `rank` of `world`: one process group for all loops of the run, destroyed afterwards."""
    import torch.distributed as dist

    global _current
    if cuda:
        import torch

        if torch.cuda.device_count() < local_world:
            raise AacaError(f"trainer.devices: {local_world} asked for, {torch.cuda.device_count()} GPUs are here")
        torch.cuda.set_device(local_rank)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if cuda else "gloo",
        store=dist.PrefixStore("group", store),
        rank=rank,
        world_size=world,
        timeout=COLLECTIVE,
    )
    _current = Ranks(rank, world, local_rank, local_world, dist.PrefixStore("run", store))
    try:
        yield _current
    finally:
        _current = Ranks()
        dist.destroy_process_group()
