"""Scenes with two things and what they show, read off the pixels: the graphs behind the embedded captioning data.

Every scene is painted by the renderer of the embedded benchmark. Nothing is said of it that cannot be seen: a colour
has to be that of half of a thing's visible pixels and of its cut-out, and no other than people called it; a size is
read off its box, a relation off two boxes. A size is only named after a colour, so that the first attribute of an
object is always its colour.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from aaca.runtime.errors import DataError
from aaca.world.bugs import pick
from aaca.world.colours import CLEAR, colour_of, colour_word
from aaca.world.language import MASS_NOUNS, attributes
from aaca.world.pack import Kind, Piece, load_pack
from aaca.world.phrases import Grammar, Reading, Thing
from aaca.world.render import LAYERS, Box, Rendered, render
from aaca.world.scenes import Placed, SceneSpec, Sources, draw_spec, stream

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "grey")
SMALL, LARGE = (0.22, 0.30), (0.42, 0.50)
"""Longer side of a thing as a share of the image's width: a thing is drawn in one of these ranges."""
SMALL_BELOW, LARGE_FROM = 0.335, 0.385
"""A visible box's longer side up to the first reads as small, from the second on as large, between them as neither."""
ASIDE, DEEPER = 0.2, 0.12
"""The least that two box centres differ across, and two feet in depth, for a relation; shares of the image."""
HIDDEN = 0.3
"""The most of the smaller box that the other box may cover."""
OPAQUE = 200
"""A pixel tells a thing's colour when the thing covers at least this much of it (of 255)."""
TRIES = 2000
DEEP = 0.35  # share of the scenes whose things stand one behind the other

Pairing = Literal["left of", "right of", "in front of", "behind"]
PAIRINGS: tuple[Pairing, ...] = ("left of", "right of", "in front of", "behind")


def grammar() -> Grammar:
    """The grammar of the captions of these scenes."""
    pack = load_pack()
    nouns = (*pack.labels("object"), *pack.labels("concept"))
    mass = tuple(noun for noun in nouns if noun in MASS_NOUNS)
    return Grammar(nouns, COLOURS, ("small", "large"), PAIRINGS, pack.labels("scene"), mass)


def parse(caption: str) -> Reading:
    """What a caption says, by `grammar`: things, attributes, relations and the words that fit nowhere."""
    return grammar().read(caption)


@dataclass(frozen=True)
class SeenThing:
    """A thing of a scene: its noun, what can be seen of it, the box of its visible pixels (right, bottom exclusive)."""

    name: str
    colour: str | None
    size: str | None
    box: Box

    def at(self, level: int) -> Thing:
        """The thing with its first `level` attributes, as far as it has them."""
        seen = () if self.colour is None else (self.colour, *((self.size,) if self.size else ()))
        return Thing(self.name, seen[:level])


@dataclass(frozen=True)
class SeenScene:
    """What an image shows: two things, the ground, and where the first stands as seen from the second."""

    spec: SceneSpec
    rendered: Rendered
    things: tuple[SeenThing, SeenThing]
    ground: SeenThing
    pairing: Pairing


def draw_scene(
    seed: int,
    split: str,
    index: int,
    size: int,
    sources: Sources = "train",
    wanted: Callable[[str, str, str], bool] | None = None,
) -> SeenScene:
    """Scene `index` of a split, `size` pixels a side: a class's cut-out and another thing, clearly apart.

    The first thing is one of the benchmark's classes, the second any other noun. What is not `wanted` (given both
    nouns and the ground's) or cannot be told (too much hidden, no clear relation) is drawn anew from the same stream,
    so that a scene depends on its arguments only. Raises `DataError` when nothing fits.
    """
    rng, pack = stream(seed, "graphs", split, sources, index), load_pack()
    for attempt in range(TRIES):
        cls = pick(rng.random(), pack.classes)
        base = draw_spec(seed, f"graphs/{split}/{index}", "balanced", cls, attempt, (), 0.0, sources)
        second = _draw_other(rng, cls, sources)
        if wanted is not None and not wanted(cls, second.label, base.scene):
            continue
        first, beside = _arrange(rng, base.object, replace(base.object, piece=second))
        spec = replace(base, object=first, concept=beside, horizon=min(base.horizon, 0.34))
        seen = look(spec, render(spec, size))
        if seen is not None:
            return seen
    raise DataError(f"graph scenes: none of {TRIES} scenes drawn for {split} {index} is wanted and can be told")


def _draw_other(rng: np.random.Generator, cls: str, sources: Sources) -> Piece:
    pack, u = load_pack(), rng.random(3).tolist()
    labels: list[tuple[Kind, str]] = [("object", label) for label in pack.labels("object") if label != cls]
    labels += [("concept", label) for label in pack.labels("concept")]
    kind, label = pick(u[0], labels)
    groups = pack.groups(kind, label, sources) or pack.groups(kind, label, "train")  # cars have no val source
    return pick(u[2], pick(u[1], groups))


