import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import Food101 as Reference

from aaca.data.benchmark import Benchmark
from aaca.data.food101 import Food101
from aaca.data.scan import verify
from aaca.runtime.errors import AacaError, ConfigError, DataError

DISHES = ["waffles", "apple_pie", "steak"]
N_TRAIN, N_TEST = 20, 4
VAL = 3  # 15 % of 20


def names(part: str) -> dict[str, list[str]]:
    start, count = (0, N_TRAIN) if part == "train" else (N_TRAIN, N_TEST)
    return {dish: [f"{dish}/{1000 + 7 * k}" for k in range(start, start + count)] for dish in DISHES}


def write_meta(root: Path, form: str, part: str, lists: object) -> None:
    (root / "meta").mkdir(parents=True, exist_ok=True)
    if form == "json":
        (root / "meta" / f"{part}.json").write_text(json.dumps(lists))
    else:
        lines = [name for own in lists.values() for name in own]  # type: ignore[attr-defined]
        (root / "meta" / f"{part}.txt").write_text("\n".join(lines) + "\n")


def lay(root: Path, forms: tuple[str, ...] = ("json", "txt")) -> Path:
    """The published tree, smaller; every image has pixels of its own."""
    generator = np.random.default_rng(0)
    for part in ("train", "test"):
        for form in forms:
            write_meta(root, form, part, names(part))
        for name in (name for own in names(part).values() for name in own):
            file = root / "images" / f"{name}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(file)
    (root / "meta" / "classes.txt").write_text("\n".join(sorted(DISHES)))
    (root / "meta" / "labels.txt").write_text("Apple pie\nSteak\nWaffles\n")
    return root


def build(root: Path, **arguments: object) -> Benchmark:
    return Food101(str(root), **arguments).build(root)  # type: ignore[arg-type]


def ids(benchmark: Benchmark, *splits: str) -> set[str]:
    return {name for split in splits for name in benchmark.split(split).ids}


def test_splits_of_each_dish(tmp_path: Path) -> None:
    lay(tmp_path)
    before = {path: path.read_bytes() for path in (tmp_path / "meta").iterdir()}
    benchmark = build(tmp_path, pool_share=0.34)
    assert benchmark.classes == ("apple pie", "steak", "waffles")
    frame = benchmark.table.frame
    sizes = {"train": N_TRAIN - VAL, "pool": 1, "audit": 2, "test": N_TEST}
    assert Counter(zip(frame["split"], frame["label"], strict=True)) == {
        (split, label): count for split, count in sizes.items() for label in range(3)
    }
    for split, part in (("train", "train"), ("pool", "train"), ("audit", "train"), ("test", "test")):
        assert ids(benchmark, split) <= {name for own in names(part).values() for name in own}
    assert frame["id"].is_unique and benchmark.refused == []
    assert all(path == f"{tmp_path}/images/{name}.jpg" for path, name in zip(frame["path"], frame["id"], strict=True))
    assert benchmark.split("test").image(0).shape == (8, 8, 3)
    assert {path: path.read_bytes() for path in (tmp_path / "meta").iterdir()} == before


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_same_files_and_labels_as_torchvision(tmp_path: Path, split: str) -> None:
    lay(tmp_path / "food-101")
    reference = Reference(str(tmp_path), split=split)
    expected = {str(path): label for path, label in zip(reference._image_files, reference._labels, strict=True)}
    frame = build(tmp_path).table.frame
    own = frame[(frame["split"] == "test") == (split == "test")]
    assert dict(zip(own["path"], own["label"], strict=True)) == expected


@pytest.mark.parametrize("forms", [("json",), ("txt",)])
def test_either_form_of_the_lists_gives_the_same(tmp_path: Path, forms: tuple[str, ...]) -> None:
    both = Food101(str(lay(tmp_path)))
    expected, table = both.fingerprint(), both.build(tmp_path).table.frame
    for path in (tmp_path / "meta").glob("t*"):
        if path.suffix[1:] not in forms:
            path.unlink()
    one = Food101(str(tmp_path))
    assert one.fingerprint() == expected
    assert one.build(tmp_path).table.frame.equals(table)
    assert one.class_names() == ("apple pie", "steak", "waffles")


def test_of_750_images_112_are_taken(tmp_path: Path) -> None:
    for part, numbers in (("train", range(750)), ("test", range(750, 1000))):
        write_meta(tmp_path, "json", part, {dish: [f"{dish}/{number}" for number in numbers] for dish in DISHES})
    for dish in DISHES:
        (tmp_path / "images" / dish).mkdir(parents=True)
        for number in range(1000):
            (tmp_path / "images" / dish / f"{number}.jpg").touch()
    frame = build(tmp_path).table.frame
    sizes = {"train": 638, "pool": 56, "audit": 56, "test": 250}
    assert frame.groupby(["split", "label"]).size().to_dict() == {
        (split, label): count for split, count in sizes.items() for label in range(3)
    }


def test_validation_hangs_on_ids_and_seed_alone(tmp_path: Path) -> None:
    taken = ids(build(lay(tmp_path)), "pool", "audit")
    assert taken == ids(build(tmp_path), "pool", "audit")
    assert taken != ids(build(tmp_path, seed=1), "pool", "audit")
    lists = {dish: own[::-1] for dish, own in names("train").items()}
    write_meta(tmp_path, "json", "train", lists)
    assert ids(build(tmp_path), "pool", "audit") == taken
    (tmp_path / "images" / "steak" / "unlisted.jpg").touch()
    assert ids(build(tmp_path), "pool", "audit") == taken
    lists["steak"].append("steak/5")
    (tmp_path / "images" / "steak" / "5.jpg").touch()
    write_meta(tmp_path, "json", "train", lists)
    more = ids(build(tmp_path), "pool", "audit")
    assert len(taken - more) <= 1 and more - taken <= {"steak/5"}


