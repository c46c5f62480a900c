"""A tiny world of coloured shapes with a grammar of captions: graph-to-caption data that a test can learn in seconds.

64 × 64 renders of three shapes, several graphs an image, so that the image alone does not tell the caption. Colours
stand first in a graph's attributes and after the size in a caption. With the three special words V is 19.
"""

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

import numpy as np

from aaca.data.graph_writer import GraphImage, image_id, write_layout
from aaca.runtime.errors import ConfigError
from aaca.runtime.seeding import purpose_seed
from aaca.world.phrases import Grammar, Relation, Said, Thing, Told
from aaca.world.render import Box

SIZE = 64
RGB = {"red": (214, 48, 48), "green": (48, 168, 72), "blue": (56, 84, 214), "yellow": (236, 208, 56)}
RADII = {"small": (5, 7), "large": (10, 13)}
SHAPES = ("circle", "square", "triangle")
MARGIN = 6
"""The least that two centres differ, in pixels, more along one axis than along the other, for a relation."""
MOST_NODES = 10
"""As many as the captioner's graphs have: no relation is dropped for want of room."""
GAP = 2  # pixels between two boxes
CROP, VECTOR = 8, 128
"""Side of the crops that features are made from, and the number of features."""
GRAMMAR = Grammar(SHAPES, tuple(RGB), tuple(RADII), ("left of", "right of", "above", "below"))
IMAGES = {"trn": 600, "val": 40, "tst": 40}

Shape = tuple[Thing, Box]


def write_shapes(folder: Path, images: Mapping[str, int] | None = None, regions: int = 6, seed: int = 0) -> None:
    """Write trn, val, val_sub (half of val) and tst into `folder` in EGA's layout.

    Raises `ConfigError` as `check_shapes`.
    """
    check_shapes(images, regions, seed)
    counts = dict(IMAGES if images is None else images)
    sets: dict[str, list[GraphImage]] = {}
    first = 1
    for name in ("trn", "val", "tst"):
        place = "train2014" if name == "trn" else "val2014"
        sets[name] = [
            draw_image(purpose_seed(seed, "shapes", name, index), image_id(place, first + index), regions)
            for index in range(counts[name])
        ]
        first = first + counts[name] if name == "val" else 1
    sets["val_sub"] = sets["val"][: -(-counts["val"] // 2)]
    write_layout(folder, sets, GRAMMAR, embed_pixels, CROP, {"dataset": "shapes", "seed": seed, "images": counts})


def check_shapes(images: Mapping[str, int] | None, regions: int, seed: int) -> None:
    """Raise `ConfigError` for other sets than trn, val and tst, for no image, for no region and for a seed below 0."""
    if images is not None and (set(images) != set(IMAGES) or min(images.values()) < 1):
        raise ConfigError(f"graphs.images: {dict(images)}; expected 1 or more for each of {', '.join(IMAGES)}")
    if regions < 1:
        raise ConfigError(f"graphs.regions: {regions}; expected 1 or more an image")
    if seed < 0:
        raise ConfigError(f"graphs.seed: {seed}; expected 0 or more")


def draw_image(seed: int, id_: str, regions: int) -> GraphImage:
    """One image with one of each shape and up to `regions` graphs whose captions differ."""
    rng = np.random.default_rng(seed)
    rgb, shapes = _paint(rng)
    told: dict[str, Told] = {}
    for _ in range(20 * regions):
        if len(told) == regions:
            break
        graph = _draw_graph(rng, shapes)
        if sum(graph.said.counts()) > MOST_NODES:
            continue
        told.setdefault(GRAMMAR.say(graph.said), graph)
    return GraphImage(id_, rgb, tuple(told.values()))


def relation_of(first: Box, second: Box) -> str | None:
    """Where the first box is, seen from the second, along the axis on which they differ clearly more; None without."""
    across = (first[0] + first[2] - second[0] - second[2]) / 2
    down = (first[1] + first[3] - second[1] - second[3]) / 2
    if abs(across) >= abs(down) + MARGIN:
        return "left of" if across < 0 else "right of"
    if abs(down) >= abs(across) + MARGIN:
        return "above" if down < 0 else "below"
    return None


def embed_pixels(crops: np.ndarray) -> np.ndarray:
    """A fixed random layer on the pixels of crops `[N, 8, 8, 3]`: `[N, 128]`, 0 or more as after a ReLU."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(CROP * CROP * 3, VECTOR)) / CROP
    pixels = crops.reshape(len(crops), -1) / 127.5 - 1
    vectors: np.ndarray = np.maximum(pixels @ weights, 0)
    return vectors


def _paint(rng: np.random.Generator) -> tuple[np.ndarray, list[Shape]]:
    """An image of all three shapes, none near another, on noisy grey."""
    noise = rng.integers(-12, 13, (SIZE, SIZE, 1))
    rgb = np.repeat(np.clip(128 + noise, 0, 255), 3, axis=2).astype(np.uint8)
    colours, sizes = rng.choice(list(RGB), len(SHAPES)).tolist(), rng.choice(list(RADII), len(SHAPES)).tolist()
    boxes = _place(rng, [int(rng.integers(*RADII[size], endpoint=True)) for size in sizes])
    for name, colour, box in zip(SHAPES, colours, boxes, strict=True):
        rgb[_mask(name, box)] = RGB[colour]
    things = [Thing(name, (colour, size)) for name, colour, size in zip(SHAPES, colours, sizes, strict=True)]
    return rgb, list(zip(things, boxes, strict=True))


def _place(rng: np.random.Generator, radii: list[int]) -> list[Box]:
    """Boxes of these radii, none near another; all are drawn anew until they fit, which three of 27 pixels can."""
    while True:
        corners = [rng.integers(1, SIZE - 2 * radius - 1, 2).tolist() for radius in radii]
        boxes = [(x, y, x + 2 * r + 1, y + 2 * r + 1) for (x, y), r in zip(corners, radii, strict=True)]
        if not any(_near(one, other) for one, other in combinations(boxes, 2)):
            return boxes


def _near(one: Box, other: Box) -> bool:
    return all(one[axis] < other[axis + 2] + GAP and other[axis] < one[axis + 2] + GAP for axis in (0, 1))


def _mask(name: str, box: Box) -> np.ndarray:
    radius = (box[2] - box[0]) // 2
    x, y = box[0] + radius, box[1] + radius
    rows, columns = np.mgrid[:SIZE, :SIZE]
    across, down = np.abs(columns - x), rows - y
    inside: np.ndarray = (across <= radius) & (np.abs(down) <= radius)
    if name == "circle":
        inside &= across**2 + down**2 <= (radius + 0.3) ** 2
    if name == "triangle":
        inside &= 2 * across <= down + radius
    return inside


def _draw_graph(rng: np.random.Generator, shapes: list[Shape]) -> Told:
    """A chain of one to three shapes with none, the first or both of their attributes, related where that is clear."""
    order = rng.permutation(len(shapes))[: int(rng.choice([1, 2, 3], p=[0.25, 0.5, 0.25]))].tolist()
    levels = rng.integers(0, 3, len(order)).tolist()
    chosen = [shapes[index] for index in order]
    relations: list[Relation] = []
    for index in range(1, len(chosen)):
        word = relation_of(chosen[index - 1][1], chosen[index][1])
        if word is not None:
            relations.append((index - 1, word, index))
    things = tuple(
        Thing(thing.name, thing.attributes[:level]) for (thing, _), level in zip(chosen, levels, strict=True)
    )
    return Told(Said(things, tuple(relations)), tuple(box for _, box in chosen))
