import numpy as np
import pandas as pd
import pytest

from aaca.data.scenegraph.layout import Layout
from aaca.data.scenegraph.samples import GraphSet
from aaca.data.shape_grammar import write_shapes
from aaca.discover.captions.ease import (
    EaseWeights,
    ease,
    ease_of,
    ease_of_samples,
    object_ease,
    relation_aware_ease,
    relation_aware_ease_of,
)
from aaca.discover.captions.filter import (
    Filtered,
    against_truth,
    filter_by_ease,
    filter_top,
    planted_names,
    random_filter,
    write_filtered,
)
from aaca.discover.captions.records import Record, Records
from aaca.runtime.errors import ConfigError, DataError


def row(kind, parts, rating, image="a", region=""):
    return Record(f"{image}__caption_0_x.jpg", image, 0, kind, parts, rating, region)


ROWS = [
    row("object", ("dog",), 5.0),
    row("attribute", ("dog", "brown"), 2.0),
    row("relationship", ("dog", "on", "rug"), 1.0),
    row("object", ("rug",), 4.0),
    row("object", ("rug",), None),
    row("", (), 3.0),
]


def test_ease_is_the_released_formula():
    assert ease([4.4, 2, 1]) == pytest.approx(7.4 / 15)
    assert ease([5.0]) == 1
    assert ease_of({"a": ROWS, "b": [row("object", ("x",), None)]}) == {"a": pytest.approx(15 / 25)}
    with pytest.raises(DataError, match="no rating"):
        ease([])


def test_relations_speak_for_both_of_their_ends():
    assert object_ease(ROWS) == {"dog": pytest.approx((5 + 2 + 1) / 15), "rug": pytest.approx((4 + 1) / 10)}
    weights = EaseWeights(own=2, attribute=1, relationship=0.5)
    by_hand = {"dog": (2 * 5 + 2 + 0.5) / (5 * 3.5), "rug": (2 * 4 + 0.5) / (5 * 2.5)}
    assert object_ease(ROWS, weights) == pytest.approx(by_hand)
    assert relation_aware_ease(ROWS) == pytest.approx((8 / 15 + 0.5) / 2)
    assert relation_aware_ease(ROWS, "min") == pytest.approx(0.5)
    assert relation_aware_ease(ROWS, "min", EaseWeights(attribute=0, relationship=0)) == pytest.approx(0.8)
    assert relation_aware_ease_of({"a": ROWS, "b": [row("", (), 3.0)]}) == {"a": pytest.approx(31 / 60)}
    assert object_ease([row("relationship", ("dog", "with", "dog"), 5.0), ROWS[0], ROWS[1]])["dog"] == pytest.approx(
        0.8
    )
    with pytest.raises(ConfigError, match=r"weights.own: -1"):
        EaseWeights(own=-1)
    with pytest.raises(ConfigError, match="all are 0"):
        EaseWeights(0, 0, 0)
    with pytest.raises(ConfigError, match="pool"):
        relation_aware_ease(ROWS, "max")


def test_answers_are_grouped_by_image_and_by_region():
    rows = [row("object", ("dog",), 5.0, "im", "0"), row("object", ("cat",), 1.0, "im", "1")]
    samples = np.array([["val2014/im", "0"], ["val2014/im", "1"], ["val2014/other", "0"]])
    records = Records(tuple(rows))
    assert ease_of_samples(samples, ease_of(records.by_sample())) == {"val2014/im_0": 1.0, "val2014/im_1": 0.2}
    assert ease_of_samples(samples, ease_of(records.by_image())) == {"val2014/im_0": 0.6, "val2014/im_1": 0.6}
    with pytest.raises(DataError, match="of no sample"):
        ease_of_samples(samples, {"elsewhere": 0.5})


NAMES = list("abcdef")
EASE = {"a": 0.9, "b": 0.6, "c": 0.59, "d": 0.1, "e": 0.9}


