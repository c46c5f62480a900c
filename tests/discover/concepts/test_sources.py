"""Concept sources: truth from scene graphs and masks, tags and named parts by a toy image-text model."""

import json

import numpy as np
import pandas as pd
import pytest

from aaca.concepts.concept_sets import Concept
from aaca.data.stampscenes import StampScenes
from aaca.data.table import ImageTable
from aaca.discover.concepts.base import View
from aaca.discover.concepts.gt import GroundTruth, shrunk
from aaca.discover.concepts.segment import Segment, crop_of, parts_of
from aaca.discover.concepts.table import UNKNOWN, ConceptTable
from aaca.discover.concepts.tags import Tags, otsu
from aaca.discover.concepts.vocabulary import Vocabulary
from aaca.runtime.errors import ConfigError, DataError

COLOURS = {"sand": (200, 60, 20), "grass": (20, 180, 30), "snow": (240, 240, 255)}


class Eye:
    """Sees the mean colour of what is shown, and knows the colours' names. Its audit images: 4 of sand, 8 of grass."""

    def reference(self):
        return unit(np.array([COLOURS["sand"]] * 4 + [COLOURS["grass"]] * 8) - 128.0)

    def images(self, table):
        return self.crops(np.stack([table.image(row) for row in range(len(table))]))

    def crops(self, crops):
        return unit(crops.reshape(len(crops), -1, 3).mean(axis=1) - 128)

    def texts(self, texts):
        return unit([np.array(next(c for name, c in COLOURS.items() if name in text)) - 128.0 for text in texts])


def unit(vectors):
    values = np.asarray(vectors, dtype=np.float64)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@pytest.fixture
def words(tmp_path):
    (tmp_path / "words.yaml").write_text("background: [sand, grass]\nobject: [snow]\n")
    return str(tmp_path / "words.yaml")


