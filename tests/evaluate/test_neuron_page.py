"""The neuron page: every number is the right one, names are text, nothing is fetched, pictures are the tiles."""

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from aaca.evaluate import neuron_page
from aaca.evaluate.examples import GAP
from aaca.evaluate.neuron_page import (
    FILE,
    MOST_CARDS,
    MOST_CLASSES,
    MOST_EDITED,
    MOST_ROWS,
    number,
    points,
    write_neurons,
)
from aaca.evaluate.neuron_sheet import TASK_TILE, neuron_sheet, neuron_task_picture
from aaca.evaluate.neuron_tiles import SIDE, photo_uri, shade_uri
from aaca.evaluate.neuron_view import Change, ClassView, NeuronCard, NeuronView, Tile
from aaca.evaluate.story import DARKEST, spotlight
from aaca.runtime.errors import DataError

SCRIPT, TEMPLATE, TAG = "<script>x(1)</script>", "{{ 7 * 7 }}", '"><b>bold</b>'
VOID = {"img", "input", "meta", "br"}


class Reader(HTMLParser):
    """Tags with their attributes; text of cells by row; text of elements by class; unclosed tags."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.rows, self.of, self.open = [], [], {}, []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        held = dict(attributes)
        self.tags.append((tag, held))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        for name in (held.get("class") or "").split():
            self.of.setdefault(name, []).append("")
        if tag not in VOID:
            self.open.append((tag, (held.get("class") or "").split()))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        text = " ".join(data.split())
        if not text:
            return
        if any(tag in ("td", "th") for tag, _ in self.open):
            self.rows[-1][-1] = f"{self.rows[-1][-1]} {text}".strip()
        for name in {name for _, names in self.open for name in names}:
            self.of[name][-1] = f"{self.of[name][-1]} {text}".strip()

    def all(self, tag):
        return [held for name, held in self.tags if name == tag]


def tile(shade=100, caption="2.5, bird", mask=None, side=24):
    return Tile(np.full((side, side, 3), shade, dtype=np.uint8), caption, mask)


def card(neuron=957, **changes):
    fields = {
        "neuron": neuron,
        "list": "insufficient",
        "prec": 57.447,
        "importance": 1.1005,
        "name": "sand",
        "name_score": 0.268,
        "second": "desert",
        "weights": {"mammal": -0.12, "bird": 0.212},
        "weights_after": {"mammal": 0.04, "bird": 0.053},
        "chosen": True,
        "means": (0.31, 1.862),
        "top": [tile(40 * i) for i in range(5)],
        "mistakes": [tile(200, "0.3, taken for mammal", np.eye(3))],
        "illusions": [tile(90, "fires 6.76, p 0.77")],
        "quantile": 4.86,
        "dead": False,
    }
    return NeuronCard(**{**fields, **changes})


def class_view(name="bird", cards=(), **changes):
    fields = {
        "name": name,
        "images": 1240,
        "mistakes": 161,
        "used": 160,
        "converged": 158,
        "accuracy": 0.8333,
        "accuracy_after": 0.9583,
        "rivals": [("mammal", 131), ("flower", 30)],
        "cards": cards,
    }
    return ClassView(**{**fields, **changes})


ROWS = [("accuracy", 0.8466, 0.8426), ("class bird", 1 / 3, 7 / 12), ("same", 0.5, 0.50004), ("later", 0.25, None)]


def change(**changes):
    images = [
        (tile(10, "one"), "bird", "mammal", "bird"),
        (tile(20, "two"), "bird", "bird", "flower"),
        (tile(30, "three"), "bird", "mammal", "flower"),
        (tile(40, ""), "bird", "bird", "bird"),
    ]
    fields = {"method": "retention", "split": "test", "rows": ROWS, "repaired": 1061, "broken": 14, "images": images}
    return Change(**{**fields, **changes})


def view(**changes):
    cards = [card(), card(12, list="excessive", chosen=False, name="")]
    fields = {
        "title": "toy scenes",
        "scorer": "contribution",
        "neurons": 2048,
        "classes": [class_view(cards=cards)],
        "change": change(),
        "notes": ["Two classes: all mistakes vote alike."],
    }
    return NeuronView(**{**fields, **changes})


def read(folder, shown):
    file = write_neurons(folder, shown)
    assert file == folder / FILE
    text = file.read_text(encoding="utf-8")
    reader = Reader(text)
    assert not reader.open
    return text, reader


def pixels(uri):
    kind, data = uri.split(";base64,")
    assert kind in ("data:image/webp", "data:image/png")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_names_are_text_and_nothing_is_fetched(tmp_path):
    evil = card(name=SCRIPT, second=TAG, weights={TAG: 1.0, SCRIPT: 2.0}, weights_after=None, top=[tile(1, SCRIPT)])
    one = class_view(SCRIPT, [evil, card(3, name=TEMPLATE)], rivals=[(TAG, 3)])
    moved = change(rows=[(SCRIPT, 0.1, 0.2)], images=[(tile(caption=TAG), SCRIPT, TAG, SCRIPT)], method=TAG)
    text, reader = read(tmp_path, view(title=SCRIPT, scorer=TAG, classes=[one], change=moved, notes=[SCRIPT]))
    assert "<script" not in text.lower() and "<b>bold" not in text and TEMPLATE in text and "49" not in reader.of["id"]
    assert not {"script", "iframe", "link", "object"} & {tag for tag, _ in reader.tags}
    assert not [held for _, held in reader.tags if any(name.startswith("on") for name in held)]
    assert text.count("&lt;script&gt;x(1)&lt;/script&gt;") > 8
    sources = [held["src"] for held in reader.all("img")]
    assert sources and all(source.startswith("data:image/") for source in sources)
    assert all(held["href"].startswith("#") for held in reader.all("a"))
    assert "@import" not in text and "url(" not in text and "http" not in text
    assert "prefers-color-scheme: dark" in text


def test_the_head_says_in_plain_words_what_the_lists_are(tmp_path):
    text, reader = read(tmp_path, view())
    (lead,) = reader.of["lead"]
    assert lead.count(".") == 2 and "insufficient" in lead and "excessive" in lead
    assert "one of the 2,048 numbers" in text and "<em>contribution</em>" in text
    assert reader.of["note"] == ["Two classes: all mistakes vote alike."]


def test_scores_before_and_after_and_their_difference(tmp_path):
    _, reader = read(tmp_path, view())
    rows = {row[0]: row[1:4] for row in reader.rows}
    assert rows["accuracy"] == ["84.7", "84.3", "−0.4"]
    assert rows["class bird"] == ["33.3", "58.3", "+25.0"]
    assert rows["same"] == ["50.0", "50.0", "+0.0"]
    assert rows["later"] == ["25.0", "–", ""]
    assert reader.of["down"] == ["−0.4", "", ""] and reader.of["up"].count("+25.0") == 1
    lines = [held["style"] for held in reader.all("i") if held.get("class") in ("up", "down", "")]
    assert lines[1] == "left:33.33%;width:25.00%"
    dots = [held["style"] for held in reader.all("u")]
    assert dots[:4] == ["left:84.66%", "left:84.26%", "left:33.33%", "left:58.33%"]


def test_counts_of_the_class_and_of_the_edit(tmp_path):
    text, reader = read(tmp_path, view())
    plain = " ".join(re.sub(r"<[^>]+>", "", text.split("<main>")[1]).split())
    assert "on test: 1,061 images that were wrong are right, 14 that were right are wrong" in plain
    assert "Edited: #957 sand for bird." in plain
    assert "161 of 1,240 images are taken for another class: mammal (131), flower (30)" in plain
    assert "160 of these mistakes have a vote; 158 were made right" in plain
    assert "83.3 % → 95.8 % right" in plain
    assert "are of the inspected images, those above of test." in plain
    assert ["bird", "1,240", "161", "83.3 → 95.8 +12.5", "mammal (131), flower (30)", "#957"] in reader.rows
    targets = {held["id"] for _, held in reader.tags if "id" in held}
    assert {held["href"][1:] for held in reader.all("a")} <= targets


def test_a_card_shows_its_numbers_and_its_weights_as_bars(tmp_path):
    text, reader = read(tmp_path, view())
    first, second = reader.of["neuron"]
    assert first.startswith("#957 sand fit 0.27, or maybe desert edited votes 57.4 % importance 1.101")
    assert "mistakes 0.31 right images 1.86 99 % of real images stay below 4.86" in first
    assert "bird +0.21 → +0.05 mammal −0.12 → +0.04" in first  # the class of the mistakes comes first
    assert "#12 unnamed" in second and " edited" not in second
    assert reader.of["own"] == ["bird", "bird"]
    assert "own" not in read(tmp_path, view(classes=[class_view("flower", [card()])]))[1].of
    own = text.split('<div class="weights">')[1]
    bars = re.findall(r'<i class="([\w ]+)" style="left:([\d.]+)%;width:([\d.]+)%"></i>', own)[:4]
    span, zero = 0.332, 100 * 0.12 / 0.332
    expected = [("good was", zero, 0.212), ("good is", zero, 0.053), ("bad was", 0, 0.12), ("good is", zero, 0.04)]
    for (kind, left, width), (name, start, weight) in zip(bars, expected, strict=True):
        assert kind == name and float(left) == pytest.approx(start, abs=0.01)
        assert float(width) == pytest.approx(100 * weight / span, abs=0.01)
    assert set(re.findall(r'<b style="left:([\d.]+)%">', own.split("</article>")[0])) == {f"{zero:.2f}"}


def test_without_an_edit_no_number_after_one_is_shown(tmp_path):
    cards = [card(weights_after=None, chosen=False, illusions=(), quantile=None, name_score=None, second="")]
    one = class_view(cards=cards, accuracy_after=None)
    text, reader = read(tmp_path, view(change=None, classes=[one]))
    assert "Nothing was edited yet" in text and "What changed" not in text and 'href="#change"' not in text
    body = text.split("<main>")[1]
    assert "→" not in body and "edited" not in body and "made up" not in body and "real images stay" not in body
    assert ["bird", "1,240", "161", "83.3", "mammal (131), flower (30)"] in reader.rows
    assert "bird +0.21 mammal −0.12" in reader.of["neuron"][0]


def test_images_that_changed_are_sorted_by_what_became_of_them(tmp_path):
    text, _ = read(tmp_path, view(change=change(images=[*change().images, *[change().images[0]] * 30])))
    parts = re.split(r"<h3>", text.split('<h2 id="classes">')[0])[1:]
    headings = ["Repaired", "Broken", "Wrong before and after", "Right before and after"]
    assert [part.split(" <small>")[0] for part in parts] == headings
    assert [part.count("<img") for part in parts] == [neuron_page.MOST_CHANGED - 3, 1, 1, 1]
    assert '<span class="wrong">mammal</span><br>after <span class="right">bird</span>' in parts[0]
    assert '<span class="right">bird</span><br>after <span class="wrong">flower</span>' in parts[1]
    assert '<span class="wrong">mammal</span><br>after <span class="wrong">flower</span>' in parts[2]
    assert "10 more images are not drawn" in parts[3]
    assert 'alt="bird, three"' in parts[2] and "<small>three</small>" in parts[2] and 'alt="bird"' in parts[3]


def test_pictures_are_the_tiles_with_their_shade_on_top(tmp_path):
    _, reader = read(tmp_path, view(change=None))
    images = reader.all("img")
    assert all("alt" in held and held["width"] == str(SIDE) for held in images)
    first = images[:8]  # five top images, a mistake and its shade, a made-up image
    assert [held["alt"] for held in first[4:]] == [
        "fires most on: 2.5, bird",
        "mistakes of bird: 0.3, taken for mammal",
        "",
        "made up to excite it: fires 6.76, p 0.77",
    ]
    for place, shade in ((0, 0), (1, 40), (4, 160), (5, 200), (7, 90)):
        assert np.abs(pixels(first[place]["src"]).astype(int) - shade).max() <= 3
    assert first[6]["class"] == "shade"
    np.testing.assert_array_equal(
        pixels(first[6]["src"])[..., 1], np.where(np.eye(3), 0, round(255 * (1 - DARKEST))).astype(np.uint8)
    )


def test_the_switch_of_the_spotlight_is_there_where_there_is_one(tmp_path):
    _, reader = read(tmp_path, view())
    assert [held.get("id") for held in reader.all("input")] == ["spotlight"]
    assert [held["for"] for held in reader.all("label")] == ["spotlight"]
    _, reader = read(tmp_path, view(classes=[class_view(cards=[card(mistakes=())])]))
    assert not reader.all("input") and "legend" in reader.of and len(reader.of["legend"]) == 1
    masked = change(images=[(tile(mask=np.ones((2, 2))), "bird", "bird", "bird")])
    _, reader = read(tmp_path, view(classes=[], change=masked))
    assert len(reader.all("input")) == 1


def test_a_shade_over_the_photo_is_the_spotlight():
    rng = np.random.default_rng(0)
    image, mask = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8), rng.random((12, 12)) * 7
    alpha = pixels(shade_uri(mask))[..., 1:] / 255
    np.testing.assert_allclose(image * (1 - alpha), spotlight(image, mask), atol=1.1)
    assert (pixels(shade_uri(np.zeros((3, 4))))[..., 1] == round(255 * (1 - DARKEST))).all()
    assert pixels(shade_uri(np.ones((224, 7)))).shape == (16, 7, 2)
    assert pixels(photo_uri(np.zeros((300, 300, 3), np.uint8))).shape == (SIDE, SIDE, 3)
    assert pixels(photo_uri(np.zeros((32, 32, 3), np.uint8))).shape == (32, 32, 3)


def test_many_classes_and_neurons_are_counted_and_those_edited_stay(tmp_path):
    bare = {"top": (), "mistakes": (), "illusions": ()}
    cards = [card(n, chosen=n == 29, name=f"n{n}", **bare) for n in range(30)]
    classes = [class_view(f"class {k}", accuracy=k / 101, accuracy_after=None) for k in range(102)]
    classes[101] = replace(classes[101], cards=cards)
    rows = [(f"group {n}", 0.5, 0.6) for n in range(102)]
    text, reader = read(tmp_path, view(classes=classes, change=change(rows=rows, images=())))
    headings = re.findall(r'<h2 id="c\d+">(class \d+)', text)
    assert headings == ["class 101", *(f"class {k}" for k in range(MOST_CLASSES - 1))]
    assert f"The neurons of {102 - MOST_CLASSES} more classes are not drawn" in text
    assert f"{102 - MOST_ROWS} more classes</summary>" in text and f"{102 - MOST_ROWS} more scores</summary>" in text
    assert len({row[0] for row in reader.rows if row[0].startswith("class ")}) == 102
    assert len([row for row in reader.rows if row[0].startswith("group ")]) == 102
    assert reader.of["id"] == [f"#{n}" for n in (*range(MOST_CARDS - 1), 29)]
    assert f"{30 - MOST_CARDS} more neurons, without pictures" in text
    rest = [row for row in reader.rows if re.fullmatch(r"#\d+", row[0])]
    assert [row[0] for row in rest] == [f"#{n}" for n in range(MOST_CARDS - 1, 29)]
    assert rest[0] == [f"#{MOST_CARDS - 1}", f"n{MOST_CARDS - 1}", "57.4", "1.101", "0.31", "1.86"]


def test_of_many_edited_neurons_the_first_are_listed_each_with_its_class(tmp_path):
    bare = {"top": (), "mistakes": (), "illusions": ()}
    classes = [class_view(name, [card(n, name="", **bare) for n in range(9)]) for name in ("bird", "flower")]
    text, _ = read(tmp_path, view(classes=classes))
    told = " ".join(re.sub(r"<[^>]+>", "", text.split("Edited:")[1].split("</p>")[0]).split())
    first = [f"#{n} for bird" for n in range(9)] + [f"#{n} for flower" for n in range(9)]
    assert told == ", ".join(first[:MOST_EDITED]) + f" and {18 - MOST_EDITED} more."


def test_without_classes_mistakes_or_neurons(tmp_path):
    assert "No class was inspected" in read(tmp_path, view(classes=[], change=None))[0]
    silent = class_view(mistakes=0, used=0, converged=0, rivals=(), accuracy=1.0, accuracy_after=None)
    text, _ = read(tmp_path, view(classes=[silent], change=None))
    assert "None of 1,240 images is taken for another class" in text and "No neuron got" not in text
    assert "No neuron got enough votes" in read(tmp_path, view(classes=[class_view()]))[0]
    dead = card(
        dead=True, illusions=(), importance=float("inf"), means=(float("nan"), 0.0), weights={}, weights_after=None
    )
    _, reader = read(tmp_path, view(classes=[class_view(cards=[dead])]))
    assert reader.of["dead"] == ["dead: no made-up image excites it"]
    assert "importance inf mean activation mistakes – right images 0.00" in reader.of["neuron"][0]
    assert "weights" not in reader.of["neuron"][0]


def test_a_page_of_many_pictures_stays_small(tmp_path):
    rng = np.random.default_rng(0)

    def noise(count):  # the worst there is to compress, with a map each
        return [
            Tile(rng.integers(0, 256, (96, 96, 3), dtype=np.uint8), "7.31, taken for mammal", rng.random((7, 7)))
            for _ in range(count)
        ]

    cards = [card(n, top=noise(8), mistakes=noise(4), illusions=noise(4)) for n in range(10)]
    page = read(tmp_path, view(classes=[class_view(cards=cards)], change=None))[0]
    assert page.count('class="shade"') == 10 * 16
    assert 5 * len(page) < 8e6  # five such classes


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Tile(np.zeros((4, 5, 3), np.uint8), ""), r"image of shape \(4, 5, 3\)"),
        (lambda: Tile(np.zeros((4, 4, 3)), ""), "float64"),
        (lambda: tile(mask=np.full((2, 2), np.nan)), "mask of shape"),
        (lambda: card(weights_after={"bird": 1.0}), "neuron 957: weights before and after"),
        (lambda: card(list="both"), "neuron 957: list 'both'"),
        (lambda: class_view(accuracy=83.3), "class 'bird', accuracy: 83.3"),
        (lambda: change(rows=[("mean", 0.5, 55.0)]), "change, mean, after: 55"),
    ],
)
def test_values_that_do_not_fit_are_refused(make, message):
    with pytest.raises(DataError, match=message):
        make()


def test_numbers_have_as_many_places_as_they_need():
    assert [number(value, 2) for value in (-0.001, 1.005, float("nan"), 123456.0)] == ["0.00", "1.00", "–", "1.2e+05"]
    assert [number(value, 1, signed=True) for value in (-0.04, -2.0, 2.0)] == ["+0.0", "−2.0", "+2.0"]
    assert points(0.5, 0.4996) == {"text": "+0.0", "way": ""}
    assert points(float("nan"), 0.5) == points(0.5, None) == {"text": "", "way": ""}


def test_a_sheet_has_a_row_a_neuron_and_its_label_on_the_left():
    dark = np.zeros((4, 4))
    dark[0, 0] = 1
    rows = [("#1 sand", [tile(100), tile(200, mask=dark)]), ("#2 $x_1$ " + 30 * "very long ", [tile(50)])]
    sheet = np.asarray(neuron_sheet(rows, 40))
    wide = 2 * 40 + GAP
    left = sheet.shape[1] - wide
    assert sheet.shape[0] == 2 * 40 + GAP and 30 < left < 120
    tiles = sheet[:, left:]
    assert (tiles[:40, :40] == 100).all() and (tiles[40 + GAP :, :40] == 50).all() and (tiles[44:, 44:] == 255).all()
    assert tiles[1, 45, 0] > 190 and tiles[39, 83, 0] == round(200 * DARKEST)
    for top in (0, 40 + GAP):  # both rows have ink in the label, none in the gap before the tiles
        assert (sheet[top : top + 40, : left - 10] < 128).any() and (
            sheet[top : top + 40, left - 4 : left] == 255
        ).all()
    middle = np.asarray(neuron_sheet([("", [tile(100)]), (rows[1][0], [tile(100)]), ("", [tile(100)])], 40))[:, :-40]
    assert (middle[44:84] < 128).any() and (middle[:42] == 255).all() and (middle[86:] == 255).all()  # a label is cut
    with pytest.raises(DataError, match="no tile"):
        neuron_sheet([("#1", [])])


def test_the_picture_of_a_task_is_three_by_three():
    shades = [20 * n for n in range(1, 12)]
    picture = neuron_task_picture([tile(shade) for shade in shades])
    step = TASK_TILE + GAP
    assert picture.shape == (3 * step - GAP, 3 * step - GAP, 3) and picture.dtype == np.uint8
    centres = picture[TASK_TILE // 2 :: step, TASK_TILE // 2 :: step, 0]
    np.testing.assert_array_equal(centres.ravel(), shades[:9])
    few = neuron_task_picture([tile(7), tile(9)])[TASK_TILE // 2 :: step, TASK_TILE // 2 :: step, 0]
    assert few.ravel().tolist() == [7, 9] + [255] * 7
    lit = neuron_task_picture([tile(200, mask=np.array([[1.0, 0.0]]))])
    assert lit[60, 2, 0] == 200 and lit[60, TASK_TILE - 3, 0] == round(200 * DARKEST)
    with pytest.raises(DataError, match="no tile"):
        neuron_task_picture([])
