import json
import os
import pickle
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aaca.data.benchmark import Benchmark
from aaca.data.metashift import MetaShift
from aaca.data.scan import verify
from aaca.runtime.errors import AacaError, ConfigError, DataError

SCENARIO = "cat-dog-bird:dog(water)"
SIZES = {"train": 8, "pool": 3, "audit": 3, "test": 4}
N_WATER = 5  # dogs at the water: fewer than train asks for
BOTH = ["200", "201", "202", "203", "204", "205"]  # a cat and a dog on one photo


def subsets() -> defaultdict[str, set[str]]:
    """As published: subsets overlap within a class, and between classes."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for start, name in ((0, "cat"), (30, "bird"), (60, "dog")):
        own = [str(1000 + start + k) for k in range(24)]
        found[f"{name}(sofa)"] = set(own[:14])
        found[f"{name}(grass)"] = set(own[10:])
    found["dog(water)"] = {f"{1200 + k}" for k in range(N_WATER - 1)} | {"1060"}  # the last also lies on the sofa
    found["bird(water)"] = {"1030", "1031"}
    found["cat(box)"].update(BOTH)
    found["dog(grass)"].update(BOTH)
    found["horse(grass)"] = {"9000"}
    return found


def lay(root: Path) -> Path:
    """The published tree, smaller; the photo of a class that is not asked for is not there."""
    images, meta = root / "data" / "allImages" / "images", root / "dataset" / "meta_data"
    images.mkdir(parents=True, exist_ok=True)
    meta.mkdir(parents=True, exist_ok=True)
    (meta / "full-candidate-subsets.pkl").write_bytes(pickle.dumps(subsets()))
    generator = np.random.default_rng(0)
    for name in sorted(set().union(*subsets().values()) - {"9000"}):
        Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(images / f"{name}.jpg")
    return root


def build(root: Path, out: Path | None = None, **arguments: object) -> Benchmark:
    given = {"scenario": SCENARIO, "per_class": SIZES, **arguments}
    return MetaShift(str(root), **given).build(out or root / "out")  # type: ignore[arg-type]


def of(benchmark: Benchmark, split: str, name: str) -> list[str]:
    table = benchmark.split(split)
    return table.frame["source"][table.labels == benchmark.classes.index(name)].tolist()


def members(name: str) -> set[str]:
    return set().union(*(ids for key, ids in subsets().items() if key.startswith(f"{name}(")))


def test_sizes_labels_and_disjoint_sources(tmp_path: Path) -> None:
    benchmark = build(lay(tmp_path))
    frame = benchmark.table.frame
    assert benchmark.classes == ("cat", "dog", "bird") and benchmark.refused == []
    assert Counter(zip(frame["split"], frame["label"], strict=True)) == {
        (split, label): count for split, count in SIZES.items() for label in range(3)
    }
    for label, name in enumerate(benchmark.classes):
        assert set(frame["source"][frame["label"] == label]) <= members(name)
    sources = frame.groupby("source")
    assert (sources["split"].nunique() == 1).all() and (sources["label"].nunique() == 1).all()
    assert benchmark.split("test").image(0).shape == (8, 8, 3)


def test_the_shifted_class_is_trained_on_its_context_alone(tmp_path: Path) -> None:
    benchmark = build(lay(tmp_path))
    water = subsets()["dog(water)"]
    assert set(of(benchmark, "train", "dog")) == water
    assert not water & {name for split in ("pool", "audit", "test") for name in of(benchmark, split, "dog")}
    groups = benchmark.table.frame.groupby("split")["group"].agg(set)
    assert {name for name in groups["train"] if name.startswith("dog")} == {"dog|water"}
    assert {name for name in groups["test"] if name.startswith("dog")} == {"dog|no water"}
    for name, group in benchmark.table.frame.query("label == 2")[["source", "group"]].to_numpy():
        assert group == ("bird|water" if name in {"1030", "1031"} else "bird|no water")
    assert benchmark.confounders == [{"class": "dog", "kind": "context", "value": "water", "p": 1.0}]


def test_too_few_are_repeated_by_links(tmp_path: Path) -> None:
    lay(tmp_path)
    benchmark = build(tmp_path)
    train = benchmark.split("train").frame.query("label == 1")
    repeats = train[train["id"] != train["source"]]
    assert (len(train), len(repeats)) == (SIZES["train"], SIZES["train"] - N_WATER)
    for path, source in repeats[["path", "source"]].to_numpy():
        assert (tmp_path / "out" / path).resolve() == tmp_path / f"data/allImages/images/{source}.jpg"
    benchmark.save(tmp_path / "out")
    moved = (tmp_path / "out").rename(tmp_path / "published")
    again = Benchmark.load(moved)
    report = verify(again, progress=False)
    assert len(report.clean(again.table)) == len(again.table) and set(report.counts()) == {"repeated"}
    assert all(again.table.image(position).shape == (8, 8, 3) for position in range(len(again.table)))


def test_enough_are_drawn_without_repeats(tmp_path: Path) -> None:
    lay(tmp_path)
    benchmark = build(tmp_path, per_class={**SIZES, "train": 3})
    dogs = of(benchmark, "train", "dog")
    assert len(set(dogs)) == 3 and set(dogs) < subsets()["dog(water)"]
    assert not (tmp_path / "out").exists()
    assert all(Path(path).is_absolute() for path in benchmark.table.frame["path"])


def test_a_photo_of_two_classes_goes_to_one(tmp_path: Path) -> None:
    lay(tmp_path)
    homes: dict[str, set[int]] = defaultdict(set)
    for seed in range(6):
        source = MetaShift(str(tmp_path), scenario=SCENARIO, per_class=SIZES, seed=seed)
        frame = source._look()[0][0]
        shared = frame[frame["id"].isin(BOTH)]
        assert sorted(shared["id"]) == BOTH
        for name, label in shared[["id", "label"]].to_numpy():
            homes[name].add(label)
    assert set().union(*homes.values()) == {0, 1} and any(len(labels) == 2 for labels in homes.values())


def test_the_draw_follows_the_seed_and_ids_alone(tmp_path: Path) -> None:
    lay(tmp_path)
    columns = ["id", "split", "label", "path"]
    first, again, other = (build(tmp_path, seed=seed).table.frame[columns] for seed in (0, 0, 1))
    assert first.equals(again) and not first.equals(other)
    page = {name: sorted(ids, reverse=True) for name, ids in sorted(subsets().items(), reverse=True)}
    (tmp_path / "dataset/meta_data/full-candidate-subsets.pkl").unlink()
    (tmp_path / "dataset/meta_data/full-candidate-subsets.json").write_text(json.dumps(page))
    assert build(tmp_path).table.frame[columns].equals(first)
    (tmp_path / "mine.json").write_text(json.dumps(page))
    (tmp_path / "dataset/meta_data/full-candidate-subsets.json").unlink()
    assert build(tmp_path, subsets="mine.json").table.frame[columns].equals(first)
    (tmp_path / "full-candidate-subsets.pkl").write_bytes(pickle.dumps(subsets(), protocol=2))
    (tmp_path / "data" / "allImages").rename(tmp_path / "allImages")  # the tree of CCE's authors
    assert build(tmp_path).table.frame[columns[:3]].equals(first[columns[:3]])


def test_sizes_are_the_published_ones_where_none_are_given(tmp_path: Path) -> None:
    source = MetaShift(str(tmp_path), per_class={"test": 7, "pool": None})
    assert {split: source.at_most(split) for split in SIZES} == {"train": 100, "pool": 50, "audit": 50, "test": 7}
    assert source.class_names() == ("bear", "bird", "cat", "dog", "elephant")
    folders = MetaShift(str(tmp_path), layout="subpop")
    assert folders.at_most("train") is None and folders.class_names() is None


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch ran",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({"dog(water)": {"1"}, "x": Hostile()}), r"it names (posix|nt)\.system; expected sets of text"),
        (pickle.dumps(np.zeros(2)), r"it names numpy\."),
        (pickle.dumps({"dog(water)": {"1"}})[:-9], r"not a list of subsets \([^\n]+\)$"),
        (b"", r"not a list of subsets \([^\n]+\)$"),
        (pickle.dumps(["dog(water)"]), r"expected subset → image ids"),
        (pickle.dumps({"dog(water)": {1, 2}}), r"subset 'dog\(water\)' is not a set of image ids as text"),
        (pickle.dumps({7: {"1"}}), r"subset 7 is not a set"),
    ],
)
def test_a_list_that_is_none_is_refused_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    lay(tmp_path)
    (tmp_path / "dataset/meta_data/full-candidate-subsets.pkl").write_bytes(content)
    with pytest.raises(DataError, match=rf"full-candidate-subsets\.pkl: .*{message}"):
        build(tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"scenario": "cat-dgo-bird:cat(water)"},
            r"dataset\.scenario: MetaShift has no class 'dgo'; nearest valid: dog",
        ),
        (
            {"scenario": "cat-dog:dgo(water)"},
            r"dataset\.scenario: the shifted 'dgo' is no class of it; nearest valid: dog",
        ),
        ({"scenario": "cat-dog:dog(wter)"}, r"dataset\.scenario: 'dog' has no context 'wter'; nearest valid: water"),
        ({"scenario": "cat-dog"}, r"dataset\.scenario: 'cat-dog'; expected at least 2 classes and the shift, as in"),
        ({"scenario": "dog-dog:dog(water)"}, r"dataset\.scenario: 'dog-dog:dog\(water\)'; expected at least 2"),
        ({"layout": "subset"}, r"dataset\.layout: 'subset'; nearest valid: subsets"),
        ({"pool_share": 0.0}, r"dataset\.pool_share: 0\.0; expected a number between 0 and 1"),
        ({"pool_share": 0.5, "audit_share": 0.5}, r"dataset\.audit_share: 0\.5; expected less than 0\.5"),
        ({"per_class": {"pol": 1}}, r"dataset\.per_class\.pol: .*nearest valid: pool"),
        ({"per_class": {**SIZES, "test": 40}}, r"dataset\.per_class\.test: 40 for test and .*has \d+ images"),
        ({"per_class": {**SIZES, "train": 40}}, r"dataset\.per_class\.train: 40 .*class 'cat' has"),
    ],
)
def test_wrong_arguments(tmp_path: Path, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(lay(tmp_path), **arguments)


def test_files_that_cannot_be_used_are_listed(tmp_path: Path) -> None:
    lay(tmp_path)
    images = tmp_path / "data" / "allImages" / "images"
    train = of(build(tmp_path), "train", "bird")
    missing, broken = (images / f"{name}.jpg" for name in train[:2])
    missing.unlink()
    broken.write_bytes(broken.read_bytes()[:-40])
    benchmark = build(tmp_path)
    assert [(one["path"], "No such file" in one["reason"]) for one in benchmark.refused] == [(str(missing), True)]
    assert train[0] not in benchmark.table.ids
    clean = verify(benchmark, progress=False).clean(benchmark.table)
    assert set(benchmark.table.ids) - set(clean.ids) == {train[1]}


def test_an_id_does_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    lay(tmp_path / "root")
    found = subsets()
    found["dog(sofa)"].add("../../../../secret")
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.jpg")
    (tmp_path / "root/dataset/meta_data/full-candidate-subsets.pkl").write_bytes(pickle.dumps(found))
    assert [one["reason"] for one in build(tmp_path / "root").refused] == ["lies outside dataset.root"]


def test_the_fingerprint_sees_files_lists_and_arguments(tmp_path: Path) -> None:
    lay(tmp_path)

    def now(**arguments: object) -> dict[str, object]:
        return MetaShift(str(tmp_path), **{"scenario": SCENARIO, **arguments}).fingerprint()  # type: ignore[arg-type]

    before = now()
    assert now() == before
    others = ({"seed": 1}, {"scenario": "cat-dog-bird:bird(water)"}, {"per_class": {"train": 3}})
    assert all(now(**one) != before for one in others)
    found = subsets()
    found["dog(water)"].discard("1060")
    (tmp_path / "dataset/meta_data/full-candidate-subsets.pkl").write_bytes(pickle.dumps(found))
    changed = now()
    assert changed["said"] != before["said"] and changed["files"] == before["files"]
    os.utime(tmp_path / "data" / "allImages" / "images" / "1000.jpg", ns=(1, 1))
    assert now()["files"] != before["files"]


def test_wrong_trees(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^dataset\.root: '.*/none' is not a folder"):
        build(tmp_path / "none")
    with pytest.raises(DataError, match=r"no folder data/allImages/images or allImages/images in"):
        build(tmp_path)
    lay(tmp_path)
    with pytest.raises(DataError, match=r"^dataset\.subsets: no .*/mine\.json; expected MetaShift's list"):
        build(tmp_path, subsets="mine.json")
    (tmp_path / "dataset/meta_data/full-candidate-subsets.pkl").unlink()
    with pytest.raises(DataError, match=r"^dataset\.root: no .*full-candidate-subsets\.pkl; expected MetaShift's"):
        build(tmp_path)
    with pytest.raises(AacaError):
        MetaShift("/nowhere").fingerprint()


FOLDERS = {
    "train/cat/cat(indoor)": 20,
    "train/dog/dog(outdoor)": 20,
    "test/cat/cat(outdoor)": 4,
    "test/dog/dog(indoor)": 3,
}


def lay_folders(root: Path) -> Path:
    """MetaShift-Cat-Dog-indoor-outdoor, smaller; photo 7 is a cat and a dog, in train and in test."""
    generator = np.random.default_rng(0)
    names = {folder: [100 * at + k for k in range(count)] for at, (folder, count) in enumerate(FOLDERS.items(), 1)}
    for folder, numbers in names.items():
        (root / folder).mkdir(parents=True)
        for number in numbers:
            Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(root / folder / f"{number}.jpg")
    photo = (root / "test/dog/dog(indoor)" / f"{names['test/dog/dog(indoor)'][0]}.jpg").read_bytes()
    for folder in ("train/cat/cat(indoor)", "train/dog/dog(outdoor)", "test/dog/dog(indoor)"):
        (root / folder / "7.jpg").write_bytes(photo[:-2] + b"\xff\xd9")
    (root / "train/dog/dog(outdoor)" / "100.jpg").write_bytes((root / "train/cat/cat(indoor)/100.jpg").read_bytes())
    return root


def test_folders_of_subpop(tmp_path: Path) -> None:
    lay_folders(tmp_path / "MetaShift-Cat-Dog-indoor-outdoor")
    benchmark = MetaShift(str(tmp_path), layout="subpop", pool_share=0.2).build(tmp_path / "out")
    assert benchmark.classes == ("cat", "dog")
    frame = benchmark.table.frame
    assert Counter(frame["group"][frame["split"] == "test"]) == {"cat|outdoor": 4, "dog|indoor": 4}
    assert set(frame["group"][frame["split"] != "test"]) == {"cat|indoor", "dog|outdoor"}
    assert Counter(frame["split"]) == {"train": 28, "pool": 8, "audit": 4, "test": 8}
    assert frame["source"].is_unique
    assert frame["source"].tolist() == [Path(path).stem for path in frame["path"]]
    assert frame.query("source == '7'")["split"].tolist() == ["test"]
    kept = [Path(one["path"]).name for one in benchmark.refused]
    assert sorted(kept) == ["100.jpg", "7.jpg", "7.jpg"]
    assert {one["reason"] for one in benchmark.refused} == {"the same photo is kept in another folder"}
    assert [(one["class"], one["value"], one["p"]) for one in benchmark.confounders] == [
        ("cat", "indoor", 1.0),
        ("dog", "outdoor", 1.0),
    ]
    inside = MetaShift(str(tmp_path / "MetaShift-Cat-Dog-indoor-outdoor"), layout="subpop", pool_share=0.2)
    assert inside.build(tmp_path / "out").table.frame.equals(frame)


def test_folders_are_cut_by_the_seed(tmp_path: Path) -> None:
    lay_folders(tmp_path)

    def splits(seed: int) -> dict[str, str]:
        frame = MetaShift(str(tmp_path), layout="subpop", seed=seed).build(tmp_path / "out").table.frame
        return dict(zip(frame["id"], frame["split"], strict=True))

    assert splits(0) == splits(0) != splits(1)
    before = MetaShift(str(tmp_path), layout="subpop").fingerprint()
    assert MetaShift(str(tmp_path), layout="subpop", seed=1).fingerprint() != before
    assert MetaShift(str(tmp_path), layout="subpop", scenario=SCENARIO).fingerprint() == before


def test_wrong_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder train in .* or its MetaShift-Cat-Dog-indoor-outdoor"):
        MetaShift(str(tmp_path), layout="subpop").build(tmp_path)
    (tmp_path / "train" / "cat").mkdir(parents=True)
    with pytest.raises(DataError, match=r"no folder 'test/cat' in .*; train has class 'cat'"):
        MetaShift(str(tmp_path), layout="subpop").build(tmp_path)
    (tmp_path / "test" / "cat").mkdir(parents=True)
    with pytest.raises(DataError, match=r"no image in <split>/<class>/<subset> of"):
        MetaShift(str(tmp_path), layout="subpop").build(tmp_path)
