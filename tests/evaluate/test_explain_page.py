"""The page of explanations: what was given is on it, names are text, nothing is fetched."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from aaca.evaluate import explain_page
from aaca.evaluate.explain_figures import cluster_images, plain
from aaca.evaluate.explain_page import FILE, LARGE, SMALL, Explanations, pick_rows, write_explanations
from aaca.runtime.errors import DataError
from tests.evaluate.explain_toys import CLASSES, MATHS, SCRIPT, toy_explanations


class Reader(HTMLParser):
    """Tags, images, and the text of cells by row and of headings."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.rows, self.headings, self.images = [], [], [], []
        self.inside = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attributes))
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self.inside.append(tag)
        elif tag in ("h1", "h2", "h3", "h4"):
            self.headings.append("")
            self.inside.append(tag)

    def handle_endtag(self, tag):
        if self.inside and self.inside[-1] == tag:
            self.inside.pop()

    def handle_data(self, data):
        text = " ".join(data.split())
        if text and self.inside:
            place = self.rows[-1] if self.inside[-1] in ("td", "th") else self.headings
            place[-1] = f"{place[-1]} {text}".strip()


@pytest.fixture
def view():
    return toy_explanations()


def written(view, folder):
    file = write_explanations(folder, view)
    assert file == folder / FILE
    return file.read_text(encoding="utf-8")


def test_names_are_text_and_nothing_is_fetched(view, tmp_path):
    page = written(view, tmp_path)
    assert not {"script", "iframe", "link", "object"} & set(Reader(page).tags)
    assert "<script" not in page.lower() and "<b>scenes" not in page and "<i>lake" not in page
    for name in (SCRIPT, *CLASSES[1:], "toy <b>scenes</b>"):
        escaped = name.replace("<", "&lt;").replace(">", "&gt;")
        assert escaped in page
    assert MATHS in page and "{{ 7 * 7 }}" in page and "\\frac{1$ a b" in page
    sources = re.findall(r'(?:src|href|url\()="?([^")]{5})', page)
    assert sources and set(sources) == {"data:"}
    assert "prefers-color-scheme: dark" in page and "@import" not in page


def test_the_head_says_accuracy_concepts_and_live_ones(view, tmp_path):
    page = written(view, tmp_path)
    share = 100 * (view.labels == view.predictions).mean()
    assert f"right on {share:.1f} % of 60 images. It reads 11.5 concepts a class, of 11 live ones" in page
    assert "11 of 12 concepts fire" in page


def test_each_class_shows_its_concepts_the_worst_class_first(view, tmp_path):
    rows = [row for row in Reader(written(view, tmp_path)).rows if row[0] in CLASSES]
    shares = [np.mean(view.predictions[view.labels == label] == label) for label in range(3)]
    order = sorted(range(3), key=lambda label: shares[label])
    assert len(set(shares)) == 3
    for row, label in zip(rows, order, strict=True):
        assert row[:3] == [CLASSES[label], "20", f"{100 * shares[label]:.1f}"]
        own = view.contributions[view.contributions["class"] == label].head(6)
        told = " ".join(
            f"{plain(name)} #{latent} {value:+.3f}".replace("-", "−")
            for latent, name, value in zip(own["latent"], own["name"], own["contribution"], strict=True)
        )
        assert row[3] == " ".join(told.split())
        stands = view.strengths[view.strengths["class"] == label].head(6)
        assert re.findall(r"#(\d+)", row[4]) == [str(latent) for latent in stands["latent"]]


def test_bars_lie_between_zero_and_their_value(view, tmp_path):
    page = written(view, tmp_path)
    lists = re.findall(r'<div class="bars">(.*?)</div>', page, flags=re.DOTALL)
    assert len(lists) == 3 + 3 * 2 + 3  # classes; wrong images with two logits; right ones
    for own in lists:
        bars = re.findall(
            r'<i class="(\w+)" style="left:([\d.]+)%;width:([\d.]+)%"></i><b style="left:([\d.]+)%"></b></span>'
            r'<span class="number">([−+][\d.]+)',
            own,
        )
        values = [float(bar[4].replace("−", "-")) for bar in bars]
        low, high = min(0, *values), max(0, *values)
        for (kind, left, width, zero, _), value in zip(bars, values, strict=True):
            at = 100 * (0 - low) / (high - low)
            end = 100 * (value - low) / (high - low)
            assert float(zero) == pytest.approx(at, abs=0.5)
            assert float(left) == pytest.approx(min(at, end), abs=0.5)
            assert float(width) == pytest.approx(abs(at - end), abs=0.5)
            assert kind == "rest" or kind == ("good" if value >= 0 else "bad")


