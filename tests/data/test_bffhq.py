import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aaca.data.benchmark import Benchmark
from aaca.data.bffhq import Bffhq
from aaca.data.scan import verify
from aaca.runtime.errors import ConfigError, DataError

ALIGN, CONFLICT, REST = {0: 9, 1: 6}, {0: 1, 1: 2}, 4  # train images a class; valid and test images an (age, gender)


def lay(root: Path, percent: str = "0.5pct", named: bool = True) -> Path:
    """The published tree; every image has pixels of its own. Train files carry their numbers where `named`."""
    generator = np.random.default_rng(0)

    def save(folder: str, name: str) -> None:
        (root / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(root / folder / f"{name}.png")

    for kind, counts in (("align", ALIGN), ("conflict", CONFLICT)):
        for age, count in counts.items():
            gender = age if kind == "align" else 1 - age
            for k in range(count):
                save(f"{percent}/{kind}/{age}", f"{k}_{age}_{gender}" if named else str(k))
    for split in ("valid", "test"):
        for number, (age, gender) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
            for k in range(REST):
                save(split, f"{number * REST + k}_{age}_{gender}")
    return root


def build(root: Path, **arguments: object) -> Benchmark:
    return Bffhq(str(root), **arguments).build(root)  # type: ignore[arg-type]


def counts(benchmark: Benchmark, split: str) -> dict[str, int]:
    return benchmark.split(split).frame["group"].value_counts().to_dict()


def test_every_image_lands_in_its_split_and_group(tmp_path: Path) -> None:
    benchmark = build(lay(tmp_path), pool_share=0.25)
    assert counts(benchmark, "train") == {"young woman": 9, "young man": 1, "old man": 6, "old woman": 2}
    for split, count in (("pool", 1), ("audit", 3), ("test", 4)):
        assert counts(benchmark, split) == dict.fromkeys(("young woman", "young man", "old man", "old woman"), count)
    frame = benchmark.table.frame
    assert {Path(path).parent.name for path in frame.loc[frame["split"].isin(["pool", "audit"]), "path"]} == {"valid"}
    assert {Path(path).parent.name for path in benchmark.split("test").frame["path"]} == {"test"}
    assert set(benchmark.split("train").ids) == {
        str(path.relative_to(tmp_path)) for path in (tmp_path / "0.5pct").rglob("*.png")
    }
    assert benchmark.split("test").image(0).shape == (8, 8, 3) and benchmark.refused == []


@pytest.mark.parametrize(
    ("label", "classes", "confounders"),
    [
        ("age", ("young", "old"), [("young", "gender", "woman", 0.9), ("old", "gender", "man", 0.75)]),
        ("gender", ("woman", "man"), [("woman", "age", "young", 0.8182), ("man", "age", "old", 0.8571)]),
    ],
)
def test_either_attribute_can_be_the_class(tmp_path: Path, label: str, classes: tuple, confounders: list) -> None:
    benchmark = build(lay(tmp_path), label=label)
    assert benchmark.classes == classes
    assert [tuple(one.values()) for one in benchmark.confounders] == confounders
    frame = benchmark.table.frame
    at = 1 if label == "age" else 2  # <id>_<age>_<gender>
    assert frame["label"].tolist() == [int(Path(path).stem.split("_")[at]) for path in frame["path"]]
    test = benchmark.split("test").frame
    assert benchmark.headline_slice == "conflicting"
    assert set(test.loc[test["slice"] == "aligned", "group"]) == {"young woman", "old man"}
    assert set(test.loc[test["slice"] == "conflicting", "group"]) == {"young man", "old woman"}
    assert test["slice"].value_counts().to_dict() == {"aligned": 2 * REST, "conflicting": 2 * REST}


def test_train_files_without_numbers_are_what_their_folders_say(tmp_path: Path) -> None:
    plain, named = (build(lay(tmp_path / str(one), named=one), label="gender") for one in (False, True))
    assert counts(plain, "train") == counts(named, "train")
    old = plain.split("train").frame.query("group == 'old woman'")
    assert old["label"].tolist() == [0, 0] and all("conflict/1/" in path for path in old["path"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("align/0/0_0_0", "align/0/0_1_0", r"align/0/0_1_0\.png says age 1, gender 0, its folders say 0, 0"),
        ("conflict/1/0_1_0", "conflict/1/0_1_1", r"conflict/1/0_1_1\.png says age 1, gender 1, its folders say 1, 0"),
        ("align/1/0_1_1", "align/1/0_1_2", r"align/1/0_1_2\.png has age 1, gender 2; expected <id>_<age>_<gender>"),
    ],
)
def test_a_name_that_contradicts_its_folders(tmp_path: Path, old: str, new: str, message: str) -> None:
    train = lay(tmp_path) / "0.5pct"
    (train / f"{old}.png").rename(train / f"{new}.png")
    with pytest.raises(DataError, match=rf"^dataset\.root: .*{message}"):
        build(tmp_path)


def test_names_of_the_numbers(tmp_path: Path) -> None:
    benchmark = build(lay(tmp_path), ages=["old", "young"], genders=["man", "woman"])
    assert benchmark.classes == ("old", "young")
    assert counts(benchmark, "train") == {"old man": 9, "old woman": 1, "young woman": 6, "young man": 2}


def test_other_shares_of_conflicting_images(tmp_path: Path) -> None:
    lay(tmp_path)
    lay(tmp_path, "2pct")
    assert {Path(path).parts[-4] for path in build(tmp_path, percent=2).split("train").frame["path"]} == {"2pct"}
    (tmp_path / "0pct").mkdir()
    shutil.copytree(tmp_path / "2pct" / "align", tmp_path / "0pct" / "align")
    assert [one["p"] for one in build(tmp_path, percent=0.0).confounders] == [1.0, 1.0]
    with pytest.raises(DataError, match=r"^dataset\.percent: no folder '5pct' in .*; nearest valid: .*0\.5pct"):
        build(tmp_path, percent=5)


def test_files_that_cannot_be_used_are_listed(tmp_path: Path) -> None:
    lay(tmp_path)
    (tmp_path / "valid" / "15_1_1.png").rename(tmp_path / "valid" / "face.png")
    (tmp_path / "test" / "notes.txt").touch()
    (tmp_path / "test" / "0_0_0.png").write_bytes(b"no image")
    benchmark = build(tmp_path)
    assert {(Path(one["path"]).name, one["reason"].split(",")[0]) for one in benchmark.refused} == {
        ("face.png", "the name is not <id>_<age>_<gender>"),
        ("notes.txt", "suffix '.txt' is not one of an image"),
    }
    assert counts(benchmark, "audit")["old man"] + counts(benchmark, "pool")["old man"] == REST - 1
    clean = verify(benchmark, progress=False).clean(benchmark.table)
    assert set(benchmark.table.ids) - set(clean.ids) == {"test/0_0_0.png"}


def test_the_fingerprint_sees_files_and_arguments(tmp_path: Path) -> None:
    lay(tmp_path)
    lay(tmp_path, "2pct")

    def now(**arguments: object) -> dict[str, object]:
        return Bffhq(str(tmp_path), **arguments).fingerprint()  # type: ignore[arg-type]

    before = now()
    assert now() == before
    for change in ({"label": "gender"}, {"percent": 2.0}, {"ages": ["a", "b"]}, {"pool_share": 0.4}, {"seed": 1}):
        assert now(**change) != before, change
    os.utime(tmp_path / "2pct" / "align" / "0" / "0_0_0.png", ns=(1, 1))
    assert now() == before  # of another train
    os.utime(tmp_path / "valid" / "0_0_0.png", ns=(1, 1))
    assert now() != before


def test_wrong_trees(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^dataset\.root: '.*/none' is not a folder"):
        build(tmp_path / "none")
    lay(tmp_path)
    (tmp_path / "valid").rename(tmp_path / "val")
    with pytest.raises(DataError, match=r"^dataset\.root: no folder 'valid' in .*; nearest valid: val"):
        build(tmp_path)
    (tmp_path / "val").rename(tmp_path / "valid")
    for file in (tmp_path / "0.5pct" / "conflict" / "1").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"^dataset\.root: no image in '.*0\.5pct/conflict/1' \(0 refused\)"):
        build(tmp_path)
    (tmp_path / "0.5pct" / "conflict" / "1").rmdir()
    with pytest.raises(DataError, match=r"^dataset\.root: no folder '0\.5pct/conflict/1' in"):
        build(tmp_path)


def test_a_test_split_without_names(tmp_path: Path) -> None:
    lay(tmp_path)
    for k, file in enumerate(sorted((tmp_path / "test").iterdir())):
        file.rename(file.with_name(f"{k}.png"))
    with pytest.raises(
        DataError, match=r"no image of split test in .*\(16 files refused; the first: .*/test/0\.png, the"
    ):
        build(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"label": "sex"}, r"^dataset\.label: 'sex'; valid: age, gender"),
        ({"ages": ["young"]}, r"^dataset\.ages: \['young'\]; expected 2 different names"),
        ({"genders": ["man", "man"]}, r"^dataset\.genders: "),
        ({"pool_share": 1.5}, r"^dataset\.pool_share: 1\.5"),
        ({"per_class": {"test": 9}}, r"^dataset\.per_class\.test: 9 .*'young' has 8"),
    ],
)
def test_wrong_arguments(tmp_path: Path, arguments: dict[str, object], message: str) -> None:
    lay(tmp_path)
    with pytest.raises(ConfigError, match=message):
        build(tmp_path, **arguments)
