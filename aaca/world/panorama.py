"""The backdrop: what a panorama shows above eye level."""

from functools import cache

import numpy as np
from PIL import Image

from aaca.world.pack import Piece
from aaca.world.scenes import Backdrop

BLOWN_OUT = 240
RIM = 60
"""Lamps and suns have dark rims, left by scaling values above white: what closing lifts by more than this is lifted."""


def _extreme(pixels: np.ndarray, radius: int, of: np.ufunc) -> np.ndarray:
    """The largest (`of=np.maximum`) or smallest value within `radius`; the panorama closes on itself."""
    for axis in (0, 1):
        pixels = of.reduce([np.roll(pixels, shift, axis) for shift in range(-radius, radius + 1)])
    return pixels


def _without_rims(pixels: np.ndarray) -> np.ndarray:
    closed = _extreme(_extreme(pixels, 2, np.maximum), 2, np.minimum)
    near_lamp = _extreme(pixels, 3, np.maximum).min(axis=2) >= BLOWN_OUT
    rim = near_lamp & ((closed - pixels).max(axis=2) > RIM)  # closing never darkens, so no difference is negative
    return np.where(rim[..., None], closed, pixels)


@cache
def _unrolled(piece: Piece) -> Image.Image:
    """The half above eye level, one and a half times around, so that no crop meets the seam."""
    pixels = _without_rims(piece.pixels())
    upper = pixels[: pixels.shape[0] // 2]
    return Image.fromarray(np.concatenate([upper, upper[:, : pixels.shape[1] // 2]], axis=1))


def panorama(backdrop: Backdrop, side: int, horizon: int) -> Image.Image:
    """The crop that stands on row `horizon` of a `side` × `side` image: RGB, `side` wide, `horizon` high."""
    unrolled = _unrolled(backdrop.piece)
    turn = unrolled.width / 1.5
    left, width = backdrop.start * turn, backdrop.span * turn
    box = (left, unrolled.height - width * horizon / side, left + width, unrolled.height)
    crop = unrolled.resize((side, horizon), Image.Resampling.BICUBIC, box=box)
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if backdrop.flip else crop
