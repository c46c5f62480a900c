import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from aaca.data.benchmark import Benchmark
from aaca.data.stampscenes import PER_CLASS, StampScenes
from aaca.runtime.errors import ConfigError
from aaca.world import batch
from aaca.world.bugs import DEFAULT_BUGS, Bug
from aaca.world.pack import load_pack
from aaca.world.render import render
from aaca.world.scenes import draw_spec

SMALL = {"train": 6, "pool": 8, "audit": 40, "test": 10, "test_seen": 3}
PLANTED = {"bird": "sand", "mammal": "grass"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stampscenes")
    return folder, StampScenes(image_size=32, per_class=SMALL, masks=list(PER_CLASS), workers=1).build(folder)


def sources_of(frame: pd.DataFrame) -> set[str]:
    columns = ["source", "scene_source", "concept_source", "backdrop"]
    return set(frame[columns].to_numpy().ravel()) - {""}


def test_table_and_arrays(built):
    folder, benchmark = built
    frame = benchmark.table.frame
    counts = frame.groupby(["split", "slice", "label"]).size()
    assert {(split, n) for (split, _, _), n in counts.items()} == set(SMALL.items())
    assert set(frame.loc[frame["split"] == "test", "slice"]) == {"aligned", "conflicting", "balanced"}
    assert set(frame.loc[frame["split"] == "pool", "slice"]) == {"all"}
    for split in SMALL:
        table = benchmark.split(split)
        images, rows = np.load(folder / f"{split}.npy", mmap_mode="r"), table.frame["row"]
        assert set(table.frame["path"]) == {f"{split}.npy"}
        assert images.shape == (len(table), 32, 32, 3) and sorted(rows) == list(range(len(table)))
        masks = np.load(folder / f"{split}.masks.npy", mmap_mode="r")
        assert masks.shape == (len(table), 4, 32, 32) and (masks.astype(int).sum(axis=1) == 255).all()
        assert (table.frame["masks"] == f"{split}.masks.npy").all()
    again = Benchmark.load(folder)
    pd.testing.assert_frame_equal(again.table.frame, frame)
    assert again.headline_slice == "balanced"
    assert {"class": "bird", "kind": "scene", "value": "sand", "p": 0.95} in again.confounders


def test_a_row_shows_what_it_says(built):
    _, benchmark = built
    frame = benchmark.table.frame
    drawn = frame[frame["split"] != "audit"].index
    for row in (drawn[0], drawn[50], drawn[90], drawn[-1]):
        entry = frame.iloc[row]
        cls, index = entry["id"].split("/")[-2:]
        tested = entry["split"].startswith("test")
        spec = draw_spec(
            0,
            entry["split"],
            entry["slice"] if tested else "aligned",
            cls,
            int(index),
            bugs=_bugs(0.8 if entry["split"] == "pool" else 0.95),
            sources="test" if entry["split"] == "test" else "train",
        )
        rendered = render(spec, 32)
        assert (benchmark.table.image(row) == rendered.rgb).all()
        assert benchmark.classes[entry["label"]] == cls and spec.scene == entry["scene"]
        assert tuple(json.loads(entry["box"])) == rendered.boxes["object"]
        assert json.loads(entry["graph"])["objects"][0]["label"] == cls
        assert entry["source"] == spec.object.piece.source


def _bugs(p):
    return tuple(Bug(bug.cls, bug.kind, bug.value, p) for bug in DEFAULT_BUGS)


def test_no_source_of_test_is_anywhere_else(built):
    frame = built[1].table.frame
    test = frame["split"] == "test"
    assert not sources_of(frame[test]) & sources_of(frame[~test])
    train_like = frame["split"].isin(["train", "pool", "test_seen"])
    new_in_audit = sources_of(frame[frame["split"] == "audit"]) - sources_of(frame[train_like])
    assert len(new_in_audit) > 5  # the val sources


def test_audit_mixes_val_sources_in(built):
    split_of = {piece.source: piece.split for piece in load_pack().all}
    audit = built[1].split("audit").frame
    shares = audit["source"].map(split_of).value_counts(normalize=True)
    assert set(shares.index) == {"train", "val"} and 0.1 < shares["val"] < 0.31  # 0.2 ± 3.4 sd of 160
    assert (audit["source"].map(split_of) == audit["backdrop"].map(split_of)).all()


def test_slices_and_groups(built):
    frame = built[1].table.frame
    conflicting = frame[(frame["split"] == "test") & (frame["slice"] == "conflicting")]
    groups = {"bird on grass", "mammal on sand", "produce without ball", "flower with ball"}
    assert set(conflicting["group"]) == groups
    for row in frame.itertuples():
        cls = row.id.split("/")[-2]
        if cls in PLANTED:
            where = row.scene if row.scene in PLANTED.values() else "other"
            assert row.group == f"{cls} on {where}"
        else:
            assert row.group == f"{cls} {'with' if row.concept == 'ball' else 'without'} ball"


def test_pool_is_milder_than_train(tmp_path):
    counts = {"train": 120, "pool": 120, "audit": 1, "test": 1, "test_seen": 0}
    frame = StampScenes(image_size=16, per_class=counts, workers=1).build(tmp_path).table.frame
    for split, p in (("train", 0.95), ("pool", 0.8)):
        for cls, group in (("bird", "bird on sand"), ("produce", "produce with ball")):
            rows = frame[(frame["split"] == split) & frame["id"].str.contains(f"/{cls}/")]
            sd = np.sqrt(p * (1 - p) / 120)
            assert abs((rows["group"] == group).mean() - p) < 4 * sd
    assert "test_seen" not in set(frame["split"])


def test_workers_and_counts_do_not_change_an_image(built, tmp_path, monkeypatch):
    folder, benchmark = built
    monkeypatch.setattr(batch, "CHUNK", 40)
    counts = {"train": 9, "pool": 2, "audit": 12, "test": 10, "test_seen": 0}
    other = StampScenes(image_size=32, per_class=counts, masks=list(PER_CLASS), workers=2).build(tmp_path)
    for split in ("train", "pool", "audit", "test"):
        for name in (f"{split}.npy", f"{split}.masks.npy"):
            ours, theirs = np.load(folder / name, mmap_mode="r"), np.load(tmp_path / name, mmap_mode="r")
            shared = min(len(ours), len(theirs))
            assert (ours[:shared] == theirs[:shared]).all()
        pd.testing.assert_frame_equal(
            other.split(split).frame.iloc[:shared], benchmark.split(split).frame.iloc[:shared], check_exact=True
        )


def test_without_bugs_there_is_one_slice_and_no_group_but_the_class(tmp_path):
    counts = dict.fromkeys(SMALL, 2)
    benchmark = StampScenes(image_size=16, per_class=counts, bugs=[], masks=[], workers=1).build(tmp_path)
    frame = benchmark.table.frame
    assert benchmark.confounders == [] and set(frame["group"]) == set(benchmark.classes)
    assert set(frame.loc[frame["split"] == "test", "slice"]) == {"balanced"}
    assert set(frame["masks"]) == {""} and not list(tmp_path.glob("*.masks.npy"))


def test_fingerprint_follows_what_matters():
    base = StampScenes().fingerprint()
    assert StampScenes(workers=7).fingerprint() == base
    for change in (
        {"seed": 1},
        {"p_pool": 0.7},
        {"masks": []},
        {"bugs": []},
        {"stray": 0.1},
        {"image_size": 32},
    ):
        assert StampScenes(**change).fingerprint() != base, change


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bugs": [{"class": "brid", "kind": "scene", "value": "sand"}]}, r"dataset\.bugs\[0\]\.class.*nearest.*bird"),
        ({"bugs": [{"class": "bird", "kind": "scene", "value": "gras"}]}, r"dataset\.bugs\[0\]\.value.*grass"),
        ({"bugs": [{"class": "bird", "kind": "concept", "value": "sand"}]}, r"dataset\.bugs\[0\]\.value.*ball"),
        ({"bugs": [{"class": "bird", "kind": "place", "value": "sand"}]}, r"dataset\.bugs\[0\]\.kind"),
        ({"bugs": [{"class": "bird", "kind": "scene"}]}, r"dataset\.bugs\[0\]\.value: missing"),
        ({"bugs": [{"class": "bird", "kind": "scene", "value": "sand", "q": 1}]}, r"dataset\.bugs\[0\]\.q: unknown"),
        ({"bugs": [{"class": "bird", "kind": "scene", "value": "sand", "p": 2}]}, r"dataset\.bugs\[0\]\.p"),
        ({"bugs": [{"class": "bird", "kind": "scene", "value": v} for v in ("sand", "snow")]}, r"dataset\.bugs\[1\]"),
        ({"p_train": 1.5}, r"dataset\.p_train: 1\.5"),
        ({"stray": -0.1}, r"dataset\.stray"),
        ({"image_size": 4}, r"dataset\.image_size"),
        ({"workers": 0}, r"dataset\.workers"),
        ({"per_class": {**SMALL, "train": 0}}, r"dataset\.per_class\.train: 0"),
        ({"per_class": {"train": 5}}, r"dataset\.per_class\.pool: missing"),
        ({"per_class": {**SMALL, "tset": 5}}, r"dataset\.per_class\.tset.*nearest.*test"),
    ],
)
def test_impossible_arguments_are_refused_in_one_line(arguments, message):
    with pytest.raises(ConfigError, match=message) as caught:
        StampScenes(**arguments)
    assert "\n" not in str(caught.value)


def test_the_config_file_states_the_defaults():
    text = (Path(__file__).parents[2] / "conf/dataset/stampscenes.yaml").read_text(encoding="utf-8")
    config = yaml.safe_load(text)
    assert text.startswith("#") and config.pop("_target_") == "aaca.data.stampscenes.StampScenes"
    assert StampScenes(**config).fingerprint() == StampScenes().fingerprint()