def test_the_threshold_itself_is_kept_and_so_is_what_nobody_rated():
    assert filter_by_ease(NAMES, EASE) == Filtered(("a", "b", "e", "f"), ("c", "d"), ("f",))
    assert filter_by_ease(NAMES, EASE, 0.95).kept == ("f",)
    assert filter_top(NAMES, EASE, 0.4) == Filtered(("a", "e", "f"), ("b", "c", "d"), ("f",))
    assert filter_top(NAMES, EASE, 0.2).kept == ("a", "f")
    for wrong in (-0.1, 1.1):
        with pytest.raises(ConfigError, match="threshold"):
            filter_by_ease(NAMES, EASE, wrong)
        with pytest.raises(ConfigError, match="share"):
            filter_top(NAMES, EASE, wrong)
    with pytest.raises(DataError, match="twice"):
        filter_by_ease(["a", "a"], EASE)


def test_the_control_has_the_asked_size_and_drops_everything_equally_often():
    dropped = [name for seed in range(200) for name in random_filter(NAMES, 4, seed).dropped]
    assert len(dropped) == 400
    assert min(dropped.count(name) for name in NAMES) > 40
    assert random_filter(NAMES, 4, 3) == random_filter(NAMES, 4, 3)
    with pytest.raises(ConfigError, match="count"):
        random_filter(NAMES, 7, 0)


def test_what_was_dropped_is_held_against_what_was_planted():
    scores = against_truth(filter_by_ease(NAMES, EASE), {"d", "a", "e", "f"})
    assert scores == {"precision": 0.5, "recall": 0.25, "dropped": 2}
    nothing = against_truth(Filtered(("a",), ()), set())
    assert np.isnan(nothing["precision"]) and np.isnan(nothing["recall"])
    with pytest.raises(DataError, match="'z' was planted"):
        against_truth(filter_by_ease(NAMES, EASE), {"z"})


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    root = tmp_path_factory.mktemp("shapes")
    write_shapes(root, {"trn": 4, "val": 6, "tst": 1}, regions=3)
    return root


def test_the_filtered_set_is_loaded_as_any_other(shapes):
    layout = Layout.ega(shapes)
    source = GraphSet.open(layout, "val_sub")
    names = [source.name(i) for i in range(len(source))]
    gone = [name for i, name in enumerate(names) if source.image_id(i) == source.image_id(0)] + [names[-1]]
    filtered = filter_by_ease(names, {name: 0.1 if name in gone else 0.9 for name in names[1:]} | {names[0]: 0.2})
    new = write_filtered(source, filtered, {names[0]: 0.2})
    assert new.sets == layout.sets
    loaded = GraphSet.open(new, "val_sub_opt")
    assert [loaded.name(i) for i in range(len(loaded))] == [name for name in names if name not in gone]
    assert len(loaded.image_rows) == len(source.image_rows) - 1
    assert set(loaded.references()) == set(filtered.kept)
    for i in range(len(loaded)):
        here, there = loaded.item(i), source.item(names.index(loaded.name(i)))
        np.testing.assert_array_equal(here.image, there.image)
        np.testing.assert_array_equal(here.features, there.features)
        assert loaded.references()[loaded.name(i)] == source.references()[loaded.name(i)]
    report = pd.read_csv(layout.annotation / "val_sub_opt_filter.csv", dtype={"region": str})
    assert list(report.kept) == [name not in gone for name in names]
    assert report.ease[0] == 0.2 and report.ease[1:].isna().all()
    with pytest.raises(DataError, match="exists already"):
        write_filtered(source, filtered, {})
    with pytest.raises(DataError, match="of names of the set"):
        write_filtered(source, Filtered(("x",), ()), {}, "elsewhere")
    other = write_filtered(source, random_filter(names, 2, 0), {}, "val_sub_random")
    assert len(GraphSet.open(other, "val_sub_random")) == 2


def test_planted_noise_is_read_as_names(tmp_path):
    (tmp_path / "p.json").write_text('{"val2014/im": {"0": {}, "2": {}}}')
    assert planted_names(tmp_path / "p.json") == {"val2014/im_0", "val2014/im_2"}
    (tmp_path / "p.json").write_text("[1]")
    with pytest.raises(DataError, match="planted noise"):
        planted_names(tmp_path / "p.json")
