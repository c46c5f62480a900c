"""A scene graph over its image, and beside it the graph alone: what a captioner is asked to say."""

from collections import Counter
from collections.abc import Iterator
from math import hypot

import numpy as np
from PIL import Image, ImageDraw

from aaca.data.scenegraph.graph import SceneGraph
from aaca.evaluate.graph_labels import (
    FINE,
    HEAD,
    HIGH,
    LINE,
    TEXT,
    Labels,
    Point,
    Rect,
    arrow,
    cut,
    font,
    middle_of,
    rectangle,
)
from aaca.evaluate.style import LIGHT

SIDE = 480 * FINE  # of the image panel; images of up to a quarter of it grow by a whole factor
ROW = 34 * FINE  # from node to node in a column
WIDEST = 170 * FINE  # of a node's text
GAP = 84 * FINE  # between columns, for arrows
MARGIN = 16 * FINE  # around and between the panels
COLOURS = ("#0072b2", "#c24f00", "#007a5a", "#9c3d83", "#7a5c00", "#3f51b5", "#b02a37", "#4f5a6b")
"""One an object in turn, each dark enough for white letters (after Okabe & Ito 2008)."""


def draw_graph(image: np.ndarray, graph: SceneGraph) -> Image.Image:
    """The graph of an image uint8 `[H, W, 3]` in two panels under its phrase; objects are numbered in list order.

    Left: boxes with names and attributes, and for every relationship an arrow from the middle of the subject's box to
    that of the object's. Right: attributes, objects and relationships as nodes with arrows between them. A graph with
    `problems` is drawn as far as it goes: a relationship to an unknown object is a node without an arrow to it.
    """
    left, right = _scene(image, graph), _abstract(graph)
    heading = HIGH + MARGIN // 2 if graph.phrase else 0
    width, height = left.width + right.width + 3 * MARGIN, max(left.height, right.height)
    picture = Image.new("RGB", (width, height + heading + 2 * MARGIN), LIGHT.paper)
    for panel, x in ((left, MARGIN), (right, left.width + 2 * MARGIN)):
        picture.paste(panel, (x, MARGIN + heading + (height - panel.height) // 2))
    words = cut(graph.phrase, width - 2 * MARGIN)
    ImageDraw.Draw(picture).text((MARGIN, MARGIN), words, fill=LIGHT.ink, font=font())
    return picture.reduce(FINE)


def _scene(image: np.ndarray, graph: SceneGraph) -> Image.Image:
    """The image enlarged, under boxes, arrows and, on top, labels."""
    picture, scale = _enlarged(image)
    labels = Labels(picture)
    boxes = []
    for k, thing in enumerate(graph.objects):
        x, y, w, h = thing.box
        corners = (x * scale, y * scale, (x + max(w, 1)) * scale - 1, (y + max(h, 1)) * scale - 1)
        left, top, right, bottom = (float(min(max(side, 0), picture.size[n % 2] - 1)) for n, side in enumerate(corners))
        boxes.append((left, top, right, bottom))
        labels.draw.rectangle(boxes[k], outline="white", width=2 * LINE)
        labels.draw.rectangle(boxes[k], outline=_colour(k), width=LINE)
    names = [thing.id for thing in graph.objects]
    arrows = list(_arrows(graph, {name: middle_of(box) for name, box in zip(names, boxes, strict=True)}))
    for start, end, _ in arrows:
        arrow(labels.draw, start, end, LIGHT.ink, halo=True)
    for k, box in enumerate(boxes):
        labels.dot(middle_of(box), _colour(k))
    for k, (thing, (left, top, right, bottom)) in enumerate(zip(graph.objects, boxes, strict=True)):
        text = f"{k + 1} {thing.name}" + ": " * bool(thing.attributes) + ", ".join(thing.attributes)
        middle, off = (left + right) / 2, HIGH / 2
        labels.put(text, _colour(k), "white", [(middle, y) for y in (top - off, bottom + off, top + off, bottom - off)])
    for (x1, y1), (x2, y2), name in arrows:
        shares = (0.5, 0.4, 0.6, 0.3, 0.7)
        labels.put(name, "white", LIGHT.ink, [(x1 + (x2 - x1) * t, y1 + (y2 - y1) * t) for t in shares])
    return picture


def _enlarged(image: np.ndarray) -> tuple[Image.Image, float]:
    picture = Image.fromarray(image).convert("RGB")
    longest = max(picture.size)
    whole = longest <= SIDE // 4
    scale = SIDE // longest if whole else SIDE / longest
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.NEAREST if whole else Image.Resampling.LANCZOS), scale


def _arrows(graph: SceneGraph, middles: dict[int, Point]) -> Iterator[tuple[Point, Point, str]]:
    """Start, end and name of each relationship between known objects; those of the same two run side by side."""
    number = {thing.id: k + 1 for k, thing in enumerate(graph.objects)}
    seen: Counter[tuple[int, int]] = Counter()
    for it in graph.relationships:
        if it.subject not in middles or it.object not in middles:
            continue
        (x1, y1), (x2, y2) = middles[it.subject], middles[it.object]
        length = hypot(x2 - x1, y2 - y1)
        name = it.name
        if length < font().getlength(name) + 3 * HEAD:  # too short for its direction to be seen beside the label
            name = f"{number[it.subject]} {name} {number[it.object]}"
        # to the right of its own direction, so that there and back do not meet
        aside = HEAD * (0.5 + seen[it.subject, it.object]) / max(length, 1)
        dx, dy = (y1 - y2) * aside, (x2 - x1) * aside
        seen[it.subject, it.object] += 1
        yield (x1 + dx, y1 + dy), (x2 + dx, y2 + dy), name


def _abstract(graph: SceneGraph) -> Image.Image:
    """Three columns: attributes, their objects, relationships at the height of what they join."""
    owners = [k for k, thing in enumerate(graph.objects) for _ in thing.attributes]
    columns: dict[str, list[tuple[str, str, str, str]]] = {  # of each node: text, fill, edge, ink
        "attributes": [
            (word, LIGHT.paper, _colour(k), LIGHT.ink)
            for k, thing in enumerate(graph.objects)
            for word in thing.attributes
        ],
        "objects": [
            (f"{k + 1} {thing.name}", _colour(k), _colour(k), "white") for k, thing in enumerate(graph.objects)
        ],
        "relationships": [(it.name, LIGHT.grid, LIGHT.muted, LIGHT.ink) for it in graph.relationships],
    }
    wide = [
        max(font().getlength(cut(text, WIDEST)) for text in (f"no {title}", *(node[0] for node in column))) + TEXT
        for title, column in columns.items()
    ]
    across = [wide[0] / 2, wide[0] + GAP + wide[1] / 2, wide[0] + wide[1] + 2 * GAP + wide[2] / 2]
    rows = _rows(graph)
    lowest = min((row for column in rows for row in column), default=0.0)
    places = [
        [rectangle((x, HIGH + ROW * (row - lowest + 0.7)), width, HIGH) for row in column]
        for x, width, column in zip(across, wide, rows, strict=True)
    ]
    bottom = max((place[3] for column in places for place in column), default=HIGH + ROW)
    panel = Image.new("RGB", (round(sum(wide) + 2 * GAP) + 1, round(bottom) + LINE), LIGHT.paper)
    draw = ImageDraw.Draw(panel)
    for k, place in zip(owners, places[0], strict=True):
        (_, y1), (_, y2) = middle_of(place), middle_of(places[1][k])
        # ends spread over half of the object's height, in the order of the attributes
        y2 += max(-HIGH / 4, min(HIGH / 4, (y1 - y2) / 8))
        arrow(draw, (place[2], y1), (places[1][k][0], y2), _colour(k), both=True)
    for start, end in _joints(graph, places[1], places[2]):
        arrow(draw, start, end, LIGHT.muted)
    for x, (title, nodes), spots in zip(across, columns.items(), places, strict=True):
        heading = title if nodes else f"no {title}"
        draw.text((x, HIGH / 2), heading, fill=LIGHT.muted, font=font(), anchor="mm")
        for place, (text, fill, edge, ink) in zip(spots, nodes, strict=True):
            draw.rounded_rectangle(place, HIGH / 3, fill=fill, outline=edge, width=LINE)
            draw.text(middle_of(place), cut(text, WIDEST), fill=ink, font=font(), anchor="mm")
    return panel


def _rows(graph: SceneGraph) -> tuple[list[float], list[float], list[float]]:
    """The heights, in rows, of the attributes, the objects and the relationships, each in the graph's order."""
    attributes: list[float] = []
    objects: list[float] = []
    at: dict[int, float] = {}
    row = 0.0
    for thing in graph.objects:
        count = max(1, len(thing.attributes))
        attributes += [row + k for k in range(len(thing.attributes))]
        objects.append(row + (count - 1) / 2)
        at.setdefault(thing.id, objects[-1])
        row += count + 0.3
    wished = [
        float(np.mean([at[end] for end in (it.subject, it.object) if end in at] or [row])) for it in graph.relationships
    ]
    order = np.argsort(wished, kind="stable")
    related = np.zeros(len(wished))
    for before, here in zip((None, *order), order, strict=False):
        related[here] = wished[here] if before is None else max(wished[here], related[before] + 1)
    if wished:
        related += np.mean(wished) - related.mean()  # pushed apart evenly, not downwards alone
    return attributes, objects, related.tolist()


def _joints(graph: SceneGraph, objects: list[Rect], related: list[Rect]) -> Iterator[tuple[Point, Point]]:
    """The arrows subject to relationship to object, their ends on a node spread so that few cross."""
    first: dict[int, int] = {}
    for k, thing in enumerate(graph.objects):
        first.setdefault(thing.id, k)
    ends = [
        (first[end], r, part)
        for r, it in enumerate(graph.relationships)
        for part, end in enumerate((it.subject, it.object))
        if end in first
    ]
    for k, r, part in ends:
        at_object = sorted((related[other][1], side, other) for own, other, side in ends if own == k)
        at_relation = sorted((objects[own][1], side) for own, other, side in ends if other == r)
        here = (objects[k][2], _port(objects[k], at_object.index((related[r][1], part, r)), len(at_object)))
        there = (related[r][0], _port(related[r], at_relation.index((objects[k][1], part)), len(at_relation)))
        yield (here, there) if part == 0 else (there, here)


def _port(place: Rect, index: int, count: int) -> float:
    return place[1] + HIGH * (index + 1) / (count + 1)


def _colour(k: int) -> str:
    return COLOURS[k % len(COLOURS)]
