"""Random views of images under optimisation: one fused resampling and a shift of colour, drawn for every sample alone.

On CUDA the backward pass of `grid_sample` adds in no fixed order, so repeated runs there differ in the last digits.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from aaca.runtime.errors import ConfigError

NUMBERS = 8  # of a sample at a step: angle, two translations, two scales, three colours
LEAST = 1e-12  # of a uniform number whose normal quantile is taken


@dataclass(frozen=True, kw_only=True)
class AugmentSpec:
    """How far views go (NeuroInspect, utils/ops); 0, 0, (1, 1) and 0 switch the four parts off.

    degrees: rotation either way. translate: share of the side, either way. scale: range of the factor, for height and
    width each its own if `anisotropic`. colour_shift: deviation of one offset a channel, shrinking linearly to 0.
    """

    degrees: float = 15.0
    translate: float = 0.15
    scale: tuple[float, float] = (0.6, 1.2)
    anisotropic: bool = True
    colour_shift: float = 0.2

    def __post_init__(self) -> None:
        """Raise `ConfigError` on a range that is none."""
        for name, value, most in (("degrees", self.degrees, 180), ("translate", self.translate, 1)):
            if not 0 <= value <= most:
                raise ConfigError(f"augment.{name}: {value}; expected 0…{most}")
        low, high = self.scale
        if not 0 < low <= high < math.inf:
            raise ConfigError(f"augment.scale: {low}, {high}; expected two factors above 0, the lower one first")
        if not 0 <= self.colour_shift < math.inf:
            raise ConfigError(f"augment.colour_shift: {self.colour_shift}; expected 0 or more")

    @classmethod
    def off(cls) -> "AugmentSpec":
        """Images as they are."""
        return cls(degrees=0.0, translate=0.0, scale=(1.0, 1.0), colour_shift=0.0)

    @property
    def moves(self) -> bool:
        """Whether pixels change their places."""
        return bool(self.degrees or self.translate) or self.scale != (1.0, 1.0)


class Augment:
    """The views of B samples at each of `iterations` steps, all drawn beforehand: sample i's from `seeds[i]` alone."""

    def __init__(
        self, spec: AugmentSpec, seeds: Sequence[int], iterations: int, device: torch.device | str = "cpu"
    ) -> None:
        self.spec = spec
        uniform = torch.stack([_uniform(seed, iterations) for seed in seeds])  # [B, T, 8]
        either = 2 * uniform - 1
        low, high = spec.scale
        scales = low + (high - low) * (uniform[..., 3:5] if spec.anisotropic else uniform[..., 3:4].expand(-1, -1, 2))
        remaining = 1 - torch.arange(iterations, dtype=torch.float64) / iterations
        normal = torch.special.ndtri(uniform[..., 5:].clamp(min=LEAST))
        self.matrices = affine(
            math.radians(spec.degrees) * either[..., 0], 2 * spec.translate * either[..., 1:3], scales
        ).to(device, torch.float32)
        self.offsets = (spec.colour_shift * remaining[None, :, None] * normal).to(device, torch.float32)

    def __call__(self, images: Tensor, step: int) -> Tensor:
        """The views `[B, 3, S, S]` of images `[B, 3, S, S]` at a step; outside of the image is 0, colours not clipped.

        Rotated about the centre, moved, then scaled to the centre, by one bilinear resampling.
        """
        if self.spec.moves:
            grid = F.affine_grid(self.matrices[:, step], list(images.shape), align_corners=False)
            images = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        return images + self.offsets[:, step, :, None, None] if self.spec.colour_shift else images


def _uniform(seed: int, iterations: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(iterations, NUMBERS, generator=generator, dtype=torch.float64)


def affine(angle: Tensor, move: Tensor, scale: Tensor) -> Tensor:
    """From places in the view to places in the image, `[…, 2, 3]` as `affine_grid` takes it.

    angle `[…]` in radians, clockwise; move `[…, 2]` (right, down), the half side 1; scale `[…, 2]` (width, height).
    View = scale · (rotation · image + move), so image = rotationᵀ · (view / scale − move).
    """
    cos, sin = angle.cos(), angle.sin()
    back = torch.stack([torch.stack([cos, sin], dim=-1), torch.stack([-sin, cos], dim=-1)], dim=-2)
    return torch.cat([back / scale[..., None, :], -(back @ move[..., None])], dim=-1)