def test_wrong_images_come_first_and_say_both_classes(view, tmp_path):
    read = Reader(written(view, tmp_path))
    assert "wrong (3 shown)" in read.headings and "right (3 shown)" in read.headings
    first = read.headings.index("wrong (3 shown)")
    wrong = [row for row in dict.fromkeys(view.local["image"]) if view.labels[row] != view.predictions[row]]
    assert read.headings[first + 1 : first + 4] == [
        f"{CLASSES[view.predictions[row]]} in truth {CLASSES[view.labels[row]]}" for row in wrong
    ]
    large = [one for one in read.images if one["width"] == str(LARGE)]
    assert len(large) == 6
    for one, row in zip(large[:3], wrong, strict=True):
        picture = Image.open(io.BytesIO(base64.b64decode(one["src"].removeprefix("data:image/png;base64,"))))
        assert picture.size == (LARGE, LARGE) and picture.getpixel((5, 5)) == (3 * row % 256,) * 3


def test_clusters_show_their_own_words_and_members(view, tmp_path):
    page = written(view, tmp_path)
    cards = page.split("<h2>Clusters</h2>")[1].split('<div class="card">')[1:]
    assert len(cards) == view.clusters.words["cluster"].nunique()
    for number, card in enumerate(cards):
        own = view.clusters.words[view.clusters.words["cluster"] == number]
        assert f"{own['images'].iloc[0]} images" in card
        assert re.findall(r"#(\d+)", card.split('<div class="tiles">')[0]) == [str(latent) for latent in own["latent"]]
        members = set(view.clusters.members.loc[view.clusters.members["cluster"] == number, "image"])
        shown = cluster_images(view.clusters, number)
        assert len(set(shown)) == min(9, len(members)) and set(shown) <= members
        assert card.count(f'width="{SMALL}"') == len(shown)


def test_interventions_with_their_change_to_the_first_row(view, tmp_path):
    rows = [row for row in Reader(written(view, tmp_path)).rows if row[0] in ("none", "zero <i>lake</i>")]
    assert rows == [
        ["none", "0", "66.3", "70.0", "76.0"],
        ["zero <i>lake</i>", "2", "82.9 +16.6", "70.0 +0.0", "33.7 −42.3"],
    ]
    broken = Explanations(**{**vars(view), "interventions": view.interventions.drop(columns="accuracy")})
    with pytest.raises(DataError, match="interventions lack accuracy"):
        write_explanations(tmp_path, broken)


def test_without_clusters_interventions_and_wrong_images(view, tmp_path):
    right = view.local[view.labels[view.local["image"]] == view.predictions[view.local["image"]]]
    bare = Explanations(**{**vars(view), "clusters": None, "interventions": None, "local": right})
    headings = Reader(written(bare, tmp_path)).headings
    assert "Clusters" not in headings and "Interventions" not in headings and "wrong (0 shown)" in headings
    with pytest.raises(DataError, match="60 labels, 3 predictions"):
        write_explanations(tmp_path, Explanations(**{**vars(view), "predictions": np.zeros(3)}))


def test_what_is_too_much_for_a_page_is_counted(view, tmp_path, monkeypatch):
    monkeypatch.setattr(explain_page, "MOST_CLASSES", 2)
    monkeypatch.setattr(explain_page, "MOST_CLUSTERS", 1)
    page = written(view, tmp_path)
    classes, clusters = page.split("<h2>Single images</h2>")
    assert "1 more in the tables" in classes
    assert f"{view.clusters.words['cluster'].nunique() - 1} more in the tables" in clusters
    assert page.count('<th scope="row">') == 2 + 2


def test_rows_to_explain_are_wrong_ones_then_right_ones():
    labels = np.arange(50) % 2
    predictions = np.where(np.arange(50) < 12, 1 - labels, labels)
    rows = pick_rows(labels, predictions, 5, seed=1)
    assert len(rows) == len(set(rows)) == 10 and (rows[:5] < 12).all() and (rows[5:] >= 12).all()
    np.testing.assert_array_equal(rows, pick_rows(labels, predictions, 5, seed=1))
    assert len(pick_rows(labels, labels, 5)) == 5 and len(pick_rows(labels, 1 - labels, 60)) == 50
