"""`IntrinsicNet`: one encoder, two decoders: an image in, its albedo and its shading out."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BRANCHES = ("albedo", "shading")
"""The decoders, by the names of their modules."""


def penultimate(branch: str) -> str:
    """The name of a branch's layer at which concepts live.

    It is the *input* of the last activation function but one. Two nonlinear functions follow it (SiLU before the last
    3 × 3 convolution, the sigmoid after it), so the gradient of the output by it depends on the image, and a loss on
    that gradient teaches the weights below. Had only the last, linear convolution followed, the gradient would be that
    convolution's weights, whatever the image: the loss would teach nothing else. SiLU, not ReLU: a step in the slope
    has no second derivative to learn from.
    """
    return f"{branch}.penultimate"


class IntrinsicNet(nn.Module):
    """A small U-Net. Images `[B, 3, S, S]` in 0…1; S is a multiple of 2 to the power of `len(channels) − 1`.

    `channels`: of the encoder's levels, each at half the side of the one before. 157,000 parameters by default.
    """

    def __init__(self, channels: Sequence[int] = (12, 24, 36, 48)) -> None:
        super().__init__()
        self.width = channels[0]  # channels of the penultimate layers
        self.encoder = nn.ModuleList(
            Block(before, after) for before, after in zip((3, *channels), channels, strict=False)
        )
        self.albedo = Decoder(channels, 3)
        self.shading = Decoder(channels, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Albedo `[B, 3, S, S]` and shading `[B, 1, S, S]`, both in 0…1."""
        levels = [self.encoder[0](images)]
        for block in list(self.encoder)[1:]:
            levels.append(block(F.avg_pool2d(levels[-1], 2)))
        return self.albedo(levels), self.shading(levels)


class Block(nn.Module):
    """3 × 3 convolution, norm, SiLU, twice."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, padding=1)
        self.norm = nn.GroupNorm(4, after)
        self.second = nn.Conv2d(after, after, 3, padding=1)

    def forward(self, values: Tensor) -> Tensor:
        """Same side, other channels."""
        return F.silu(self.second(F.silu(self.norm(self.first(values)))))


class Decoder(nn.Module):
    """From the encoder's levels, coarse to fine, to `out` channels in 0…1."""

    def __init__(self, channels: Sequence[int], out: int) -> None:
        super().__init__()
        pairs = list(zip(channels[:0:-1], channels[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.Conv2d(coarse + fine, fine, 3, padding=1) for coarse, fine in pairs)
        self.penultimate = nn.Conv2d(channels[0], channels[0], 3, padding=1)
        self.out = nn.Conv2d(channels[0], out, 3, padding=1)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """The branch's output."""
        values = levels[-1]
        for up, level in zip(self.up, levels[-2::-1], strict=True):
            wide = F.interpolate(values, scale_factor=2, mode="nearest")
            values = F.silu(up(torch.cat([wide, level], dim=1)))
        return torch.sigmoid(self.out(F.silu(self.penultimate(values))))
