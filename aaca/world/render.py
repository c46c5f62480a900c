"""The renderer: a `SceneSpec` becomes pixels, exact soft masks and boxes.

Painted at twice the size, back to front (panorama, ground in perspective, then each cut-out with its contact shadow by
foot line), then box-filtered. Bit-identical across runs and processes with one Pillow version.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from aaca.world.ground import ground_pixels
from aaca.world.panorama import panorama
from aaca.world.scenes import SceneSpec
from aaca.world.sprites import Sprite, brighten, make_sprite, shade

VERSION = 1
"""Raised with every change that alters pixels; part of the benchmark's fingerprint."""

LAYERS = ("backdrop", "ground", "object", "concept")
"""The order of the masks."""

BOX_COVER = 32
"""A pixel belongs to a box when the thing covers at least this much of it (of 255): thin legs count."""

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Rendered:
    """One image.

    `rgb` `[S, S, 3]` uint8; `masks` `[4, S, S]` uint8 in the order of `LAYERS`, the visible share of each pixel,
    summing to 255; `boxes` of the visible object and co-object (None without one): left, top, right, bottom in pixels,
    the last two exclusive.
    """

    rgb: np.ndarray
    masks: np.ndarray
    boxes: dict[str, Box | None]


def render(spec: SceneSpec, size: int) -> Rendered:
    """Paint `spec` as an image of `size` × `size` pixels."""
    side = 2 * size
    horizon = round(spec.horizon * side)
    canvas = Image.new("RGB", (side, side))
    canvas.paste(panorama(spec.backdrop, side, horizon), (0, 0))
    canvas.paste(Image.fromarray(ground_pixels(spec.ground, side, horizon)), (0, horizon))
    sprites = {"object": make_sprite(spec.object, side)}
    if spec.concept is not None:
        sprites["concept"] = make_sprite(spec.concept, side)
    back_to_front = sorted(sprites, key=lambda name: sprites[name].foot)
    for name in back_to_front:
        shade(canvas, sprites[name])
        canvas.paste(sprites[name].image, sprites[name].corner, sprites[name].image)
    rgb = np.asarray(brighten(canvas.reduce(2), spec.brightness))
    masks = _masks([(name, sprites[name]) for name in reversed(back_to_front)], side, horizon)
    boxes = {name: _box(masks[LAYERS.index(name)]) for name in ("object", "concept")}
    return Rendered(rgb, masks, boxes)


def _masks(front_to_back: list[tuple[str, Sprite]], side: int, horizon: int) -> np.ndarray:
    """Visible shares `[4, S, S]` uint8. Running sums are rounded, not shares, so that each pixel adds up to 255."""
    masks = np.zeros((4, side // 2, side // 2), dtype=np.uint8)
    covered, done = np.zeros((side, side), dtype=np.float32), np.zeros((side // 2, side // 2), dtype=np.uint8)
    for name, sprite in front_to_back:
        left, top = sprite.corner
        view = covered[top : top + sprite.image.height, left : left + sprite.image.width]
        view += (255 - view) * (sprite.alpha.astype(np.float32) / 255)
        masks[LAYERS.index(name)], done = _reduce(covered) - done, _reduce(covered)
    covered[horizon:] = 255
    masks[LAYERS.index("ground")], done = _reduce(covered) - done, _reduce(covered)
    masks[LAYERS.index("backdrop")] = 255 - done
    return masks


def _reduce(values: np.ndarray) -> np.ndarray:
    total = values[0::2, 0::2] + values[0::2, 1::2] + values[1::2, 0::2] + values[1::2, 1::2]
    return (total * np.float32(0.25) + np.float32(0.5)).astype(np.uint8)


def _box(mask: np.ndarray) -> Box | None:
    seen = mask >= BOX_COVER
    columns, rows = np.flatnonzero(seen.any(axis=0)), np.flatnonzero(seen.any(axis=1))
    if not len(columns):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
