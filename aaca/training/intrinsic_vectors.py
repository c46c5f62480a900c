"""Concept vectors of intrinsic images: where a branch's activations go as that changes which it should not mind.

Two kinds. `relative`, as the released code has it: all images of the one Δ against all of the other, one vector a
branch. Both hold the same kinds of images, so it can only tell the few fixed lights from the few fixed albedos.
`scene`: a vector of its own for each scene of a Δ and each way in which its members differ (brighter, brighter to
the right, brighter below), from the members that have less of it to those that have more; it counts for that scene.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from aaca.concepts.activations import activations_of
from aaca.concepts.cav import Cav, fit_cav
from aaca.world.intrinsic import Intrinsics

Vectors = Literal["scene", "relative"]
FOLDS = 2  # a scene has few members
WAYS = 3


@dataclass(frozen=True)
class BranchVectors:
    """Unit vectors `[P, D]`, the scene that each counts for `[P]` (−1: all), and their mean held-out accuracy."""

    directions: Tensor
    scenes: Tensor
    accuracy: float


def count(kind: Vectors, scenes: int) -> int:
    """How many vectors a branch has, P."""
    return scenes * WAYS if kind == "scene" else 1


def fit_vectors(
    model: nn.Module, layer: str, ignored: Intrinsics, varying: np.ndarray, wanted: Intrinsics, kind: Vectors, seed: int
) -> BranchVectors:
    """Vectors at `layer` of what changes within the scenes of `ignored`, `[G, M, …]`: its `varying` part.

    `wanted`: the other Δ, of which only `relative` makes use.
    """
    groups, members = ignored.image.shape[:2]
    found = _activations(model, layer, ignored)
    if kind == "relative":
        cavs = [fit_cav(found, _activations(model, layer, wanted), folds=FOLDS, seed=seed)]
        scenes = torch.tensor([-1])
    else:
        each = found.reshape(groups, members, -1)
        cavs = [
            _along(values, amounts, seed)
            for values, ways in zip(each, moments(varying), strict=True)
            for amounts in ways
        ]
        scenes = torch.arange(groups).repeat_interleave(WAYS)
    directions = torch.from_numpy(np.stack([cav.direction for cav in cavs]))
    return BranchVectors(directions, scenes, float(np.mean([cav.balanced_accuracy for cav in cavs])))


def _activations(model: nn.Module, layer: str, images: Intrinsics) -> np.ndarray:
    flat = torch.from_numpy(images.image.reshape(-1, *images.image.shape[2:]))
    return activations_of(model, flat, [layer])[layer].numpy()


def _along(activations: np.ndarray, amounts: np.ndarray, seed: int) -> Cav:
    order, half = amounts.argsort(), len(amounts) // 2
    return fit_cav(activations[order[-half:]], activations[order[:half]], folds=FOLDS, seed=seed)


def moments(values: np.ndarray) -> np.ndarray:
    """Brightness, its rise to the right and its rise downwards, `[G, 3, M]`, of `[G, M, C, S, S]`."""
    grey = values.mean(axis=2, dtype=np.float64)
    places = (np.arange(grey.shape[-1]) + 0.5) / grey.shape[-1] * 2 - 1
    ways = [grey, grey * places, grey * places[:, None]]
    return np.stack([way.mean(axis=(2, 3)) for way in ways], axis=1)
