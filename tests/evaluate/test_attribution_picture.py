"""Words × nodes in colours, under the graph's picture."""

import numpy as np
import pytest
from PIL import Image, ImageColor

from aaca.data.scenegraph.graph import SceneGraph
from aaca.data.scenegraph.nodes import nodes_of
from aaca.evaluate import graph_labels
from aaca.evaluate.attribution_picture import CELL, draw_attribution
from aaca.evaluate.graph_labels import FINE
from aaca.evaluate.graph_picture import COLOURS, draw_graph
from aaca.evaluate.style import LIGHT
from tests.data.scene_graph_toys import rider

GREY = np.full((48, 64, 3), 128, dtype=np.uint8)
GRAPH = rider()
NODES = nodes_of(GRAPH)
WORDS = GRAPH.phrase.split()
N = len(NODES)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[float, ...]]]:
    """Every text of the table with its anchor's place, and under "" the frames of named nodes."""
    found: list[tuple[str, tuple[float, ...]]] = []
    draw = graph_labels.ImageDraw.ImageDraw
    text, rectangle = draw.text, draw.rectangle

    def write(self, xy, words, **options):
        found.append((words, tuple(xy)))
        text(self, xy, words, **options)

    def frame(self, xy, **options):
        if "fill" not in options and options.get("outline") == LIGHT.ink:
            found.append(("", tuple(xy)))
        rectangle(self, xy, **options)

    monkeypatch.setattr(draw, "text", write)
    monkeypatch.setattr(draw, "rectangle", frame)
    return found


def table(scores: np.ndarray, named=(), words=WORDS) -> Image.Image:
    return draw_attribution(None, GRAPH, NODES, words, scores, named, "occlusion")


def test_rows_are_words_and_columns_are_nodes_as_the_graph_s_picture_numbers_them(drawn):
    table(np.arange(len(WORDS) * N, dtype=float).reshape(len(WORDS), N))
    texts = [words for words, _ in drawn]
    numbered = iter(range(1, 9))
    assert texts[:N] == [
        f"{next(numbered)} {name}" if kind == 0 else name for kind, name in zip(NODES.types, NODES.names, strict=True)
    ]
    cells = texts[N:-1]
    assert [cells[row * (N + 1)] for row in range(len(WORDS))] == WORDS
    assert [cells[k] for k in range(len(cells)) if k % (N + 1)] == [str(k) for k in range(len(WORDS) * N)]
    assert texts[-1].startswith("occlusion: ") and f"full colour at {len(WORDS) * N - 1}" in texts[-1]


def test_blue_speaks_for_a_word_orange_against_it_and_the_largest_score_is_full(drawn):
    scores = np.zeros((len(WORDS), N))
    scores[0, 0], scores[1, 2], scores[2, 1] = 0.5, -0.5, 0.25
    picture = np.asarray(table(scores))
    at = {words: place for words, place in drawn}
    places = {words: [place for told, place in drawn if told == words] for words in at}

    def colour(place: tuple[float, ...]) -> np.ndarray:
        x, y = place[0] / FINE, place[1] / FINE - CELL / FINE / 2 + 4  # above the letters
        return picture[round(y), round(x)].astype(int)

    full, against = (np.array(ImageColor.getrgb(name)) for name in (LIGHT.good, LIGHT.bad))
    assert np.abs(colour(places["0.50"][0]) - full).max() < 4
    assert np.abs(colour(places["-0.50"][0]) - against).max() < 4
    assert np.abs(colour(places["0.25"][0]) - (full + 255) / 2).max() < 4
    assert (colour(places["0.00"][0]) == 255).all()


def test_frames_are_around_the_words_that_name_a_node(drawn):
    table(np.ones((len(WORDS), N)), [(2, 1, 4)])
    ((left, top, right, bottom),) = [place for words, place in drawn if not words]
    heads = [place for _, place in drawn[:N]]
    rows = {row: drawn[N + row * (N + 1)][1][1] for row in range(len(WORDS))}
    assert left < heads[2][0] < right and heads[1][0] < left and right < heads[3][0]
    assert rows[0] < top < rows[1] and rows[3] < bottom < rows[4]


def test_the_graph_s_picture_is_above_where_there_is_an_image():
    scores = np.random.default_rng(0).normal(size=(len(WORDS), N))
    above, below = draw_graph(GREY, GRAPH), table(scores)
    both = draw_attribution(GREY, GRAPH, NODES, WORDS, scores, [], "occlusion")
    assert both.size == (max(above.width, below.width), above.height + below.height)
    assert both.crop((0, 0, *above.size)).tobytes() == above.tobytes()
    assert both.crop((0, above.height, below.width, both.height)).tobytes() == below.tobytes()
    assert ImageColor.getrgb(COLOURS[1]) in {rgb for _, rgb in below.getcolors(1 << 16)}


@pytest.mark.parametrize("largest", [0.0, 1e-9, 0.00071, 12345.6])
def test_any_size_of_score_can_be_drawn(largest, drawn):
    table(np.full((len(WORDS), N), -largest))
    texts = {words for words, _ in drawn}
    assert {0.0: "0", 1e-9: "0.000", 0.00071: "-0.001", 12345.6: "-12346"}[largest] in texts and "-0.000" not in texts


def test_a_caption_without_words_and_a_graph_without_nodes_are_empty_tables():
    assert table(np.zeros((0, N)), words=[]).width > 100
    empty = SceneGraph((), (), "")
    assert draw_attribution(None, empty, nodes_of(empty), ["a"], np.zeros((1, 0)), [], "attention").width > 100
