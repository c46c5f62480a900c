"""The page of caption examples: every caption is on it, exactly the words that changed or are wrong are marked."""

from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from aaca.data.scenegraph.edits import drop_node, reverse_relationship
from aaca.data.scenegraph.graph import GraphObject, Relationship, SceneGraph
from aaca.evaluate.caption_page import Example, ExampleEdit, compared, count_text, judged, told, write_examples
from aaca.evaluate.captions.control import CaptionEdit
from aaca.evaluate.captions.structure import names_of

ODD = "<script>alert('x')</script>"
GRAPH = SceneGraph(
    (GraphObject(3, "circle", ("red",), (4, 4, 20, 20)), GraphObject(5, "square", ("blue", "small"), (40, 40, 12, 12))),
    (Relationship(0, 3, 5, "left of"),),
    "a red circle left of a small blue square",
)
FIGURES = {"CIDEr-D": 545.374, "G<o>": float("nan")}
KINDS = pd.DataFrame(
    [("drop_object", 98.04, 72.5, float("nan"))], columns=["edit", "changes", "follows", "right words kept"]
)


class Reader(HTMLParser):
    """Cells by row, words that are marked by row and card, all text, what a browser would load."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.rows, self.sources, self.open, self.cards = [], [], [], [], []
        self.marked, self.text = {}, ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.append(tag)
        self.sources += [given[key] for key in ("src", "href") if key in given]
        if tag not in ("meta", "img"):
            self.open.append((tag, given.get("class") or ""))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "article":
            self.cards.append({"caption": [], "text": ""})

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        tag, kind = self.open[-1] if self.open else ("", "")
        self.text += "" if data.isspace() and "\n" in data else data
        in_row = any(one in ("td", "th") for one, _ in self.open)
        if in_row:
            self.rows[-1][-1] += data
        if self.cards:
            self.cards[-1]["text"] += data
            if tag in ("ins", "del") or kind == "wrong":
                what = " ".join(word for word in (tag.replace("span", ""), kind) if word)
                own = self.marked.setdefault(self.rows[-1][0], []) if in_row else self.cards[-1]["caption"]
                own.append((what, data))


def edit_of(kind, graph, before, after, said, names=None):
    return ExampleEdit(
        kind, f"the node of {kind}", tuple(names or names_of(graph)), CaptionEdit.of(before, after, GRAPH, graph), said
    )


CAPTION = "a green circle left of a small blue square"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    image = np.zeros((64, 64, 3), dtype=np.uint8)
    dropped, turned = drop_node(GRAPH, ("object", 5, 0)), reverse_relationship(GRAPH, 0)
    free = [*names_of(turned), "right of"]
    edits = (
        edit_of("drop_object", dropped, CAPTION, "a blue circle", (-1, -1, -1)),
        edit_of("reverse", turned, CAPTION, "a small blue square right of a green circle", (0, 0, 0), free),
        edit_of("add_one", GRAPH, CAPTION, CAPTION, None),
        edit_of("say_less", GRAPH, CAPTION, "a circle", (-1, -3, -1)),
        edit_of("say_nothing", dropped, "", "", (0, 0, 0)),
    )
    odd = SceneGraph((GraphObject(0, ODD, (), (1, 1, 9, 9)),), (), ODD)
    examples = [Example("im_0", image, GRAPH, GRAPH.phrase, CAPTION, edits), Example(ODD, image, odd, ODD, ODD, ())]
    file = write_examples(folder, f"captions of {ODD}", FIGURES, KINDS, examples)
    assert file == folder / "examples.html"
    return Reader(file.read_text(encoding="utf-8"))


def each(mark, words):
    return [(mark, word) for word in words.split()]


def test_exactly_the_words_that_are_wrong_came_or_left_are_marked(page):
    assert page.cards[0]["caption"] == [("wrong", "green")]
    swapped = [("del wrong", "green"), ("ins wrong", "blue")]
    assert page.marked["drop object"] == [*swapped, *each("del", "left of a small blue square")]
    assert page.marked["reverse"] == [
        *[("del", "a"), ("del wrong", "green"), *each("del", "circle left of")],
        *[*each("ins", "right of a"), ("ins wrong", "green"), ("ins", "circle")],
    ]
    assert page.marked["add one"] == [("wrong", "green")]
    gone = [("del", "a"), ("del wrong", "green"), *each("del", "circle left of a small blue square")]
    assert page.marked["say nothing"] == gone


def test_every_caption_verdict_and_figure_is_on_the_page(page):
    rows = {row[0]: row for row in page.rows[2:]}
    assert "545.37" in page.text and page.rows[1] == ["drop object", "98.04", "72.50", "–"]
    assert f"graph1 circle (red) · 2 square (blue, small) · 1 left of 2reference{GRAPH.phrase}" in page.text
    assert f"caption, 1 word wrong{CAPTION}" in page.text
    assert rows["drop object"][1:] == [
        "the node of drop_object",
        "a green blue circle left of a small blue square",
        "✗ structure does not follow: −1 object, −1 attribute, −1 relationship; "
        "asked: −1 object, −2 attributes, −1 relationship✓ right words kept: 1 of 1",
    ]
    assert rows["reverse"][3] == "✓ structure follows: as many✓ right words kept: 4 of 4"
    assert rows["add one"][2:] == [CAPTION, "= no word changed✓ right words kept: 6 of 6"]  # no parser
    assert rows["say less"][3].endswith("✗ right words kept: 1 of 6; lost: blue, left, of, small, square")
    assert rows["say nothing"][3].endswith("– no untouched word was right before")
    assert "No edit fits this graph." in page.cards[1]["text"]


def test_text_is_escaped_and_nothing_is_loaded_or_run(page):
    assert "script" not in page.tags and page.text.count(ODD) == 6
    assert len(page.sources) == 2 and all(one.startswith("data:image/webp;base64,") for one in page.sources)


def wrong(caption, *names):
    return [word.text for word in judged(caption, names) if word.wrong]


def test_of_a_word_said_too_often_the_last_ones_are_wrong():
    assert wrong("a red cup and the red hat", "red", "cup", "hat") == ["red"]
    assert [word.wrong for word in judged("red cup red", ["red", "cup"])] == [False, False, True]
    assert wrong("a cup left of a hat", "cup", "hat") == ["left", "of"]
    assert wrong("a cup left of a hat", "hat", "left of") == ["cup"]
    assert wrong("", "cup") == [] and wrong("a the and", "cup") == []


def marked(before, after):
    return [(word.mark, word.text) for word in compared(judged(before, []), judged(after, []))]


def test_words_that_stay_are_not_marked():
    assert marked("a red cup", "a red cup") == [("", "a"), ("", "red"), ("", "cup")]
    assert marked("a red cup", "a cup") == [("", "a"), ("left", "red"), ("", "cup")]
    assert marked("a cup", "a blue cup") == [("", "a"), ("came", "blue"), ("", "cup")]
    assert marked("", "cup") == [("came", "cup")] and marked("cup", "") == [("left", "cup")]


def test_numbers_in_words():
    assert count_text((-1, 0, 2)) == "−1 object, +2 relationships" and count_text((0, 0, 0)) == "as many"
    assert told(GRAPH) == "1 circle (red) · 2 square (blue, small) · 1 left of 2"
