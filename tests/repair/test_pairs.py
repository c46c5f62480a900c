"""Concept images: drawn, listed, found; as many of every class on both sides; what cannot be had is said."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from aaca.concepts.concept_sets import ClassConcepts, Concept, ConceptSets
from aaca.data.biased_mnist import BiasedMnist, colour
from aaca.discover.concepts.table import ConceptTable
from aaca.repair.found_images import FoundImages
from aaca.repair.pairs import ListedImages, PlantedImages, Shown, evenly
from aaca.runtime.errors import ConfigError, DataError
from tests.repair_toys import stripes

SMALL = {"train": 10, "pool": 5, "audit": 10, "test": 5}


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    return stripes(tmp_path_factory.mktemp("stripes"))


def shown_of(benchmark, blamed=("stripe above",), valid=(), masks=True):
    table = benchmark.split("audit")
    above = np.array(["stripe 0" in group for group in table.frame["group"]])
    rows, names, found = [], [], []
    for row, is_above in enumerate(above):
        mask = np.zeros((16, 16))
        mask[slice(0, 3) if is_above else slice(13, 16)] = 1
        rows.append(row)
        names.append("stripe above" if is_above else "stripe below")
        found.append(mask)
    concepts = ConceptTable.build(rows, names, ["object"] * len(rows), np.stack(found) if masks else None, len(table), (16, 16))  # fmt: skip # noqa: E501
    sets = ConceptSets(
        {
            "red": ClassConcepts(tuple(Concept(name) for name in blamed)),
            "green": ClassConcepts(valid=tuple(Concept(name) for name in valid)),
        },
        {"annotator": "a test"},
    )
    return Shown(benchmark, 16, 3, sets, concepts), above


def test_colours_are_drawn_against_blobs(tmp_path):
    digits = BiasedMnist(per_class=SMALL).build(tmp_path / "digits")
    pairs = PlantedImages(images=12).pairs(Shown(digits, 28, 0))
    assert len(pairs) == 10 and len({id(pair.negative) for pair in pairs}) == 1
    for number, pair in enumerate(pairs):
        assert pair.positive.images.shape == (12, 28, 28, 3)
        shade = pair.positive.images[0, 0, 0].astype(float)
        assert shade == pytest.approx(np.array(colour(number)) * (shade.max() / max(colour(number))), abs=1)


def test_only_what_can_be_drawn_is_drawn(benchmark):
    with pytest.raises(ConfigError, match="planted draws colour, patch, texture; dataset stripes has no planted"):
        PlantedImages().check(benchmark)


def test_with_and_without_are_of_the_same_classes(benchmark):
    shown, above = shown_of(benchmark)
    (pair,) = FoundImages("whole", images=20).pairs(shown)
    table = benchmark.split("audit")
    pixels = {table.image(row).tobytes(): row for row in range(len(table))}
    for images, expected in ((pair.positive.images, True), (pair.negative.images, False)):
        rows = np.array([pixels[image.tobytes()] for image in images])
        assert (above[rows] == expected).all() and np.bincount(table.labels[rows]).tolist() == [10, 10]


def test_crops_show_what_lies_below_the_masks(benchmark):
    shown, _ = shown_of(benchmark)
    (pair,) = FoundImages("cut", images=15).pairs(shown)
    assert pair.positive.images.shape == (15, 16, 16, 3) and pair.negative.name == "other object"
    assert pair.positive.images[..., 2].mean() > 170  # the stripe is blue, and fills the crop


def test_a_concept_is_not_held_against_the_class_it_is_valid_for(benchmark):
    shown, _ = shown_of(benchmark, valid=("stripe above",))
    (pair,) = FoundImages("whole").pairs(shown)
    assert pair.classes == ("red",)


def test_names_nobody_sees_are_left_out_and_none_is_an_error(benchmark, caplog):
    shown, _ = shown_of(benchmark, blamed=("stripe above", "a unicorn"))
    with caplog.at_level("WARNING"):
        assert [pair.positive.name for pair in FoundImages("whole").pairs(shown)] == ["stripe above"]
    assert "no audit image shows 'unicorn'" in caplog.text
    with pytest.raises(DataError, match="no audit image shows 'unicorn'"):
        FoundImages("whole").pairs(replace(shown, sets=ConceptSets({"red": ClassConcepts((Concept("unicorn"),))}, {"annotator": "a"})))  # fmt: skip # noqa: E501
    with pytest.raises(DataError, match="blame nothing"):
        FoundImages("whole").pairs(replace(shown, sets=ConceptSets({}, {"annotator": "a"})))
    with pytest.raises(DataError, match=r"0 masks of stripe above .*concept_images\.how=whole needs no masks"):
        FoundImages("cut").pairs(shown_of(benchmark, masks=False)[0])


def test_a_file_by_hand_takes_the_place_of_a_discovery(benchmark, tmp_path):
    shown, _ = shown_of(benchmark)
    shown.sets.save(tmp_path / "sets.yaml")
    source = FoundImages(file=str(tmp_path / "sets.yaml"))
    assert not source.needs_sets and FoundImages().needs_sets
    source.check(benchmark)
    assert len(source.pairs(replace(shown, sets=None))) == 1


def test_listed_pairs_are_folders_or_drawn(benchmark, tmp_path):
    folder = tmp_path / "stamps"
    folder.mkdir()
    for number in range(12):
        Image.fromarray(np.full((9, 9, 3), 20 * number, np.uint8)).save(folder / f"{number:02d}.png")
    pair = {"positive": {"folder": str(folder)}, "negative": {"kind": "blobs"}, "direction": "sensitise", "weight": 2.0, "classes": ["red"]}  # fmt: skip # noqa: E501
    source = ListedImages([pair], images=10)
    source.check(benchmark)
    (made,) = source.pairs(Shown(benchmark, 16, 0))
    assert made.positive.images.shape == made.negative.images.shape == (10, 16, 16, 3)
    assert (made.direction, made.weight, made.classes) == ("sensitise", 2.0, ("red",))
    before = source.fingerprint()
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(folder / "00.png")
    Image.fromarray(np.zeros((5, 9, 3), np.uint8)).save(folder / "01.png")
    assert source.fingerprint() != before


@pytest.mark.parametrize(("entry", "message"), [
    ({"positive": {"kind": "flatt"}, "negative": {"kind": "blobs"}}, r"positive\.kind: 'flatt'; nearest valid: flat"),
    ({"positive": {"folder": "nowhere"}, "negative": {"kind": "blobs"}}, r"positive\.folder: no folder nowhere"),
    ({"positive": {"kind": "blobs"}}, r"negative: None; expected a folder: or a kind:"),
    ({"positive": {"kind": "flat"}, "negative": {"kind": "blobs"}}, r"positive\.colour: missing; kind flat needs it"),
    ({"positive": {"kind": "blobs", "n": 3}, "negative": {"kind": "blobs"}}, r"positive\.n: unknown key"),
    ({"positive": {"kind": "blobs"}, "negative": {"kind": "blobs"}, "weight": "a"}, r"weight: 'a'; expected a number"),
    ({"positive": {"kind": "blobs"}, "negative": {"kind": "blobs"}, "weigth": 1}, r"weigth: unknown key; .*weight"),
    ({"positive": {"kind": "blobs"}, "negative": {"kind": "blobs"}, "direction": "up"}, r"direction: 'up'; expected"),
])  # fmt: skip
def test_mistakes_in_listed_pairs_are_named(entry, message):
    with pytest.raises(ConfigError, match=r"concept_images\.pairs\[0\]\." + message):
        ListedImages([entry])


def test_even_draws_take_what_there_is():
    groups = [np.arange(3), np.arange(10, 30), np.arange(40, 60)]
    rows = evenly(groups, 21, np.random.default_rng(0))
    assert [np.isin(rows, group).sum() for group in groups] == [3, 9, 9]
