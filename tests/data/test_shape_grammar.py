"""Shapes: the released layout, true boxes and relations, features that tell what is there, and planted noise."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from aaca.data.caption_parser import caption_graph
from aaca.data.planted_noise import plant_noise, rated_words
from aaca.data.scenegraph.layout import Layout
from aaca.data.scenegraph.samples import GraphSet
from aaca.data.shape_grammar import GRAMMAR, RGB, SHAPES, SIZE, VECTOR, draw_image, relation_of, write_shapes
from aaca.runtime.errors import ConfigError, DataError
from aaca.world.phrases import Said, Thing
from tests.data.layout_toys import check_layout, load

IMAGES = {"trn": 60, "val": 16, "tst": 16}
SETS = ("trn", "val", "val_sub", "tst")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("shapes")
    write_shapes(root, IMAGES, regions=5)
    return root


@pytest.fixture
def fresh(tmp_path):
    write_shapes(tmp_path, {"trn": 20, "val": 20, "tst": 1}, regions=4, seed=1)
    return tmp_path


def test_files_are_as_released(folder):
    check_layout(folder, SETS, SIZE, VECTOR + 5)
    assert len(np.load(folder / "annotation/int2word.npy")) == 19
    assert set(np.load(folder / "annotation/int2word.npy")[3:].tolist()) == GRAMMAR.words
    names = {name: set(np.load(folder / f"annotation/public_split/{name}_names.npy").tolist()) for name in SETS}
    assert {name: len(some) for name, some in names.items()} == {**IMAGES, "val_sub": 8}
    assert names["val_sub"] < names["val"]
    assert not names["trn"] & names["val"] and not names["val"] & names["tst"] and not names["trn"] & names["tst"]


def test_boxes_are_tight_and_relations_hold_in_the_pixels(folder):
    found = Counter()
    pairs, records, _ = load(folder, "trn")
    for image, region in pairs:
        rgb = np.asarray(Image.open(folder / f"images/{image}.png")).astype(int)
        record, centres, things = records[image, region], {}, []
        for entry in record["objects"]:
            inside = rgb[entry["y"] : entry["y"] + entry["h"], entry["x"] : entry["x"] + entry["w"]]
            colours = [word for word, value in RGB.items() if (inside == value).all(-1).any()]
            painted = (inside == RGB[colours[0]]).all(-1)
            assert len(colours) == 1
            assert painted[0].any() and painted[-1].any() and painted[:, 0].any() and painted[:, -1].any()
            filled = painted.mean()
            assert entry["name"] == ("square" if filled == 1 else "circle" if filled > 0.65 else "triangle")
            assert entry["attributes"][:1] in ([], colours)
            assert entry["attributes"][1:] in ([], ["small" if entry["w"] < 18 else "large"])
            centres[entry["object_id"]] = entry["x"] + entry["w"] / 2, entry["y"] + entry["h"] / 2
            things.append(Thing(entry["name"], tuple(entry["attributes"])))
        for link in record["relationships"]:
            (x1, y1), (x2, y2) = centres[link["subject_id"]], centres[link["object_id"]]
            wide = abs(x1 - x2) > abs(y1 - y2)
            word = ("left of" if x1 < x2 else "right of") if wide else ("above" if y1 < y2 else "below")
            assert link["name"] == word
            found[word] += 1
        reading = GRAMMAR.read(record["phrase"])
        assert reading.said.things == tuple(things) and not reading.leftover
        assert [word for _, word, _ in reading.said.relations] == [link["name"] for link in record["relationships"]]
    assert min(found.values()) > 10 and len(found) == 4


def test_the_loader_of_the_released_files_takes_every_sample(folder):
    for name in SETS:
        found = GraphSet.open(replace(Layout.ega(folder), sets=SETS), name)
        pairs, records, features = load(folder, name)
        assert len(found) == len(pairs)
        for row, (image, region) in enumerate(pairs):
            record, item = records[image, region], found.item(row)
            assert not any(problem.serious for problem in found.graph(row).problems((SIZE, SIZE)))
            assert item.words.tolist()[0] == 0 and item.words.tolist()[-1] == 1 and 2 not in item.words.tolist()
            first = record["objects"][0]
            box = first["x"], first["y"], first["x"] + first["w"] - 1, first["y"] + first["h"] - 1
            assert np.allclose(item.features[0], features[image][box], atol=1e-6)
            counts = found.graph(row).counts()
            assert caption_graph(record["phrase"], GRAMMAR).counts() == counts
            assert len(item.nodes) == counts.total <= 10
        assert not any(found.report.summary().get("missing_boxes", {}).values())
    assert caption_graph("a circle hello", GRAMMAR) is None


def test_relations_need_a_clear_difference():
    assert relation_of((0, 0, 10, 10), (20, 5, 30, 15)) == "left of"
    assert relation_of((20, 20, 30, 30), (18, 0, 28, 10)) == "below"
    assert relation_of((0, 0, 10, 10), (20, 18, 30, 28)) is None


def vectors(folder, name):
    """Object features and their (shape, colour or None) in a set."""
    _, records, features = load(folder, name)
    rows, labels = [], []
    for (image, _), record in records.items():
        for e in record["objects"]:
            rows.append(features[image][e["x"], e["y"], e["x"] + e["w"] - 1, e["y"] + e["h"] - 1])
            labels.append((e["name"], *e["attributes"], *([None] * 2))[:3])
    return np.stack(rows), labels


def test_features_tell_shape_colour_and_size(folder):
    train, said = vectors(folder, "trn")
    test, asked = vectors(folder, "tst")
    for kind in range(3):
        known = [index for index, label in enumerate(said) if label[kind]]
        words = sorted({said[index][kind] for index in known})
        goal = np.array([[said[index][kind] == word for word in words] for index in known], dtype=float)
        ridge = train[known].T @ train[known] + 1.0 * np.eye(train.shape[1])
        weights = np.linalg.solve(ridge, train[known].T @ goal)
        right = [
            words[np.argmax(row @ weights)] == label[kind]
            for row, label in zip(test, asked, strict=True)
            if label[kind]
        ]
        assert np.mean(right) > 0.95, (words, np.mean(right))


def test_the_same_seed_writes_the_same_bytes_and_another_does_not(tmp_path):
    for name, seed in (("one", 3), ("two", 3), ("other", 4)):
        write_shapes(tmp_path / name, {"trn": 4, "val": 2, "tst": 2}, regions=3, seed=seed)
    one, two, other = (
        {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in (tmp_path / name).rglob("*")
            if path.is_file()
        }
        for name in ("one", "two", "other")
    )
    assert one == two
    assert one != other


def test_one_image_has_distinct_captions_and_bad_arguments_are_refused(tmp_path):
    image = draw_image(0, "train2014/x", 6)
    assert len({GRAMMAR.say(told.said) for told in image.regions}) == 6
    with pytest.raises(ConfigError, match=r"^graphs.images: .* expected 1 or more"):
        write_shapes(tmp_path, {"trn": 0, "val": 1, "tst": 1})


def captions(folder, name):
    return {pair: record["phrase"] for pair, record in load(folder, name)[1].items()}


def test_noise_is_planted_where_the_truth_says_and_nowhere_else(fresh):
    before = {name: captions(fresh, name) for name in SETS}
    graphs = {name: load(fresh, name)[1] for name in SETS}
    records, truth = plant_noise(fresh, "val", 0.3, seed=0)
    planted = json.loads(truth.read_text())
    assert len(planted) == 6
    changed = {(image, region) for image, some in planted.items() for region in some}
    assert len(changed) > 0.9 * sum(pair[0] in planted for pair in before["val"])  # a bare list of all shapes stays
    for name in SETS:
        now, after = captions(fresh, name), load(fresh, name)[1]
        for pair, text in before[name].items():
            if pair in changed:
                assert planted[pair[0]][pair[1]] == {"was": text, "is": now[pair]}
                assert text != now[pair]
                assert said_of(after[pair]) == GRAMMAR.read(now[pair]).said
                assert one_difference(said_of(graphs[name][pair]), said_of(after[pair]))
            else:
                assert graphs[name][pair] == after[pair]
    check_layout(fresh, SETS, SIZE, VECTOR + 5)
    assert records.name == "val_records.csv"
    with pytest.raises(DataError, match="already"):
        plant_noise(fresh, "val_sub", 0.3, seed=0)


def said_of(record):
    position = {entry["object_id"]: index for index, entry in enumerate(record["objects"])}
    links = [(position[r["subject_id"]], r["name"], position[r["object_id"]]) for r in record["relationships"]]
    return Said(tuple(Thing(e["name"], tuple(e["attributes"])) for e in record["objects"]), tuple(links))


def one_difference(one, other):
    flat = [
        [w for t in said.things for w in (t.name, *t.attributes)] + [str(r) for r in said.relations]
        for said in (one, other)
    ]
    return sum(a != b for a, b in zip(*flat, strict=True)) == 1


def test_records_have_the_released_form_and_rate_wrong_words_low(fresh):
    records, truth = plant_noise(fresh, "trn", 0.5, seed=0, noise=0.0, unit="region")
    changed = json.loads(truth.read_text())
    assert sum(len(some) for some in changed.values()) in (39, 40)
    frame = pd.read_csv(records, dtype={"region": str})
    assert set(frame["content_type"]) == {"object", "relationship", "attribute"}
    name = frame["file"].str.extract(r"^p1_(COCO_train2014_\d{12})__caption_(\d+)_attr_result\.jpg$")
    assert name.notna().all(axis=None)
    texts = captions(fresh, "trn")
    low = Counter()
    for image, position, row in zip(name[0], name[1].astype(int), frame.itertuples(), strict=True):
        pair = f"train2014/{image}", row.region
        word, content = texts[pair].split()[position], row.content
        parts = content.strip("()").split(", ")
        assert (
            word
            == {"object": parts[0], "attribute": parts[-1], "relationship": parts[len(parts) // 2].split()[0]}[
                row.content_type
            ]
        )
        assert 1 <= row.relevance <= 2 or 4 <= row.relevance <= 5
        low[pair] += row.relevance <= 2
    assert {pair for pair, count in low.items() if count} == {(i, r) for i, some in changed.items() for r in some}
    assert {count for count in low.values() if count} == {1}


def test_noisy_ratings_are_noisy_and_fractional(fresh):
    records, _ = plant_noise(fresh, "trn", 0.0, seed=0, noise=1.0)
    ratings = pd.read_csv(records)["relevance"]
    assert 2.7 < ratings.mean() < 3.3
    assert ratings.between(1, 5).all() and (ratings % 1 != 0).any()


def test_rated_words_stand_where_the_caption_has_them():
    said = Said((Thing("circle", ("red", "small")), Thing("square")), ((0, "left of", 1),))
    words = rated_words(GRAMMAR, said, said)
    assert GRAMMAR.say(said) == "a small red circle left of a square"
    assert [(word.position, word.content, word.fits) for word in words] == [
        (1, "(circle, small)", True),
        (2, "(circle, red)", True),
        (3, "circle", True),
        (4, "(circle, left of, square)", True),
        (7, "square", True),
    ]


@pytest.mark.parametrize("arguments", [{"share": 1.5}, {"share": 0.5, "noise": -0.1}])
def test_shares_outside_their_range_are_refused(fresh, arguments):
    with pytest.raises(ConfigError, match="expected 0…1"):
        plant_noise(fresh, "trn", seed=0, **arguments)


def test_a_folder_of_other_captions_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"about\.json"):
        plant_noise(tmp_path, "trn", 0.5, seed=0)
    assert set(SHAPES) == set(GRAMMAR.nouns)
