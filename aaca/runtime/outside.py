"""Ranks that somebody else started: torchrun, or srun on a SLURM cluster."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from aaca.runtime.errors import ConfigError
from aaca.runtime.ranks import ARRIVAL, Ranks, joined

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_store: Any = None  # one for the life of the process; each trial has its own prefix in it
_trials = 0


def _slurm_meeting_point(environment: Mapping[str, str]) -> tuple[str, int]:
    # MASTER_ADDR and MASTER_PORT where they are set, else the first node and a port that the job's number gives
    from lightning_fabric.plugins.environments import SLURMEnvironment

    first = SLURMEnvironment.resolve_root_node_address(environment.get("SLURM_NODELIST", "127.0.0.1"))
    port = 15_000 + int(environment["SLURM_JOB_ID"]) % 10_000
    return environment.get("MASTER_ADDR", first), int(environment.get("MASTER_PORT", port))


@dataclass(frozen=True)
class Outside:
    """This process's place among ranks that a launcher has started."""

    launcher: str
    rank: int
    world: int
    local_rank: int
    local_world: int
    address: str
    port: int

    @classmethod
    def find(cls, environment: Mapping[str, str] = os.environ) -> "Outside | None":
        """What the environment says; None for a process that was started alone."""
        if all(name in environment for name in TORCHRUN):
            rank, world, local_rank, local_world = (int(environment[name]) for name in TORCHRUN[:4])
            address, port = environment["MASTER_ADDR"], int(environment["MASTER_PORT"])
            return cls("torchrun", rank, world, local_rank, local_world, address, port) if world > 1 else None
        # a batch script has a SLURM_PROCID too; only srun's tasks have a numbered step
        if environment.get("SLURM_STEP_ID", "").isdigit() and int(environment.get("SLURM_NTASKS", "1")) > 1:
            rank, world, local_rank = (
                int(environment[name]) for name in ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")
            )
            local_world = world // int(environment.get("SLURM_NNODES", "1"))
            return cls("srun", rank, world, local_rank, local_world, *_slurm_meeting_point(environment))
        return None

    def check(self, devices: int, nodes: int) -> None:
        """Raise `ConfigError` unless the launcher started the ranks that the config asks for."""
        started = (self.local_world, self.world // self.local_world)
        if started != (devices, nodes):
            raise ConfigError(
                f"trainer.devices: {devices} on {nodes} node(s) asked for, but {self.launcher} started {started[0]} "
                f"rank(s) on {started[1]} node(s); set trainer.devices={started[0]} trainer.nodes={started[1]}"
            )

    @contextmanager
    def join(self, cuda: bool) -> Iterator[Ranks]:
        """Be this rank for one trial."""
        import torch.distributed as dist

        global _store, _trials
        if _store is None:
            _store = self._connect()
        _trials += 1
        start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # the agent's store outlives a restart of the ranks
        store = dist.PrefixStore(f"aaca/{start}/{_trials}", _store)
        with joined(store, self.rank, self.world, self.local_rank, self.local_world, cuda) as ranks:
            yield ranks

    def _connect(self) -> Any:
        import datetime

        import torch.distributed as dist

        # torchrun's agent may host the store at this very port; then rank 0 is a client like the others
        hosts = self.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        wait = datetime.timedelta(seconds=ARRIVAL)
        return dist.TCPStore(self.address, self.port, self.world, hosts, wait, wait_for_workers=False)