def coloured(folder, names, side=16):
    """Images whose left half has one colour and whose right half another."""
    images = np.zeros((len(names), side, side, 3), dtype=np.uint8)
    for row, (left, right) in enumerate(names):
        images[row, :, : side // 2], images[row, :, side // 2 :] = COLOURS[left], COLOURS[right]
    np.save(folder / "images.npy", images)
    ids = [f"image-{row}" for row in range(len(names))]
    frame = pd.DataFrame({"id": ids, "label": 0, "path": "images.npy", "row": range(len(names))})
    return ImageTable.build(frame, ["thing"], folder)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    counts = {"train": 3, "pool": 1, "audit": 6, "test": 1, "test_seen": 0}
    folder = tmp_path_factory.mktemp("scenes")
    return StampScenes(image_size=40, per_class=counts, masks=["audit"], workers=1).build(folder)


def test_truth_names_what_is_there_and_masks_cover_the_image(scenes):
    audit = scenes.split("audit")
    table = GroundTruth().find(audit, View(40, (5, 5)), None, places=True)
    for row, graph in enumerate(audit.frame["graph"]):
        own = table.frame[table.frame["row"] == row]
        assert set(own["concept"]) == {"backdrop", *(entry["label"] for entry in json.loads(graph)["objects"])}
        np.testing.assert_allclose(table.masks[own["mask"]].astype(float).sum(axis=0), 1, atol=5e-3)
    kinds = table.kinds()
    assert kinds["sand"] == kinds["backdrop"] == "background" and kinds["bird"] == "object"


def test_areas_and_shares_are_sums_over_pixels(scenes):
    audit = scenes.split("audit")
    table = GroundTruth().find(audit, View(40, (5, 5)), None, places=True)
    masks = np.load(audit.root / audit.frame["masks"].iloc[0])
    names = table.names
    area = table.amounts(names)
    row, scene = 3, audit.frame["scene"].iloc[3]
    layer = masks[int(audit.frame["row"].iloc[row]), 1] / 255
    assert area[row, names.index(scene)] == pytest.approx(layer.mean(), abs=2e-3)
    maps = np.random.default_rng(0).random((len(audit), 5, 5)).astype(np.float32)
    share = table.amounts(names, maps)
    big = np.kron(maps[row], np.ones((8, 8)))  # the same map, a value a pixel
    assert share[row, names.index(scene)] == pytest.approx((big * layer).sum() / 64, abs=2e-2)


def test_without_masks_truth_still_says_what_is_there(scenes):
    table = GroundTruth().find(scenes.split("train"), View(40, (5, 5)), None, places=False)
    assert (table.frame["mask"] == -1).all() and table.frame["area"].isna().all()
    assert np.isnan(table.amounts(table.names)[table.present(table.names)]).all()
    with pytest.raises(DataError, match=r"no masks of split train; expected dataset\.masks"):
        GroundTruth().find(scenes.split("train"), View(40, (5, 5)), None, places=True)


def test_truth_of_a_dataset_that_has_none(tmp_path):
    with pytest.raises(DataError, match=r"no ground truth .*concepts=tags"):
        GroundTruth().find(coloured(tmp_path, [("sand", "sand")]), View(16, (4, 4)), None, places=True)


def test_masks_shrink_to_any_grid():
    masks = np.random.default_rng(0).random((2, 12, 12)).astype(np.float32)
    np.testing.assert_allclose(shrunk(masks, (4, 4)), masks.reshape(2, 4, 3, 4, 3).mean(axis=(2, 4)), rtol=1e-5)
    odd = shrunk(masks, (5, 7))
    assert odd.shape == (2, 5, 7)
    np.testing.assert_allclose(odd.mean(axis=(1, 2)), masks.mean(axis=(1, 2)), rtol=1e-5)


def test_masks_are_cropped_as_the_classifier_crops_the_image(scenes):
    audit = scenes.split("audit")
    whole, cropped = (GroundTruth().find(audit, View(size, (4, 4)), None, places=True) for size in (40, 28))
    assert len(whole.frame) == len(cropped.frame)  # 28 of 32 pixels, from the middle
    places = whole.frame.index[whole.frame["concept"] == audit.frame["scene"].iloc[0]]
    inner = np.load(audit.root / audit.frame["masks"].iloc[0])[int(audit.frame["row"].iloc[0]), 1] / 255
    own = next(place for place in places if whole.frame["row"].iloc[place] == 0)
    assert cropped.frame["area"].iloc[own] == pytest.approx(inner[2:38, 2:38].mean(), abs=0.03)


def test_thresholds_come_from_the_audit_images(tmp_path, words):
    few = coloured(tmp_path, [("grass", "grass")] * 3)  # nothing to split here
    assert (
        Tags(words).find(few, View(16, (4, 4)), Eye(), places=False).present(["grass", "sand"]).tolist()
        == [[True, False]] * 3
    )


def test_tags_split_each_concept_s_cosines(tmp_path, words):
    names = [("sand", "sand")] * 4 + [("grass", "grass")] * 8
    table = Tags(words).find(coloured(tmp_path, names), View(16, (4, 4)), Eye(), places=True)
    present = table.present(["grass", "sand"])
    assert present[:, 0].tolist() == [False] * 4 + [True] * 8
    assert present[:4, 1].all() and not present[4:, 1].any()
    assert (table.frame["mask"] == -1).all()
    # two deviations above the mean: what a third of the images show is never found
    missed = Tags(words, threshold="sigma").find(coloured(tmp_path, names), View(16, (4, 4)), Eye(), places=True)
    assert not missed.present(["sand"]).any()


def test_otsu_is_the_best_of_all_splits():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0, 1, 30), rng.normal(4, 1, 12)])

    def between(limit):
        low, high = values[values <= limit], values[values > limit]
        return len(low) * len(high) * (low.mean() - high.mean()) ** 2 if len(low) and len(high) else 0.0

    found = otsu(values)
    assert between(found) == pytest.approx(max(between(limit) for limit in values))
    assert otsu(np.array([1.0])) == float("inf")