def test_per_class_limits_every_split(tmp_path: Path) -> None:
    lay(tmp_path)
    few = build(tmp_path, per_class={"train": 5, "audit": 1, "test": 2})
    assert [len(few.split(split)) for split in ("train", "audit", "test")] == [15, 3, 6]
    assert ids(few, "train") < ids(build(tmp_path), "train")


def test_files_that_cannot_be_used_are_listed(tmp_path: Path) -> None:
    lay(tmp_path)
    steak = sorted(name for name in ids(build(tmp_path), "train") if name.startswith("steak"))
    missing, broken = (tmp_path / "images" / f"{name}.jpg" for name in steak[:2])
    missing.unlink()
    broken.write_bytes(broken.read_bytes()[:-40])
    benchmark = build(tmp_path)
    assert benchmark.refused == [{"path": str(missing), "reason": "named in meta, not there"}]
    clean = verify(benchmark, progress=False).clean(benchmark.table)
    assert set(benchmark.table.ids) - set(clean.ids) == {steak[1]}


def test_the_fingerprint_sees_files_lists_and_arguments(tmp_path: Path) -> None:
    lay(tmp_path)

    def now(**arguments: object) -> dict[str, object]:
        return Food101(str(tmp_path), **arguments).fingerprint()  # type: ignore[arg-type]

    before = now()
    assert now() == before
    others = ({"seed": 1}, {"val_share": 0.2}, {"pool_share": 0.4}, {"per_class": {"train": 3}})
    assert all(now(**one) != before for one in others)
    train, test = names("train"), names("test")
    train["steak"][0], test["steak"][0] = test["steak"][0], train["steak"][0]
    write_meta(tmp_path, "json", "train", train)
    write_meta(tmp_path, "json", "test", test)
    changed = now()
    assert changed["said"] != before["said"] and changed["files"] == before["files"]
    os.utime(tmp_path / "images" / "steak" / "1000.jpg", ns=(1, 1))
    assert now()["files"] != before["files"]


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"steak": ["waffles/1000"]}, r"train\.json has the name 'waffles/1000'; expected <class>/<id>"),
        ({"..": ["../secret"]}, r"train\.json has the name '\.\./secret'"),
        ({"steak": ["steak/../../secret"]}, r"train\.json has the name 'steak/\.\./\.\./secret'"),
        ({"": ["/etc"]}, r"train\.json has the name '/etc'"),
        ({}, r"train\.json has no name"),
        ({"steak": [7]}, r"train\.json is not a JSON object"),
        (["steak/1000"], r"train\.json is not a JSON object"),
        (
            {**names("train"), "steak": names("test")["steak"]},
            r"lists 'steak/1140' more than once \(splits: train, test",
        ),
        ({"steak": names("train")["steak"]}, r"class 'apple_pie' of .*meta is in 'test' but not in 'train'"),
    ],
)
def test_wrong_lists(tmp_path: Path, lists: object, message: str) -> None:
    lay(tmp_path)
    write_meta(tmp_path, "json", "train", lists)
    with pytest.raises(DataError, match=rf"^dataset\.root: .*{message}"):
        build(tmp_path)


def test_wrong_trees(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^dataset\.root: '.*/none' is not a folder"):
        build(tmp_path / "none")
    (tmp_path / "food").mkdir()
    with pytest.raises(DataError, match=r"no folders images and meta in .* or its food-101; it holds food$"):
        build(tmp_path)
    lay(tmp_path / "a", ("json",))
    (tmp_path / "a" / "meta" / "train.json").write_text("{")
    with pytest.raises(DataError, match=r"train\.json is not readable as JSON \([^\n]*\)$"):
        build(tmp_path / "a")
    (tmp_path / "a" / "meta" / "train.json").unlink()
    with pytest.raises(DataError, match=r"neither train\.json nor train\.txt is in "):
        build(tmp_path / "a")
    (tmp_path / "a" / "meta" / "train.txt").write_text("steak\n")
    with pytest.raises(DataError, match=r"train\.txt has the name 'steak'"):
        build(tmp_path / "a")
    (tmp_path / "a" / "meta" / "train.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"train\.txt is not UTF-8 text"):
        build(tmp_path / "a")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"val_share": 1.0}, r"dataset\.val_share: 1\.0; expected a number between 0 and 1"),
        ({"pool_share": 0.0}, r"dataset\.pool_share: 0\.0; expected a number between 0 and 1"),
        ({"per_class": {"pol": 1}}, r"dataset\.per_class\.pol: .*nearest valid: pool"),
        ({"per_class": {"test": 5}}, r"dataset\.per_class\.test: 5 .*'apple pie' has 4"),
    ],
)
def test_wrong_arguments(tmp_path: Path, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(lay(tmp_path), **arguments)


def test_what_is_known_before_looking() -> None:
    source = Food101("/nowhere", per_class={"pool": 7})
    assert (source.at_most("pool"), source.at_most("train")) == (7, None)
    with pytest.raises(AacaError):
        source.fingerprint()
