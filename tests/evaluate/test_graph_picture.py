import numpy as np
import pytest
from PIL import Image, ImageColor

from aaca.data.scenegraph.edits import reverse_relationship, strip_attributes
from aaca.data.scenegraph.graph import SceneGraph
from aaca.evaluate import graph_labels
from aaca.evaluate.graph_labels import HIGH, Labels, Rect, cut, font
from aaca.evaluate.graph_picture import COLOURS, draw_graph
from tests.data.scene_graph_toys import random_graph, region, rider

GREY = np.full((48, 64, 3), 128, dtype=np.uint8)


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Rect]]:
    """Every text that is drawn, with the rectangle its letters fill."""
    drawn: list[tuple[str, Rect]] = []
    plain = graph_labels.ImageDraw.ImageDraw.text

    def text(self, xy, text, **options):
        drawn.append((text, self.textbbox(xy, text, font=options["font"], anchor=options.get("anchor"))))
        plain(self, xy, text, **options)

    monkeypatch.setattr(graph_labels.ImageDraw.ImageDraw, "text", text)
    return drawn


def shared(one: Rect, two: Rect) -> bool:
    return min(one[2], two[2]) > max(one[0], two[0]) and min(one[3], two[3]) > max(one[1], two[1])


def test_all_names_are_written_in_both_panels(texts: list) -> None:
    draw_graph(GREY, rider())
    words = [word for word, _ in texts]
    over = ["1 man: young, tall", "2 Horse: brown", "3 field", "4 bird: small", "ride", "stand in"]
    abstract = ["1 man", "2 Horse", "3 field", "4 bird", "young", "tall", "brown", "small", "ride", "stand in"]
    titles = ["attributes", "objects", "relationships"]
    assert sorted(words) == sorted([*over, *abstract, *titles, rider().phrase])


@pytest.mark.parametrize("seed", range(12))
def test_no_two_texts_of_a_panel_overlap(seed: int, texts: list) -> None:
    graph = random_graph(np.random.default_rng(seed), objects=5, related=5)
    draw_graph(GREY, graph)
    # the panels are drawn one after the other, each on a picture of its own
    count = graph.counts()
    panels = texts[: count.objects + count.relationships], texts[count.objects + count.relationships : -1]
    assert len(panels[1]) == count.total + 3
    for panel in panels:
        for k, (word, place) in enumerate(panel):
            assert not [other for other, spot in panel[:k] if shared(place, spot)], word


def test_boxes_lie_where_the_objects_are() -> None:
    picture = np.asarray(draw_graph(GREY, region((1, "cup", (), (10, 20, 30, 16)))))
    colour = np.array(ImageColor.getrgb(COLOURS[0]))
    # the panel starts at 16, 64 pixels make 480: 7.5 each; the two pixels of the edge have the object's colour
    left, top, right, bottom = (16 + round(7.5 * side) for side in (10, 20, 40, 36))
    for y, x in ((top + 60, left), (top + 60, right - 1), (bottom - 1, left + 20), (top, left + 3)):
        assert np.abs(picture[y, x] - colour.astype(int)).max() < 40, (y, x)
    assert (picture[top + 60, left + 30] == 128).all() and (picture[top + 60, left - 3] == 128).all()


def test_small_images_grow_by_a_whole_factor_and_large_ones_shrink() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    picture = np.asarray(draw_graph(noise, region()))
    half = picture[16 : 16 + 480, 16 : 16 + 480]
    np.testing.assert_allclose(half[4::15, 4::15][:32, :32], noise[::2, ::2], atol=0)
    assert draw_graph(np.zeros((1500, 3000, 3), np.uint8), region()).width == draw_graph(noise, region()).width
    assert draw_graph(np.zeros((3, 2, 3), np.uint8), rider()).width > 480


def test_the_picture_is_a_function_of_the_graph() -> None:
    plain, again = draw_graph(GREY, rider()), draw_graph(GREY, rider())
    assert plain.mode == "RGB" and plain.tobytes() == again.tobytes()
    others = (reverse_relationship(rider(), 0), strip_attributes(rider()))
    assert all(draw_graph(GREY, other).tobytes() != plain.tobytes() for other in others)
    assert (GREY == 128).all()


def test_an_arrows_head_is_at_the_object() -> None:
    things = ((1, "a", (), (4, 20, 8, 8)), (2, "b", (), (52, 20, 8, 8)))
    pictures = [draw_graph(GREY, region(*things, joins=(join,))) for join in ((1, 2, "to"), (2, 1, "to"))]

    def dark(picture: Image.Image, x: int) -> int:
        """Dark pixels across the line, this far into the image."""
        column = np.asarray(picture)[16:376, 16 + x].astype(int)
        return int((column.max(1) < 70).sum())

    near_a, near_b = round(7.5 * 8) + 8, round(7.5 * 56) - 8
    assert dark(pictures[0], near_b) > dark(pictures[0], near_a) > 0
    assert dark(pictures[1], near_a) > dark(pictures[1], near_b) > 0


@pytest.mark.parametrize(
    "graph",
    [
        region(),
        region((1, "cup", (), (0, 0, 1, 1)), (1, "cup", (), (5, 5, 0, -3))),
        region((1, "cup", (), (-20, -30, 2**20, 9)), (2, "far", (), (900, 900, 5, 5)), joins=((1, 2, "on"),)),
        region((1, "cup", (), (0, 0, 64, 48)), joins=((1, 9, "on"), (8, 9, "by"), (1, 1, "in"))),
        region((1, "a\nb" * 90, ("x" * 300,), (0, 0, 64, 48)), joins=((1, 1, "‮" * 50),), phrase="word " * 90),
        region((1, "", ("",), (0, 0, 64, 48)), joins=((1, 1, ""),)),
    ],
)
def test_graphs_with_problems_are_drawn_too(graph: SceneGraph, texts: list) -> None:
    picture = draw_graph(GREY, graph)
    assert picture.width > 480
    for word, (left, _, right, _) in texts:
        assert left >= 0 and right <= 2 * picture.width and word.isprintable()


def test_empty_columns_say_so(texts: list) -> None:
    draw_graph(GREY, region())
    assert [word for word, _ in texts] == ["no attributes", "no objects", "no relationships", ""]


def test_relationships_too_short_for_an_arrow_name_their_ends(texts: list) -> None:
    box = (20, 10, 9, 9)
    draw_graph(GREY, region((4, "play", (), box), (2, "field", (), box), joins=((2, 4, "in"), (2, 2, "near"))))
    assert {"2 in 1", "2 near 2"} <= {word for word, _ in texts}


def test_labels_take_the_place_that_covers_least() -> None:
    labels = Labels(Image.new("RGB", (400, 2 * HIGH + 2)))
    for _ in range(3):
        labels.put("a" * 30, "white", "black", [(200, HIGH / 2)])
    first, second, third = labels.taken
    assert not shared(first, second)
    assert shared(third, first) or shared(third, second)  # no room is left


def test_texts_are_cut_to_fit() -> None:
    assert cut("short", 500) == "short"
    long = cut("a rather long name of a thing", 150)
    assert long.endswith("…") and font().getlength(long) <= 150 < font().getlength(long[:-1] + "ther")
    assert cut("two\nlines", 500) == "two lines"
