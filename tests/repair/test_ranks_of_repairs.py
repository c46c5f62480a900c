"""Two ranks (gloo) repair as one does: the same vectors, prototypes, group weights, and so the same classifier."""

import torch
from safetensors.torch import load_file

from aaca.runtime.launch import launch
from aaca.training.fit import WEIGHTS
from tests.repair_toys import context
from tests.toys import tiny_vit


def test_repairs_are_the_same_on_one_and_two_ranks(tmp_path):
    given = context(tmp_path, tiny_vit())
    (tmp_path / "saved").mkdir()
    given.benchmark.save(tmp_path / "saved")
    for world in (1, 2):
        argument = {"root": str(tmp_path), "out": str(tmp_path / str(world))}
        done = launch("tests.repair.rank_tasks:repair", argument, world)
        assert all(len(set(summary["parameters_sha256"])) == 1 for summary in done.values())
    start = load_file(given.f0_weights)
    for name in done:
        one, two = (load_file(tmp_path / str(world) / name / WEIGHTS) for world in (1, 2))
        for key in (key for key in one if not key.endswith("qkv.bias")):  # a key's bias has no gradient but rounding
            torch.testing.assert_close(two[key], one[key], rtol=1e-3, atol=3e-4)
        moved = max(float((one[key] - start[key]).abs().max()) for key in one)
        assert moved > 3e-3, name
