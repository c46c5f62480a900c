"""Ranks that torchrun or srun started are recognised; a batch script, and a lone process, are not."""

import pytest

from aaca.runtime.errors import ConfigError
from aaca.runtime.outside import Outside

TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "node0",
    "MASTER_PORT": "29500",
}
SLURM = {
    "SLURM_JOB_ID": "123456",
    "SLURM_STEP_ID": "0",
    "SLURM_NTASKS": "16",
    "SLURM_PROCID": "9",
    "SLURM_LOCALID": "1",
    "SLURM_NNODES": "2",
    "SLURM_NODELIST": "gpu[07-08]",
}


def test_torchrun():
    place = Outside.find(TORCHRUN)
    assert place == Outside("torchrun", 3, 4, 1, 2, "node0", 29500)
    place.check(devices=2, nodes=2)
    with pytest.raises(
        ConfigError, match=r"trainer\.devices: 8 on 1 node\(s\).*torchrun started 2 rank\(s\) on 2 node"
    ):
        place.check(devices=8, nodes=1)


def test_srun():
    assert Outside.find(SLURM) == Outside("srun", 9, 16, 1, 8, "gpu07", 15_000 + 3456)
    moved = Outside.find({**SLURM, "MASTER_ADDR": "head", "MASTER_PORT": "1234"})
    assert moved is not None
    assert (moved.address, moved.port) == ("head", 1234)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {**TORCHRUN, "WORLD_SIZE": "1"},
        {name: value for name, value in SLURM.items() if name != "SLURM_STEP_ID"},  # the batch script itself
        {**SLURM, "SLURM_STEP_ID": "batch"},
        {**SLURM, "SLURM_NTASKS": "1"},  # submitit with one task, which starts its own ranks
    ],
)
def test_a_process_that_was_started_alone(environment):
    assert Outside.find(environment) is None
