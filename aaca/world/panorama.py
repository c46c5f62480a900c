"""The backdrop: what a panorama shows above eye level."""

from functools import cache

import numpy as np
from PIL import Image, ImageFilter

from aaca.world.pack import Piece
from aaca.world.scenes import Backdrop

BLOWN_OUT = 240
RIM = 60
"""Lamps and suns have dark rims, left by scaling values above white: what closing lifts by more than this is lifted."""


def _without_rims(image: Image.Image) -> Image.Image:
    closed = image.filter(ImageFilter.MaxFilter(5)).filter(ImageFilter.MinFilter(5))
    near_lamp = np.asarray(image.filter(ImageFilter.MaxFilter(7))).min(axis=2) >= BLOWN_OUT
    before, after = np.asarray(image).astype(np.int16), np.asarray(closed).astype(np.int16)
    rim = near_lamp & ((after - before).max(axis=2) > RIM)
    return Image.fromarray(np.where(rim[..., None], after, before).astype(np.uint8))


@cache
def _unrolled(piece: Piece) -> Image.Image:
    """The half above eye level, one and a half times around, so that no crop meets the seam."""
    pixels = piece.pixels()
    upper = pixels[: pixels.shape[0] // 2]
    return _without_rims(Image.fromarray(np.concatenate([upper, upper[:, : pixels.shape[1] // 2]], axis=1)))


def panorama(backdrop: Backdrop, side: int, horizon: int) -> Image.Image:
    """The crop that stands on row `horizon` of a `side` × `side` image: RGB, `side` wide, `horizon` high."""
    unrolled = _unrolled(backdrop.piece)
    turn = unrolled.width / 1.5
    left, width = backdrop.start * turn, backdrop.span * turn
    box = (left, unrolled.height - width * horizon / side, left + width, unrolled.height)
    crop = unrolled.resize((side, horizon), Image.Resampling.BICUBIC, box=box)
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if backdrop.flip else crop
