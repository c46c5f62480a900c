from pathlib import Path

import pytest
from torchvision.datasets import Places365 as Reference

from aaca.data.benchmark import Benchmark
from aaca.data.places365 import CLASSES, Places365
from aaca.runtime.errors import AacaError, ConfigError, DataError

CATEGORIES = ["/a/airfield", "/a/art_studio", "/m/museum/indoor", "/m/museum/outdoor", "/o/office"]
N_TRAIN, N_VAL = 12, 3
SMALL = {"train": 5, "audit": 3}
CHOSEN = ["museum/indoor", "office"]


def official(root: Path, train: str = "data_256_standard", val: str = "val_256") -> Path:
    """The tree of the official archives, as torchvision.datasets.Places365 expects it; empty images."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "categories_places365.txt").write_text("".join(f"{c} {i}\n" for i, c in enumerate(CATEGORIES)))
    lists: dict[str, list[str]] = {"train": [], "val": []}
    (root / val).mkdir(exist_ok=True)
    for number, category in enumerate(CATEGORIES):
        (root / f"{train}{category}").mkdir(parents=True)
        for k in range(1, N_TRAIN + 1):
            lists["train"].append(f"{category}/{k:08d}.jpg {number}\n")
            (root / f"{train}{category}/{k:08d}.jpg").touch()
        for k in range(N_VAL):
            name = f"Places365_val_{number * N_VAL + k + 1:08d}.jpg"
            lists["val"].append(f"{name} {number}\n")
            (root / val / name).touch()
    (root / "places365_train_standard.txt").write_text("".join(lists["train"]))
    (root / "places365_val.txt").write_text("".join(lists["val"]))
    return root


def folders(root: Path, joint: str) -> Path:
    """The "easyformat" tree: train/<class>, val/<class>; `joint` stands between museum and indoor."""
    for number, category in enumerate(CATEGORIES):
        name = category[3:].replace("/", joint)
        for split in ("train", "val"):
            (root / split / name).mkdir(parents=True)
        for k in range(1, N_TRAIN + 1):
            (root / "train" / name / f"{k:08d}.jpg").touch()
        for k in range(N_VAL):
            (root / "val" / name / f"Places365_val_{number * N_VAL + k + 1:08d}.jpg").touch()
    return root


def build(root: Path, **arguments: object) -> Benchmark:
    return Places365(str(root), **{"classes": CHOSEN, "per_class": SMALL, **arguments}).build(root)  # type: ignore[arg-type]


def test_split_sizes_and_files(tmp_path: Path) -> None:
    benchmark = build(official(tmp_path))
    frame = benchmark.table.frame
    sizes = {key: len(rows) for key, rows in frame.groupby(["split", "label"])}
    expected = {"train": 5, "audit": 3, "pool": 4, "test": 3}
    assert sizes == {(split, label): n for split, n in expected.items() for label in (0, 1)}
    assert benchmark.classes == tuple(CHOSEN) and benchmark.refused == []
    assert all(Path(path).is_file() for path in frame["path"])
    museum = frame[frame["label"] == 0]
    assert all("/data_256_standard/m/museum/indoor/" in path for path in museum.query("split != 'test'")["path"])
    assert set(museum.query("split == 'test'")["id"]) == {
        f"val/museum/indoor/Places365_val_{2 * N_VAL + k + 1:08d}.jpg" for k in range(N_VAL)
    }


@pytest.mark.parametrize("small", [True, False])
def test_the_same_files_and_labels_as_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: bool) -> None:
    size = "256" if small else "large"
    official(tmp_path, f"data_{size}_standard", f"val_{size}")
    monkeypatch.setattr(Reference, "_check_integrity", lambda *_: True)  # it wants the real lists' MD5
    ours = build(tmp_path, images=size).table.frame
    for split in ("train-standard", "val"):
        reference = Reference(str(tmp_path), split=split, small=small)
        by_number = {number: name[3:] for name, number in reference.class_to_idx.items()}
        expected = {(path, by_number[number]) for path, number in reference.imgs if by_number[number] in CHOSEN}
        own = ours[(ours["split"] == "test") == (split == "val")]
        assert {(path, CHOSEN[label]) for path, label in zip(own["path"], own["label"], strict=True)} == expected


def test_every_layout_gives_the_same_splits(tmp_path: Path) -> None:
    trees = [
        official(tmp_path / "a"),
        official(tmp_path / "b", "data_256"),  # as the archive unpacks, before torchvision renames it
        folders(tmp_path / "c", "-"),
        folders(tmp_path / "d", "/"),
    ]
    tables = [build(tree).table.frame.sort_values("id")[["id", "split", "label"]].to_numpy().tolist() for tree in trees]
    assert tables[0] == tables[1] == tables[2] == tables[3]
    large = official(tmp_path / "e", "data_large", "val_large")
    assert (
        build(large, images="large").table.frame.sort_values("id")[["id", "split", "label"]].to_numpy().tolist()
        == tables[0]
    )


def test_the_draw_is_seeded_and_nested(tmp_path: Path) -> None:
    official(tmp_path)
    one, other = (set(build(tmp_path, seed=seed).split("train").ids) for seed in (0, 1))
    assert one != other
    assert set(build(tmp_path, per_class={"train": 4, "audit": 3}).split("train").ids) < one
    limited = build(tmp_path, per_class={**SMALL, "pool": 2, "test": 1})
    assert len(limited.split("pool")) == 4 and len(limited.split("test")) == 2
    assert set(limited.split("train").ids) == one


def test_class_names_in_any_spelling_and_order(tmp_path: Path) -> None:
    official(tmp_path)
    plain = build(tmp_path, classes=["office", "museum/indoor", "art_studio"])
    spelled = build(tmp_path, classes=["/o/office", "museum-indoor", "/a/art_studio"])
    assert plain.classes == ("office", "museum/indoor", "art_studio")
    assert plain.table.frame["path"].tolist() == spelled.table.frame["path"].tolist()
    assert plain.table.labels.tolist() == spelled.table.labels.tolist()


def test_the_default_is_twelve_rooms() -> None:
    source = Places365("/nowhere")
    assert len(source.classes) == 12 and tuple(source.classes) == CLASSES
    assert source.per_class == {"train": 1500, "pool": None, "audit": 500, "test": None}


@pytest.mark.parametrize("layout", [official, lambda root: folders(root, "-")])
def test_unknown_class(tmp_path: Path, layout: object) -> None:
    layout(tmp_path)  # type: ignore[operator]
    with pytest.raises(
        ConfigError, match=r"dataset\.classes: no Places365 class 'art_stdio' here; nearest valid: art_studio"
    ):
        build(tmp_path, classes=["art_stdio", "office"])


def test_files_that_the_list_names_but_the_disk_lacks(tmp_path: Path) -> None:
    official(tmp_path)
    (tmp_path / "data_256_standard/o/office/00000003.jpg").unlink()
    (tmp_path / "data_256_standard/o/office/notes.txt").touch()
    benchmark = build(tmp_path)
    assert [(Path(row["path"]).name, row["reason"].split(",")[0]) for row in benchmark.refused] == [
        ("notes.txt", "suffix '.txt' is not one of an image"),
        ("00000003.jpg", "named in places365_train_standard.txt"),
    ]
    assert len(benchmark.table) == 2 * (N_TRAIN + N_VAL) - 1


def test_the_fingerprint_sees_chosen_files_only(tmp_path: Path) -> None:
    official(tmp_path)

    def now() -> dict[str, object]:
        return Places365(str(tmp_path), classes=CHOSEN, per_class=SMALL).fingerprint()

    before = now()
    (tmp_path / "data_256_standard/a/airfield/00000001.jpg").write_bytes(b"x")
    assert now() == before
    (tmp_path / "data_256_standard/o/office/00000001.jpg").write_bytes(b"x")
    assert now() != before


@pytest.mark.parametrize(
    ("per_class", "message"),
    [
        ({"train": 9, "audit": 3}, r"dataset\.per_class\.train: 9 for train and 3 for audit asked, .* has 12 images"),
        ({"train": None}, r"dataset\.per_class: train and audit need a number"),
        ({"pol": 1}, r"dataset\.per_class\.pol: .*nearest valid: pool"),
        ({**SMALL, "pool": 5}, r"dataset\.per_class\.pool: 5 .* has 4"),
        ({**SMALL, "test": 4}, r"dataset\.per_class\.test: 4 .* has 3"),
    ],
)
def test_impossible_sizes(tmp_path: Path, per_class: dict, message: str) -> None:
    official(tmp_path)
    with pytest.raises(ConfigError, match=message):
        build(tmp_path, per_class=per_class)


def test_wrong_trees(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"dataset\.root: .* is not a folder"):
        build(tmp_path / "none")
    with pytest.raises(DataError, match=r"holds nothing; expected categories_places365\.txt"):
        build(tmp_path)
    official(tmp_path / "a")
    with pytest.raises(DataError, match=r"no folder 'data_large_standard' .*dataset\.images: large"):
        build(tmp_path / "a", images="large")
    (tmp_path / "a" / "places365_val.txt").write_text("Places365_val_00000001.jpg\nx y z\n")
    with pytest.raises(AacaError, match=r"places365_val\.txt is not a list"):
        build(tmp_path / "a")
    (tmp_path / "a" / "places365_val.txt").unlink()
    with pytest.raises(DataError, match=r"places365_val\.txt is missing"):
        build(tmp_path / "a")
    with pytest.raises(ConfigError, match=r"dataset\.images: 'small'"):
        build(tmp_path / "a", images="small")
    with pytest.raises(ConfigError, match=r"dataset\.classes"):
        build(tmp_path / "a", classes=["museum/indoor", "/m/museum/indoor"])