def test_parts_are_found_placed_and_named(tmp_path, words):
    images = coloured(tmp_path, [("sand", "grass"), ("snow", "sand"), ("grass", "grass")])
    table = Segment(parts=2, vocabulary=words).find(images, View(16, (4, 4)), Eye(), places=True)
    assert table.present(["grass", "sand", "snow"]).tolist() == [
        [True, True, False],
        [False, True, True],
        [True, False, False],
    ]
    area = table.amounts(["grass", "sand", "snow"])
    np.testing.assert_allclose(area, [[0.5, 0.5, 0], [0, 0.5, 0.5], [1, 0, 0]], atol=1e-3)
    left = table.masks[table.frame[(table.frame["row"] == 0) & (table.frame["concept"] == "sand")]["mask"].iloc[0]]
    np.testing.assert_allclose(left.astype(float), np.repeat([[1, 1, 0, 0]], 4, axis=0), atol=1e-3)


def test_a_part_between_two_names_stays_unknown(tmp_path, words):
    images = coloured(tmp_path, [("sand", "grass")])
    table = Segment(parts=2, margin=3.0, vocabulary=words).find(images, View(16, (4, 4)), Eye(), places=True)
    assert set(table.frame["concept"]) == {UNKNOWN} and table.names == []


def test_parts_make_up_the_image_and_crops_fade_what_is_outside():
    image = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    parts = parts_of(image, 5, 0.6)
    assert 1 < len(parts) <= 5 and (np.sum(parts, axis=0) == 1).all()
    crop = crop_of(image, parts[0])
    assert (crop[parts[0]] == image[parts[0]]).all()
    faded = np.abs(crop[~parts[0]].astype(int) - 128)
    assert (faded <= 0.36 * np.abs(image[~parts[0]].astype(int) - 128) + 1).all()


def test_a_table_survives_a_round_trip_and_is_of_one_table_of_images(tmp_path):
    masks = np.random.default_rng(0).random((2, 3, 3))
    table = ConceptTable.build([0, 2], ["a", UNKNOWN], ["object", "object"], masks, 4, (3, 3))
    table.save(tmp_path)
    again = ConceptTable.load(tmp_path, 4)
    pd.testing.assert_frame_equal(again.frame, table.frame)
    assert (again.masks == table.masks).all() and again.names == ["a"]
    with pytest.raises(DataError, match="concepts of 4 images; expected 5"):
        ConceptTable.load(tmp_path, 5)
    with pytest.raises(DataError, match=r"rows must lie in 0…1"):
        ConceptTable.build([2], ["a"], ["object"], None, 2, (3, 3))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "cannot be read"),
        ("[sand]", "expected a mapping of kinds"),
        ("ground: [sand, snow]", "ground: no such kind; .*background"),
        ("object: [1, 2]", "object: 1; expected a name"),
        ("object: [ball]\nbackground: [ball, sand]", "'ball' is listed twice"),
        ("object: [ball]", "1 names; expected at least 2"),
    ],
)
def test_vocabularies_are_checked_before_any_work(tmp_path, text, message):
    (tmp_path / "words.yaml").write_text(text)
    for source in (Tags, Segment):
        with pytest.raises(ConfigError, match=message):
            source(vocabulary=str(tmp_path / "words.yaml"))


def test_the_vocabulary_s_content_is_part_of_what_was_found(tmp_path, words):
    before = Tags(words).fingerprint()
    (tmp_path / "words.yaml").write_text("object: [sand, grass, snow]\n")
    assert Tags(words).fingerprint() != before
    assert {"sand", "ball", "beak"} <= set(Vocabulary.load(None).names) and Concept("x").kind == "object"


@pytest.mark.parametrize(
    ("build", "key"),
    [
        (lambda: Tags(sigmas=0), "concepts.sigmas: 0"),
        (lambda: Segment(parts=1), "concepts.parts: 1"),
        (lambda: Segment(compactness=0), "concepts.compactness: 0"),
    ],
)
def test_settings_that_make_no_sense(build, key):
    with pytest.raises(ConfigError, match=key):
        build()
