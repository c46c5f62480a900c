"""What each word of a caption hangs on: scores of words × nodes as a table of colours, under the graph's picture."""

from collections.abc import Sequence
from math import floor, log10

import numpy as np
from PIL import Image, ImageColor, ImageDraw

from aaca.data.scenegraph.graph import SceneGraph
from aaca.data.scenegraph.nodes import ATTRIBUTE, OBJECT, Nodes
from aaca.evaluate.graph_labels import FINE, HIGH, LINE, TEXT, Rect, cut, font, middle_of
from aaca.evaluate.graph_picture import COLOURS, MARGIN, draw_graph
from aaca.evaluate.style import LIGHT

CELL = 26 * FINE  # height of a row
NARROWEST, WIDEST = 58 * FINE, 130 * FINE  # of a column
PALE = 0.55  # share of full colour from which letters are white

Named = tuple[int, int, int]
"""A node, and the words from … to (without) that name it."""


def draw_attribution(
    image: np.ndarray | None,
    graph: SceneGraph,
    nodes: Nodes,
    words: Sequence[str],
    scores: np.ndarray,
    named: Sequence[Named],
    method: str,
) -> Image.Image:
    """Scores `[T, N]` of the N `nodes` of a graph for T words; above it, where there is an image, `draw_graph`.

    Blue speaks for the word and orange against it; the strongest colour is the largest |score| of the table. Framed are
    the nodes that words name. Columns have the numbers and colours of the objects in the graph's picture.
    """
    table = _table(graph, nodes, words, scores, named, method)
    if image is None:
        return table
    above = draw_graph(image, graph)
    picture = Image.new("RGB", (max(above.width, table.width), above.height + table.height), LIGHT.paper)
    picture.paste(above, (0, 0))
    picture.paste(table, (0, above.height))
    return picture


def _table(
    graph: SceneGraph, nodes: Nodes, words: Sequence[str], scores: np.ndarray, named: Sequence[Named], method: str
) -> Image.Image:
    heads = _heads(graph, nodes)
    largest = float(np.abs(scores).max(initial=0.0))
    told = f"{method}: blue for a word, orange against it, full colour at {largest:.3g}; framed: the node named"
    label = max([font().getlength(cut(word, WIDEST)) for word in words], default=0.0) + TEXT
    across = [min(WIDEST, max(NARROWEST, font().getlength(text) + TEXT)) for text, *_ in heads]
    lefts = MARGIN + label + np.concatenate([[0.0], np.cumsum(across)])
    top = MARGIN / 2 + HIGH + 2 * LINE
    width = max(lefts[-1], MARGIN + font().getlength(told)) + MARGIN
    table = Image.new("RGB", (round(width), round(top + CELL * len(words) + 1.5 * HIGH + MARGIN)), LIGHT.paper)
    draw = ImageDraw.Draw(table)

    def place(column: int, first: int, last: int) -> Rect:
        return float(lefts[column]), top + CELL * first, float(lefts[column + 1]), top + CELL * last

    for column, (text, fill, edge, ink) in enumerate(heads):
        pill = (lefts[column] + LINE, MARGIN / 2, lefts[column + 1] - LINE, MARGIN / 2 + HIGH)
        draw.rounded_rectangle(pill, HIGH / 3, fill=fill, outline=edge, width=LINE)
        draw.text(middle_of(pill), cut(text, WIDEST - TEXT), fill=ink, font=font(), anchor="mm")
    digits = min(3, max(0, 1 - floor(log10(largest)))) if largest else 0  # two of the largest score's
    for row, word in enumerate(words):
        right = (MARGIN + label - TEXT / 2, top + CELL * (row + 0.5))
        draw.text(right, cut(word, WIDEST), fill=LIGHT.ink, font=font(), anchor="rm")
        for column, score in enumerate(scores[row].tolist()):
            strength = abs(score) / largest if largest else 0.0
            cell = place(column, row, row + 1)
            draw.rectangle(cell, fill=_mixed(LIGHT.good if score > 0 else LIGHT.bad, strength), outline=LIGHT.grid)
            ink = "white" if strength > PALE else LIGHT.ink
            text = f"{round(score, digits) + 0.0:.{digits}f}"  # + 0.0: no negative zero
            draw.text(middle_of(cell), text, fill=ink, font=font(), anchor="mm")
    for node, start, end in named:
        draw.rectangle(place(node, start, end), outline=LIGHT.ink, width=LINE + FINE)
    foot = (MARGIN, top + CELL * len(words) + HIGH)
    draw.text(foot, told, fill=LIGHT.muted, font=font(), anchor="lm")
    return table.reduce(FINE)


def _heads(graph: SceneGraph, nodes: Nodes) -> list[tuple[str, str, str, str]]:
    """Of each node: text, fill, edge, ink, as the graph's picture has them."""
    number: dict[int, int] = {}
    for k, thing in enumerate(graph.objects):
        number.setdefault(thing.id, k)
    heads = []
    for kind, name, (_, owner, _) in zip(nodes.types.tolist(), nodes.names, nodes.owners, strict=True):
        if kind == OBJECT:
            colour = COLOURS[number[owner] % len(COLOURS)]
            heads.append((f"{number[owner] + 1} {name}", colour, colour, "white"))
        elif kind == ATTRIBUTE:
            heads.append((name, LIGHT.paper, COLOURS[number[owner] % len(COLOURS)], LIGHT.ink))
        else:
            heads.append((name, LIGHT.grid, LIGHT.muted, LIGHT.ink))
    return heads


def _mixed(colour: str, share: float) -> tuple[int, int, int]:
    one, two = (np.array(ImageColor.getrgb(name)[:3], dtype=np.float64) for name in (LIGHT.paper, colour))
    red, green, blue = (one + (two - one) * share).round().astype(int).tolist()
    return red, green, blue
