"""The page of a generated debug set: everything that was asked for and dropped is on it, and nothing runs."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from aaca.data.table import ImageTable
from aaca.evaluate.debugset_page import FILE, TILE, write_page
from aaca.evaluate.examples import GAP
from tests.toys import square_table

CLASSES = ("bird", "<script>alert('class')</script>")
PROMPTS = ("a photo of a bird & more", '"><script>alert(1)</script>', "a <b>bold</b> bird", "{{ settings }}")


@pytest.fixture
def table(tmp_path):
    squares = square_table(tmp_path, 40)
    rows = np.arange(40)
    frame = squares.frame.assign(
        label=(rows >= 30).astype(int),
        prompt=[PROMPTS[row % 4] for row in rows],
        negative=["<i>not</i> this" if row % 4 == 1 else "" for row in rows],
        concept="",
        seed=rows + 70_000,
        dropped=["third_class" if row % 5 == 1 else "leak" if row in (2, 32) else "" for row in rows],
        taken=[row < 30 and row % 2 == 0 and row != 2 and row % 5 != 1 for row in rows],
    )
    return ImageTable.build(frame, CLASSES, squares.root)


FUNNEL = {
    CLASSES[0]: {"asked": 313, "near_duplicate": 17, "taken": 12},
    CLASSES[1]: {"asked": 314, "near_duplicate": 18, "taken": 0},
}
QUALITY = {CLASSES[0]: {"CLIP": 0.25, "KID <0>": -0.0005}, CLASSES[1]: {"CLIP": float("nan"), "KID <0>": 1.5}}


class Reader(HTMLParser):
    """Tags, cells by row, and text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.rows, self.headings, self.images = [], [], [], []
        self.open = None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag in ("h2", "h3"):
            self.headings.append("")
        if tag == "img":
            self.images.append(dict(attributes))
        self.open = tag

    def handle_endtag(self, tag):
        self.open = None if tag in ("td", "th", "h2", "h3") else self.open

    def handle_data(self, data):
        if self.open in ("td", "th", "span") and self.rows:
            self.rows[-1][-1] += data
        if self.open in ("h2", "h3"):
            self.headings[-1] += data


@pytest.fixture
def page(table, tmp_path):
    settings = {"seed": 3, "prompts": "<script>alert(2)</script>"}
    file = write_page(tmp_path, "g<llm>", table, FUNNEL, QUALITY, settings)
    assert file == tmp_path / FILE
    return file.read_text(encoding="utf-8")


def test_nothing_that_was_asked_for_runs(page):
    read = Reader(page)
    assert not {"script", "b", "i", "iframe"} & set(read.tags)
    assert "<script" not in page.lower() and "alert(1)" in page and "{%" not in page
    assert "g&lt;llm&gt;" in page and "&lt;script&gt;alert(2)&lt;/script&gt;" in page
    sources = re.findall(r'(?:src|href)="([^"]{5})', page)
    assert sources and set(sources) == {"data:"}  # one file, nothing is fetched


def test_every_prompt_is_there_with_its_counts_and_seeds(page, table):
    rows = Reader(page).rows
    frame = table.frame
    listed = [row for row in rows if row and any(row[0].startswith(prompt) for prompt in PROMPTS)]
    assert len(listed) == 8  # four of each class
    for position, row in enumerate(listed):
        label, prompt = divmod(position, 4)
        own = frame[(frame["label"] == label) & (frame["prompt"] == row[0].split(" not: ")[0])]
        assert len(own) and row[1:3] == [str(len(own)), str(int(own["taken"].sum()))]
        assert row[3] == ", ".join(map(str, own["seed"].head(3))) + (" …" if len(own) > 3 else "")
        assert row[0].endswith(" not: <i>not</i> this") == (row[0].startswith(PROMPTS[1])), prompt


def test_the_funnel_and_the_quality_class_by_class_a_missing_value_as_a_dash(page):
    rows = Reader(page).rows
    assert rows[0] == ["class", "asked", "near duplicate", "taken"]
    assert rows[1:3] == [["bird", "313", "17", "12"], [CLASSES[1], "314", "18", "0"]]
    assert rows[3:6] == [["class", "CLIP", "KID <0>"], ["bird", "0.250", "-0.001"], [CLASSES[1], "–", "1.500"]]
    assert "nan" not in page.lower().replace("data:image/png;base64", "").split("<img")[0]


def test_sheets_of_what_was_taken_and_dropped_and_a_class_of_which_nothing_was(page, table):
    read = Reader(page)
    frame = table.frame
    counts = frame[frame["dropped"] != ""].groupby(["label", "dropped"]).size()
    bird = [f"dropped: leak ({counts[0, 'leak']})", f"dropped: third class ({counts[0, 'third_class']})"]
    other = [f"dropped: leak ({counts[1, 'leak']})", f"dropped: third class ({counts[1, 'third_class']})"]
    assert read.headings == ["bird", "taken (the first)", *bird, "prompts", CLASSES[1], *other, "prompts"]
    assert "Nothing was taken." in page
    sizes = []
    for image in read.images:
        assert image["alt"]
        data = image["src"].removeprefix("data:image/png;base64,")
        sizes.append(Image.open(io.BytesIO(base64.b64decode(data))).size)
    taken = int(frame["taken"].sum())
    assert taken == 11  # in two lines, ten and one

    def side(n):
        return n * (TILE + GAP) - GAP

    expected = [(side(10), side(2)), (side(1), side(1)), (side(6), side(1)), (side(1), side(1)), (side(2), side(1))]
    assert sizes == expected


def test_without_quality_there_is_no_such_table(table, tmp_path):
    text = write_page(tmp_path, "m", table, FUNNEL, {}, {}).read_text()
    assert "distance to the class" not in text and Reader(text).rows[3][0] == "prompt"
