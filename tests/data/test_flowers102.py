import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from torchvision.datasets import Flowers102 as Reference

from aaca.data.benchmark import Benchmark
from aaca.data.flowers102 import NAMES, Flowers102
from aaca.data.scan import verify
from aaca.runtime.errors import AacaError, ConfigError, DataError

CLASSES = 5
SIZES = {"trnid": 3, "valid": 4, "tstid": 2}  # images a class


def lists() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Labels from 1 up, mixed, and the numbers (from 1 up) of each list's images."""
    each = sum(SIZES.values())
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(1, CLASSES + 1), each))
    bounds = np.cumsum([0, *SIZES.values()])
    own = [np.flatnonzero(labels == label) + 1 for label in range(1, CLASSES + 1)]
    return labels, {
        key: np.concatenate([numbers[start:stop] for numbers in own])
        for key, start, stop in zip(SIZES, bounds[:-1], bounds[1:], strict=True)
    }


def lay(root: Path, **wrong: np.ndarray) -> Path:
    """The published tree, smaller; `wrong` arrays take the place of those of their name."""
    (root / "jpg").mkdir(parents=True, exist_ok=True)
    labels, splits = lists()
    arrays = {"labels": labels, **splits, **wrong}
    savemat(root / "imagelabels.mat", {"labels": arrays.pop("labels").astype(np.uint8)})
    savemat(root / "setid.mat", {key: numbers.astype(np.uint16) for key, numbers in arrays.items()})
    generator = np.random.default_rng(1)
    for number in range(1, len(labels) + 1):
        pixels = generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "jpg" / f"image_{number:05d}.jpg")
    return root


def build(root: Path, **arguments: object) -> Benchmark:
    return Flowers102(str(root), **arguments).build(root)  # type: ignore[arg-type]


def numbers_of(benchmark: Benchmark, *splits: str) -> set[int]:
    return {int(name[6:11]) for split in splits for name in benchmark.split(split).ids}


def test_splits_and_labels_are_the_published_ones(tmp_path: Path) -> None:
    benchmark = build(lay(tmp_path))
    labels, splits = lists()
    for key, parts in (("trnid", ["train"]), ("valid", ["pool", "audit"]), ("tstid", ["test"])):
        assert numbers_of(benchmark, *parts) == set(splits[key].tolist())
    assert len(benchmark.table) == len(labels) and benchmark.refused == []
    for name, label, path in benchmark.table.frame[["id", "label", "path"]].to_numpy():
        assert label == labels[int(name[6:11]) - 1] - 1
        assert path == f"{tmp_path}/jpg/{name}"
    assert benchmark.split("test").image(0).shape == (6, 8, 3)


@pytest.mark.parametrize(("split", "key"), [("train", "trnid"), ("test", "tstid")])
def test_the_same_files_and_labels_as_torchvision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: str, key: str
) -> None:
    monkeypatch.setattr(Reference, "_check_integrity", lambda *_: True)  # it wants the real lists' MD5
    lay(tmp_path / "flowers-102")
    reference = Reference(str(tmp_path), split=split)
    expected = {str(path): label for path, label in zip(reference._image_files, reference._labels, strict=True)}
    frame = build(tmp_path).split(split).frame
    assert dict(zip(frame["path"], frame["label"], strict=True)) == expected and len(expected) == SIZES[key] * CLASSES


def test_names_are_those_of_the_labels_in_order() -> None:
    assert [name.rstrip("?") for name in Reference.classes] == list(NAMES)  # torchvision writes "dahlia?"
    assert (len(NAMES), NAMES[0], NAMES[3], NAMES[93], NAMES[101]) == (
        102,
        "pink primrose",
        "sweet pea",
        "foxglove",
        "blackberry lily",
    )


def test_classes_are_the_names_that_the_labels_reach(tmp_path: Path) -> None:
    lay(tmp_path)
    assert build(tmp_path).classes == Flowers102(str(tmp_path)).class_names() == NAMES[:CLASSES]


def test_the_folder_above_gives_the_same(tmp_path: Path) -> None:
    lay(tmp_path / "flowers-102")
    above, plain = build(tmp_path), build(tmp_path / "flowers-102")
    assert above.table.frame.equals(plain.table.frame)


def test_val_becomes_pool_and_audit_class_by_class(tmp_path: Path) -> None:
    lay(tmp_path)
    for share, count in ((0.5, 2), (0.25, 1), (0.99, 3)):
        benchmark = build(tmp_path, pool_share=share)
        assert np.bincount(benchmark.split("pool").labels).tolist() == [count] * CLASSES
        assert np.bincount(benchmark.split("audit").labels).tolist() == [4 - count] * CLASSES
    assert numbers_of(build(tmp_path), "pool") == numbers_of(build(tmp_path), "pool")
    assert numbers_of(build(tmp_path), "pool") != numbers_of(build(tmp_path, seed=1), "pool")
    few = build(tmp_path, per_class={"train": 2, "test": 1})
    assert np.bincount(few.split("train").labels).tolist() == [2] * CLASSES
    assert numbers_of(few, "train") < numbers_of(build(tmp_path), "train")
    assert (len(few.split("test")), len(few.split("pool"))) == (CLASSES, 2 * CLASSES)