def _arrange(rng: np.random.Generator, first: Placed, second: Placed) -> tuple[Placed, Placed]:
    """Both things with new places and sizes: beside each other, or one behind the other."""
    u = rng.random(14).tolist()
    sizes = [low + (high - low) * u[2 + i] for i, (low, high) in enumerate(SMALL if v < 0.5 else LARGE for v in u[:2])]
    deep, turned = u[4] < DEEP, -1 if u[5] < 0.5 else 1
    if deep:
        centres = [0.5 + turned * (0.02 + 0.08 * u[6]), 0.5 - turned * (0.02 + 0.08 * u[7])]
        feet = [0.60 + 0.06 * u[8], 0.90 + 0.07 * u[9]]
        feet = feet if u[12] < 0.5 else feet[::-1]
    else:
        centres = [0.5 + turned * (0.20 + 0.08 * u[6]), 0.5 - turned * (0.20 + 0.08 * u[7])]
        middle = 0.70 + 0.2 * u[12]
        feet = [middle + 0.08 * (u[8] - 0.5), middle + 0.08 * (u[9] - 0.5)]
    placed = [
        replace(thing, centre=centres[i], foot=feet[i], size=sizes[i], flip=u[10 + i] < 0.5)
        for i, thing in enumerate((first, second))
    ]
    return placed[0], placed[1]


def look(spec: SceneSpec, rendered: Rendered) -> SeenScene | None:
    """What an image of a scene with a co-object shows; None where a thing is too hidden or no relation is clear."""
    boxes, side = (rendered.boxes["object"], rendered.boxes["concept"]), len(rendered.rgb)
    ground = _ground_box(rendered)
    if spec.concept is None or boxes[0] is None or boxes[1] is None or ground is None:
        return None
    if _cover(boxes[0], boxes[1]) > HIDDEN:
        return None
    pairing = pairing_of(boxes[0], boxes[1], side)
    if pairing is None or (pairing in ("in front of", "behind") and not _in_order(spec, pairing)):
        return None
    placed = ((spec.object, "object", boxes[0]), (spec.concept, "concept", boxes[1]))
    things = [
        SeenThing(thing.piece.label, seen_colour(thing.piece, rendered, layer), seen_size(thing, box, side), box)
        for thing, layer, box in placed
    ]
    return SeenScene(spec, rendered, (things[0], things[1]), SeenThing(spec.scene, None, None, ground), pairing)


def pairing_of(first: Box, second: Box, side: int) -> Pairing | None:
    """Where the first box is, seen from the second, if both stand on one ground; None where that is unclear."""
    across = (first[0] + first[2] - second[0] - second[2]) / 2 / side
    deeper = (first[3] - second[3]) / side
    if abs(across) >= ASIDE:
        return "left of" if across < 0 else "right of"
    if abs(deeper) >= DEEPER:
        return "in front of" if deeper > 0 else "behind"
    return None


def dominant_colour(pixels: np.ndarray) -> tuple[str, float]:
    """The colour word of most of these pixels (uint8 `[n, 3]`, n ≥ 1) and the share of them that it has."""
    some = pixels[:: max(1, len(pixels) // 400)] / 255  # a few hundred pixels tell
    words, counts = np.unique([colour_word(*pixel) for pixel in some.tolist()], return_counts=True)
    best = int(counts.argmax())
    return str(words[best]), float(counts[best] / counts.sum())


def seen_colour(piece: Piece, rendered: Rendered, layer: str) -> str | None:
    """The colour of most of a thing's visible pixels, if its cut-out has the same; else None.

    None also where people called the cut-out by other colours only: a dim yellow flower is not brown.
    """
    pixels = rendered.rgb[rendered.masks[LAYERS.index(layer)] >= OPAQUE]
    if not len(pixels):
        return None
    word, share = dominant_colour(pixels)
    called = set(attributes(piece)) & set(COLOURS)
    return word if share >= CLEAR and word == colour_of(piece) and (not called or word in called) else None


def seen_size(placed: Placed, box: Box, side: int) -> str | None:
    """Small or large by the box of the visible pixels, if the thing was drawn as such; else None."""
    longer = max(box[2] - box[0], box[3] - box[1]) / side
    if longer <= SMALL_BELOW and placed.size <= SMALL[1]:
        return "small"
    return "large" if longer >= LARGE_FROM and placed.size >= LARGE[0] else None


def _in_order(spec: SceneSpec, pairing: Pairing) -> bool:
    """Whether the renderer painted the things in the order that their boxes tell."""
    assert spec.concept is not None
    return (spec.object.foot > spec.concept.foot) == (pairing == "in front of")


def _ground_box(rendered: Rendered) -> Box | None:
    seen = rendered.masks[LAYERS.index("ground")] >= OPAQUE
    columns, rows = np.flatnonzero(seen.any(axis=0)), np.flatnonzero(seen.any(axis=1))
    return None if not len(columns) else (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def _cover(first: Box, second: Box) -> float:
    """Share of the smaller box that the other covers."""
    across = min(first[2], second[2]) - max(first[0], second[0])
    down = min(first[3], second[3]) - max(first[1], second[1])
    areas: Sequence[int] = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return max(across, 0) * max(down, 0) / min(areas)
