"""The ground: a texture tiled over a plane and seen in perspective, filtered by distance."""

from functools import lru_cache

import numpy as np
from PIL import Image

from aaca.world.pack import Piece
from aaca.world.scenes import Ground

FOCAL = 0.7
"""Focal length over image width: how much slower the texture shrinks across than along the view."""

SEAMED = frozenset({"scene/grass/GreenMeadow.webp", "scene/rock/rocks.webp"})
"""The two textures that do not tile: their edges are cross-faded into their middle."""


def _close_seams(pixels: np.ndarray) -> np.ndarray:
    faded = pixels.astype(np.float32)
    for axis in (0, 1):
        n = pixels.shape[axis]
        to_edge = np.minimum(np.arange(n), n - 1 - np.arange(n)) / n
        weight = np.clip(1 - 6 * to_edge, 0, 1).astype(np.float32).reshape((n, 1, 1) if axis == 0 else (1, n, 1))
        faded = (1 - weight) * faded + weight * np.roll(faded, n // 2, axis=axis)
    return np.round(faded).astype(np.uint8)


@lru_cache(maxsize=128)
def _pyramid(piece: Piece, base: int) -> tuple[np.ndarray, np.ndarray]:
    """The texture at sizes base, base/2, … 16 as packed RGBX pixels in one row, and where each level starts."""
    pixels = _close_seams(piece.pixels()) if piece.path in SEAMED else piece.pixels()
    texture = Image.fromarray(pixels).convert("RGBX")
    sizes = [base >> level for level in range(base.bit_length() - 4)]
    levels = [
        np.array(texture.resize((size, size), Image.Resampling.BICUBIC)).view(np.uint32).ravel() for size in sizes
    ]
    return np.concatenate(levels), np.cumsum([0] + [size * size for size in sizes[:-1]]).astype(np.int32)


def ground_pixels(ground: Ground, side: int, horizon: int) -> np.ndarray:
    """The plane from row `horizon` to the lower edge of a `side` × `side` image, uint8 `[side - horizon, side, 3]`.

    A pinhole camera over a plane whose vanishing line lies `ground.lift` above the visible horizon, so that the
    texture stays readable up to where the backdrop begins. Each row reads the pyramid level that fits its distance.
    """
    base = 256
    while base * ground.tiles < side and base < 2048:
        base *= 2
    pixels, starts = _pyramid(ground.piece, base)
    vanishing = horizon - ground.lift * side
    depth = (side - vanishing) / (np.arange(horizon, side) + 0.5 - vanishing)  # 1 at the lower edge, growing upwards
    across = ground.tiles * depth / side  # tiles a pixel
    along = ground.tiles * FOCAL * depth**2 / (side - vanishing)
    # Level k suits a footprint of 2^k texels; squared, so that no logarithm's last bit decides.
    footprint = across * along * base**2
    level = (footprint[:, None] >= 4.0 ** np.arange(1, len(starts))).sum(axis=1)
    size = (base >> level).astype(np.int32)[:, None]
    columns = np.arange(side) + 0.5 - side / 2
    u = across[:, None] * (-columns if ground.flip else columns) + ground.offset[0]
    v = ground.tiles * FOCAL * depth + ground.offset[1]
    x = np.floor(u * size).astype(np.int32) & (size - 1)
    y = np.floor(v[:, None] * size).astype(np.int32) & (size - 1)
    texels = pixels.take(starts[level][:, None] + y * size + x)
    return texels.view(np.uint8).reshape(side - horizon, side, 4)[..., :3]