def test_files_that_cannot_be_used_are_listed(tmp_path: Path) -> None:
    lay(tmp_path)
    train = lists()[1]["trnid"]
    missing, broken = (tmp_path / "jpg" / f"image_{number:05d}.jpg" for number in train[:2])
    missing.unlink()
    broken.write_bytes(broken.read_bytes()[:-40])
    benchmark = build(tmp_path)
    assert benchmark.refused == [{"path": str(missing), "reason": "named in setid.mat, not there"}]
    clean = verify(benchmark, progress=False).clean(benchmark.table)
    assert set(benchmark.table.ids) - set(clean.ids) == {broken.name}


def test_the_fingerprint_sees_files_lists_and_arguments(tmp_path: Path) -> None:
    lay(tmp_path)

    def now(**arguments: object) -> dict[str, object]:
        return Flowers102(str(tmp_path), **arguments).fingerprint()  # type: ignore[arg-type]

    before = now()
    assert now() == before
    assert all(now(**one) != before for one in ({"seed": 1}, {"pool_share": 0.4}, {"per_class": {"train": 3}}))
    labels = lists()[0]
    lay(tmp_path / "other", labels=np.roll(labels, 1))
    (tmp_path / "imagelabels.mat").write_bytes((tmp_path / "other" / "imagelabels.mat").read_bytes())
    changed = now()
    assert changed["said"] != before["said"] and changed["files"] == before["files"]
    os.utime(tmp_path / "jpg" / "image_00001.jpg", ns=(1, 1))
    assert now()["files"] != before["files"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"labels": np.r_[0, lists()[0][1:]]}, r"imagelabels\.mat has label 0 of image 1; expected 1 to 102"),
        ({"labels": np.r_[lists()[0][:-1], 103]}, r"imagelabels\.mat has label 103 of image 45; expected 1 to 102"),
        ({"labels": np.array([])}, r"imagelabels\.mat has no label"),
        ({"trnid": np.r_[0, 1]}, r"setid\.mat has image 0 in 'trnid'; expected 1 to 45, imagelabels\.mat has no more"),
        ({"tstid": np.r_[1, 46]}, r"setid\.mat has image 46 in 'tstid'; expected 1 to 45"),
        ({"valid": lists()[1]["tstid"][:1]}, r"setid\.mat lists image \d+ more than once \(splits: val, test\)"),
        ({"trnid": lists()[1]["trnid"][3:]}, r"split 'train' has no image of class 'pink primrose'"),
    ],
)
def test_wrong_lists(tmp_path: Path, wrong: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(DataError, match=rf"^data.*{message}"):
        build(lay(tmp_path, **wrong))


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^dataset\.root: '.*/none' is not a folder"):
        build(tmp_path / "none")
    with pytest.raises(DataError, match=r"no imagelabels\.mat in .* or its flowers-102; it holds nothing$"):
        build(tmp_path)
    lay(tmp_path)
    savemat(tmp_path / "setid.mat", {"trnid": [1], "valid": [2]})
    with pytest.raises(DataError, match=r"setid\.mat has no array 'tstid'"):
        build(tmp_path)
    savemat(tmp_path / "setid.mat", {"trnid": [1.5], "valid": [2], "tstid": [3]})
    with pytest.raises(DataError, match=r"setid\.mat has an array 'trnid' of float64; expected whole numbers"):
        build(tmp_path)
    (tmp_path / "setid.mat").write_bytes(b"no matlab")
    with pytest.raises(DataError, match=r"setid\.mat is not a MATLAB file \([^\n]*\)$"):
        build(tmp_path)
    (tmp_path / "setid.mat").unlink()
    with pytest.raises(DataError, match=r"setid\.mat is missing"):
        build(tmp_path)
    (tmp_path / "jpg").rename(tmp_path / "images")
    with pytest.raises(DataError, match=r"no folder 'jpg' beside .*imagelabels\.mat$"):
        build(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pool_share": 0.0}, r"dataset\.pool_share: 0\.0; expected a number between 0 and 1"),
        ({"per_class": {"pol": 1}}, r"dataset\.per_class\.pol: .*nearest valid: pool"),
        ({"per_class": {"train": 4}}, r"dataset\.per_class\.train: 4 .*'pink primrose' has 3"),
    ],
)
def test_wrong_arguments(tmp_path: Path, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(lay(tmp_path), **arguments)


def test_what_is_known_before_looking() -> None:
    source = Flowers102("/nowhere", per_class={"pool": 7})
    assert (source.at_most("pool"), source.at_most("train")) == (7, None)
    with pytest.raises(AacaError):
        source.fingerprint()
