"""What every rank of a test of mappings does; apart from the tests, so that a started process imports little."""

import hashlib
from pathlib import Path
from typing import Any

import torch

from aaca.runtime.ranks import current
from aaca.training.mapper import Mapper, Schedule, fit_mapping
from aaca.training.trainer import TrainerSpec


def map_both_ways(argument: dict[str, Any]) -> list[list[Any]]:
    """Of each rank: R² and the hash of what the kernels and ridge make of the features."""
    torch.manual_seed(1)
    features, spec = torch.randn(60, 4, 3, 3), TrainerSpec(accelerator="cpu", devices=current().world)
    student = Mapper((4, 3, 3), (5, 8, 8)).encoder(features).detach()
    found: list[Any] = []
    for kind in ("conv", "ridge"):
        folder = Path(argument["folder"]) / kind
        mapping = fit_mapping(kind, features, student, 0, spec, folder, schedule=Schedule(rows=5, lr=0.01))
        found += [mapping.r2, hashlib.sha256(mapping.apply(features).numpy().tobytes()).hexdigest()]
    return current().exchange(found)
