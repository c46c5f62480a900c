"""Cut-outs ready to be pasted (scaled, turned, lit) and the shadows that tie them to the ground."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageFilter

from aaca.world.pack import Piece
from aaca.world.scenes import Placed

SOLID = 24
"""Alpha (of 255) from which a pixel counts as part of the cut-out: faint fringes do not lift it off the ground."""

SHADOW = [round(value * 0.6) for value in range(256)]
"""Opacity of the shadow by how much the cut-out covers; 0.6 where it covers all."""


@dataclass(frozen=True)
class Sprite:
    """A cut-out ready to paste: RGBA `image`, its `alpha` `[h, w]`, upper left `corner` and `foot` row in pixels."""

    image: Image.Image
    alpha: np.ndarray
    corner: tuple[int, int]
    foot: int


def _trim(image: Image.Image) -> Image.Image:
    solid = np.asarray(image.getchannel("A")) >= SOLID
    columns, rows = np.flatnonzero(solid.any(axis=0)), np.flatnonzero(solid.any(axis=1))
    return image.crop((int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1))


@lru_cache(maxsize=256)
def _cutout(piece: Piece) -> Image.Image:
    return _trim(Image.fromarray(piece.pixels()))


def brighten(image: Image.Image, factor: float) -> Image.Image:
    """Multiply the colour bands of an RGB or RGBA image; alpha stays."""
    ramp = np.minimum(np.arange(256) * factor + 0.5, 255).astype(np.uint8).tolist()
    return image.point(ramp * 3 + (list(range(256)) if image.mode == "RGBA" else []))


def make_sprite(placed: Placed, side: int) -> Sprite:
    """Scale, flip, turn and light a cut-out for a canvas of `side` pixels; shifted to lie inside it."""
    image = _cutout(placed.piece)
    scale = placed.size * side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    image = image.resize(size, Image.Resampling.BICUBIC)
    if placed.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = _trim(image.rotate(placed.angle, Image.Resampling.BICUBIC, expand=True))
    image = brighten(image, placed.brightness)
    left = round(placed.centre * side - image.width / 2)
    top = round(placed.foot * side) - image.height
    corner = (min(max(left, 0), side - image.width), max(top, 0))
    return Sprite(image, np.asarray(image.getchannel("A")), corner, corner[1] + image.height)


def shade(canvas: Image.Image, sprite: Sprite) -> None:
    """Darken the ground under a cut-out: its silhouette laid flat and blurred."""
    width, height = sprite.image.size
    blur = max(1.0, canvas.width * 0.02)
    pad = round(3 * blur)
    depth = max(2, round(0.16 * min(height, width)))
    alpha = sprite.image.getchannel("A")
    flat = Image.new("L", (width + 2 * pad, depth + 2 * pad))
    flat.paste(alpha.resize((width, depth), Image.Resampling.BOX), (pad, pad))
    soft = flat.filter(ImageFilter.GaussianBlur(blur)).point(SHADOW)
    canvas.paste(0, (sprite.corner[0] - pad, sprite.foot - round(0.6 * depth) - pad), soft)
