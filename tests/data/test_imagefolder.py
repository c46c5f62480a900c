import builtins
import io
import os
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pytest

from aaca.data.benchmark import SPLITS, Benchmark
from aaca.data.imagefolder import ImageFolder
from aaca.data.splits import cut_by_source, stable_ranks
from aaca.runtime.errors import AacaError, ConfigError, DataError


def lay(root: Path, splits: Iterable[str], classes: Iterable[str] = ("cat", "dog"), n: int = 20) -> Path:
    """Empty files: nothing here may open an image."""
    for split in splits:
        for name in classes:
            (root / split / name).mkdir(parents=True)
            for k in range(n):
                (root / split / name / f"{split}{k:03d}.jpg").touch()
    return root


def build(root: Path, **arguments: object) -> Benchmark:
    return ImageFolder(str(root), **arguments).build(root)  # type: ignore[arg-type]


def sizes(benchmark: Benchmark) -> dict[tuple[str, int], int]:
    return {key: len(rows) for key, rows in benchmark.table.frame.groupby(["split", "label"])}


def manifest(root: Path, rows: pd.DataFrame, name: str = "list.csv") -> str:
    for path in rows["path"]:
        if ".." not in path:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).touch()
    rows.to_csv(root / name, index=False) if name.endswith("csv") else rows.to_parquet(root / name)
    return name


# ---- splits


def test_train_and_val_become_four_splits(tmp_path: Path) -> None:
    benchmark = build(lay(tmp_path, ["train", "val"]))
    counts = {"train": 12, "pool": 5, "audit": 3, "test": 20}  # 25 % and 15 % of 20
    assert sizes(benchmark) == {(split, label): n for split, n in counts.items() for label in (0, 1)}
    assert all("/val/" in path for path in benchmark.split("test").frame["path"])
    assert benchmark.classes == ("cat", "dog")
    assert all(Path(path).is_absolute() and Path(path).exists() for path in benchmark.table.frame["path"])


@pytest.mark.parametrize(
    ("splits", "test_from", "audit_from"),
    [
        (["train"], "train", "train"),
        (["training", "Validation"], "Validation", "training"),
        (["train", "val", "test"], "test", "val"),
        (["train", "valid", "audit"], "valid", "audit"),
        (["train", "pool", "audit", "test"], "test", "audit"),
    ],
)
def test_roles_of_splits(tmp_path: Path, splits: list[str], test_from: str, audit_from: str) -> None:
    benchmark = build(lay(tmp_path, splits))
    assert set(benchmark.table.frame["split"]) == set(SPLITS)
    assert {Path(path).parts[-3] for path in benchmark.split("test").frame["path"]} == {test_from}
    assert {Path(path).parts[-3] for path in benchmark.split("audit").frame["path"]} == {audit_from}


def test_val_beside_audit_and_test_has_no_role(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="val has no role"):
        build(lay(tmp_path, ["train", "val", "audit", "test"]))


def test_given_splits_are_taken_as_they_are(tmp_path: Path) -> None:
    benchmark = build(lay(tmp_path, [*SPLITS, "test_seen"], n=3))
    assert sizes(benchmark) == {(split, label): 3 for split in (*SPLITS, "test_seen") for label in (0, 1)}


def test_the_cut_depends_on_seed_and_names_only(tmp_path: Path) -> None:
    lay(tmp_path, ["train", "val"])

    def pool(**arguments: object) -> set[str]:
        return set(build(tmp_path, **arguments).split("pool").ids)

    before = pool()
    assert before == pool() and before != pool(seed=1)
    rows = pd.DataFrame({"id": [f"x{k}" for k in range(40)], "label": [k % 2 for k in range(40)], "source": ""})
    cut = dict(zip(rows["id"], cut_by_source(rows, {"pool": 0.3}, "train", ["a", "b"], 0), strict=True))
    turned = rows[::-1].reset_index(drop=True)
    assert cut == dict(zip(turned["id"], cut_by_source(turned, {"pool": 0.3}, "train", ["a", "b"], 0), strict=True))
    assert stable_ranks(["a", "b"], 3).tolist() == stable_ranks(["b", "a"], 3)[::-1].tolist()


def test_sources_stay_together(tmp_path: Path) -> None:
    rows = [(f"img/{k}.jpg", "cat" if k % 2 else "dog", f"s{k // 4}") for k in range(160)]
    name = manifest(tmp_path, pd.DataFrame(rows, columns=["path", "label", "source"]))
    frame = build(tmp_path, manifest=name).table.frame
    assert set(frame["split"]) == set(SPLITS)
    assert (frame.groupby("source")["split"].nunique() == 1).all() and frame["source"].nunique() == 40


def test_too_few_images_to_cut(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="class 'cat' has 2 images or sources, too few to make train, audit, pool"):
        build(lay(tmp_path, ["train", "val"], n=2))
    assert sizes(build(lay(tmp_path / "b", ["train", "val"], n=3)))[("pool", 0)] == 1


# ---- per_class


def test_per_class_takes_a_stable_subset(tmp_path: Path) -> None:
    lay(tmp_path, SPLITS)
    few, more = (build(tmp_path, per_class={"train": n, "test": 4}) for n in (5, 9))
    assert sizes(few)[("train", 0)] == 5 and sizes(few)[("test", 1)] == 4 and sizes(few)[("pool", 1)] == 20
    assert set(few.split("train").ids) < set(more.split("train").ids)
    gone = sorted(set(more.table.ids) - set(few.table.ids))[0]
    (tmp_path / gone).unlink()  # a file that was not chosen changes nothing
    assert set(build(tmp_path, per_class={"train": 5, "test": 4}).split("train").ids) == set(few.split("train").ids)


@pytest.mark.parametrize(
    ("per_class", "message"),
    [
        ({"trian": 3}, r"dataset\.per_class\.trian: no such split; nearest valid: train"),
        ({"train": 0}, r"dataset\.per_class\.train: 0"),
        ({"train": 2.5}, r"dataset\.per_class\.train: 2\.5"),
        ({"pool": 99}, r"dataset\.per_class\.pool: 99 images a class asked, class 'cat' has 20"),
    ],
)
def test_impossible_per_class(tmp_path: Path, per_class: dict, message: str) -> None:
    lay(tmp_path, SPLITS)
    with pytest.raises(ConfigError, match=message):
        build(tmp_path, per_class=per_class)


# ---- folders


def test_the_class_order_is_sorted_or_as_given(tmp_path: Path) -> None:
    lay(tmp_path, SPLITS, ["b", "a", "10", "9"])
    assert build(tmp_path).classes == ("10", "9", "a", "b")  # as torchvision's ImageFolder
    chosen = build(tmp_path, classes=["b", "9"])
    assert chosen.classes == ("b", "9")
    assert all("/b/" in path for path in chosen.table.frame.query("label == 0")["path"])
    with pytest.raises(ConfigError, match=r"dataset\.classes: no folder 'bb' in train"):
        build(tmp_path, classes=["a", "bb"])


def test_files_in_sub_folders_count(tmp_path: Path) -> None:
    lay(tmp_path, SPLITS)
    (tmp_path / "train" / "cat" / "deep" / "er").mkdir(parents=True)
    (tmp_path / "train" / "cat" / "deep" / "er" / "x.PNG").touch()
    assert "train/cat/deep/er/x.PNG" in build(tmp_path).table.ids


def test_what_is_left_out_is_listed(tmp_path: Path) -> None:
    lay(tmp_path, SPLITS)
    cat = tmp_path / "train" / "cat"
    (cat / ".hidden.jpg").touch()
    (cat / "notes.txt").touch()
    os.mkfifo(cat / "pipe.jpg")
    (cat / "gone.jpg").symlink_to(tmp_path / "nowhere")
    (cat / "loop").symlink_to(cat)
    (cat / "twin.jpg").symlink_to(cat / "train000.jpg")
    os.close(os.open(os.fsencode(cat) + b"/\xff.jpg", os.O_CREAT))
    (tmp_path / "train" / "stray.jpg").touch()
    (tmp_path / "extra").mkdir()
    (tmp_path / "readme.md").touch()
    benchmark = build(tmp_path)
    reasons = {Path(row["path"]).name: row["reason"] for row in benchmark.refused}
    assert reasons == {
        ".hidden.jpg": "hidden",
        "notes.txt": "suffix '.txt' is not one of an image",
        "pipe.jpg": "not a regular file",
        "gone.jpg": "cannot be read (No such file or directory)",
        "loop": "a link to a folder above it",
        "twin.jpg": "the same file as train/cat/train000.jpg",
        "\\udcff.jpg": "the name is not UTF-8",
        "stray.jpg": "not a class folder",
        "extra": "not a split folder",
        "readme.md": "not a split folder",
    }
    assert sizes(benchmark)[("train", 0)] == 20
    benchmark.save(tmp_path / "out")
    assert Benchmark.load(tmp_path / "out").refused == benchmark.refused


def test_links_out_of_the_root_are_followed(tmp_path: Path) -> None:
    lay(tmp_path / "real", SPLITS)
    (tmp_path / "root").mkdir()
    for split in SPLITS:
        (tmp_path / "root" / split).symlink_to(tmp_path / "real" / split)
    assert sizes(build(tmp_path / "root")) == sizes(build(tmp_path / "real"))
    assert build(tmp_path / "root").refused == []


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_one_file_in_two_splits_is_refused(tmp_path: Path, link: object) -> None:
    lay(tmp_path, SPLITS)
    link(tmp_path / "train" / "cat" / "train003.jpg", tmp_path / "pool" / "cat" / "other.jpg")  # type: ignore[operator]
    with pytest.raises(DataError, match=r"pool/cat/other\.jpg.* are one file \(splits: "):
        build(tmp_path)


def test_a_linked_split_is_an_overlap(tmp_path: Path) -> None:
    lay(tmp_path, ["train", "audit", "test"])
    (tmp_path / "pool").symlink_to(tmp_path / "train")
    with pytest.raises(DataError, match="are one file"):
        build(tmp_path)


def broken(root: Path, kind: str) -> None:
    if kind == "missing root":
        return
    lay(
        root, ["images", "labels"] if kind == "no split" else SPLITS, ["cat"] if kind == "one class" else ["cat", "dog"]
    )
    if kind == "differs":
        (root / "audit" / "dog").rename(root / "audit" / "dogs")
    if kind == "empty class":
        for path in (root / "train" / "dog").iterdir():
            path.rename(path.with_suffix(".txt"))
    if kind == "two folders":
        (root / "training").mkdir()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing root", r"dataset\.root: '.*' is not a folder"),
        ("no split", r"dataset\.root: no split folder train in .*; found 'images', 'labels'; expected"),
        ("one class", r"dataset\.root: 1 class \('cat'\)"),
        ("differs", r"dataset\.root: class folder 'dog' is in split 'train' but not in 'audit'"),
        ("empty class", r"dataset\.root: class 'dog' has no image in split 'train' \(20 other files\)"),
        ("two folders", r"dataset\.root: two folders for one split"),
    ],
)
def test_broken_folders(tmp_path: Path, kind: str, message: str) -> None:
    broken(tmp_path / "root", kind)
    with pytest.raises(DataError, match=message) as caught:
        build(tmp_path / "root")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"pool_fraction": 0.0}, "dataset.pool_fraction"),
        ({"test_fraction": 1.0}, "dataset.test_fraction"),
        ({"pool_fraction": 0.5, "audit_fraction": 0.4}, "dataset.pool_fraction"),
        ({"classes": ["cat"]}, "dataset.classes"),
        ({"classes": ["cat", "cat"]}, "dataset.classes"),
    ],
)
def test_impossible_arguments(arguments: dict, key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        ImageFolder("/nowhere", **arguments)


def test_hostile_class_names_are_data(tmp_path: Path) -> None:
    names = ["<script>alert(1)<", "n" * 255, "a\nb", "--help"]
    benchmark = build(lay(tmp_path, SPLITS, names, n=1))
    assert set(benchmark.classes) == set(names)
    benchmark.save(tmp_path / "out")
    assert Benchmark.load(tmp_path / "out").classes == benchmark.classes


# ---- fingerprint


def test_the_fingerprint_sees_every_change(tmp_path: Path) -> None:
    lay(tmp_path, SPLITS)

    def print_of(**arguments: object) -> str:
        return str(ImageFolder(str(tmp_path), **arguments).fingerprint())  # type: ignore[arg-type]

    seen = [print_of()]
    assert print_of() == seen[0]
    changed = tmp_path / "train" / "cat" / "train000.jpg"
    changed.write_bytes(b"x")
    seen.append(print_of())
    os.utime(changed, ns=(1, 1))
    seen.append(print_of())
    changed.rename(changed.with_name("new.jpg"))
    seen.append(print_of())
    seen += [print_of(seed=1), print_of(classes=["dog", "cat"]), print_of(per_class={"train": 3})]
    assert len(set(seen)) == 7


def test_build_uses_what_was_fingerprinted(tmp_path: Path) -> None:
    source = ImageFolder(str(lay(tmp_path, SPLITS)))
    source.fingerprint()
    (tmp_path / "train" / "cat" / "late.jpg").touch()
    assert not any("late" in name for name in source.build(tmp_path).table.ids)


def test_listing_opens_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = ImageFolder(str(lay(tmp_path, SPLITS, n=200)))

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a file was opened")

    for owner in (io, builtins, os):
        monkeypatch.setattr(owner, "open", forbidden)
    source.fingerprint()
    assert len(source.build(tmp_path).table) == 1600


# ---- manifests


def rows_of(n: int = 24) -> pd.DataFrame:
    rows = [(f"i/{split}{k}.jpg", ("cat", "dog")[k % 2], split) for split in SPLITS for k in range(n)]
    return pd.DataFrame(rows, columns=["path", "label", "split"])


@pytest.mark.parametrize("name", ["list.csv", "list.parquet"])
def test_manifests_carry_all_columns(tmp_path: Path, name: str) -> None:
    rows = rows_of().assign(group="cat on sand", caption='hé, "x"', slice="balanced", source="", camera="c1")
    rows["source"] = [f"s{k}" for k in range(len(rows))]
    benchmark = build(tmp_path, manifest=manifest(tmp_path, rows, name), headline_slice="balanced")
    frame = benchmark.table.frame
    assert len(frame) == len(rows) and benchmark.headline_slice == "balanced"
    expected = rows.set_index("path")
    for column in ("group", "caption", "slice", "source", "split", "camera"):
        assert frame[column].tolist() == expected[column].loc[frame["id"]].tolist()
    assert [benchmark.classes[label] for label in frame["label"]] == expected["label"].loc[frame["id"]].tolist()


@pytest.mark.parametrize("name", ["list.csv", "list.parquet"])
def test_number_labels_are_ordered_by_value(tmp_path: Path, name: str) -> None:
    rows = rows_of()
    rows["label"] = [10 if label == "cat" else 9 for label in rows["label"]]
    assert build(tmp_path, manifest=manifest(tmp_path, rows, name)).classes == ("9", "10")


def test_a_manifest_without_splits_is_cut(tmp_path: Path) -> None:
    rows = rows_of(25).drop(columns="split")  # 100 rows, 52 cats and 48 dogs
    frame = build(tmp_path, manifest=manifest(tmp_path, rows)).table.frame
    assert frame["split"].value_counts().to_dict() == {"train": 39, "pool": 25, "test": 20, "audit": 15} | {
        "train": 100 - (13 + 12) - (10 + 10) - (8 + 7)
    }


def test_paths_out_of_the_root_and_missing_files_are_refused(tmp_path: Path) -> None:
    outside = tmp_path / "secret.jpg"
    outside.touch()
    root = tmp_path / "root"
    root.mkdir()
    name = manifest(root, rows_of())
    extra = [(p, "cat", "train") for p in ("../secret.jpg", str(outside), "i/../../secret.jpg", "i/gone.jpg")]
    inside = (str(root / "i" / "absolute.jpg"), "cat", "train")
    (root / "i" / "absolute.jpg").touch()
    pd.concat([rows_of(), pd.DataFrame([*extra[:1], *extra[3:], inside], columns=["path", "label", "split"])]).to_csv(
        root / name, index=False
    )
    benchmark = build(root, manifest=name)
    assert [row["reason"] for row in benchmark.refused] == [
        "lies outside dataset.root",
        "cannot be read (No such file or directory)",
    ]
    assert "i/absolute.jpg" in benchmark.table.ids and len(benchmark.table) == len(rows_of()) + 1
    for path in extra[1:3]:
        pd.concat([rows_of(), pd.DataFrame([path], columns=["path", "label", "split"])]).to_csv(
            root / name, index=False
        )
        assert build(root, manifest=name).refused[0]["reason"] == "lies outside dataset.root"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.rename(columns={"label": "labels"}), "no column 'label'; nearest valid: labels"),
        (lambda rows: rows.assign(id=1), "has a column 'id'"),
        (lambda rows: rows.assign(label=["", *rows["label"][1:]]), "row 1 has an empty label"),
        (lambda rows: rows.assign(split=["tarin", *rows["split"][1:]]), "row 1: split 'tarin'; nearest valid: train"),
        (lambda rows: rows.assign(split=["", *rows["split"][1:]]), "row 1: split ''"),
        (lambda rows: rows.assign(split="test"), "no row of split train; found test"),
        (lambda rows: pd.concat([rows, rows[:1].assign(split="pool")]), "listed more than once .splits: pool, train"),
        (lambda rows: pd.concat([rows, rows[:1].assign(path="./i/train0.jpg")]), "listed more than once"),
        (lambda rows: rows.assign(source="one"), "source 'one' of split 'test' also occurs"),
        (
            lambda rows: rows[~((rows["split"] == "audit") & (rows["label"] == "dog"))],
            "'audit' has no image of class 'dog'",
        ),
        (lambda rows: rows.assign(label="cat"), r"1 class \('cat'\)"),
        (lambda rows: rows[:0], "has no row"),
    ],
)
def test_broken_manifests(tmp_path: Path, change: object, message: str) -> None:
    name = manifest(tmp_path, rows_of())
    change(rows_of()).to_csv(tmp_path / name, index=False)  # type: ignore[operator]
    with pytest.raises(AacaError, match=message) as caught:
        build(tmp_path, manifest=name)
    assert "\n" not in str(caught.value)


def test_unreadable_manifests(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"no parquet")
    (tmp_path / "a.csv").write_bytes(b"")
    (tmp_path / "b.csv").write_bytes(b"path,label\n\xff\xfe,x\n")
    for name, message in [
        ("a.parquet", "not readable"),
        ("a.csv", "not readable"),
        ("b.csv", "not readable"),
        ("c.csv", "is not a file"),
        ("a.txt", "is not a file"),
    ]:
        with pytest.raises(DataError, match=rf"dataset\.manifest: .*{message}"):
            build(tmp_path, manifest=name)


def test_unknown_headline_slice_and_class(tmp_path: Path) -> None:
    name = manifest(tmp_path, rows_of())
    with pytest.raises(ConfigError, match=r"dataset\.headline_slice: no 'balanced'; valid: all"):
        build(tmp_path, manifest=name, headline_slice="balanced")
    with pytest.raises(ConfigError, match=r"dataset\.classes: no image of class 'dgo'; nearest valid: dog"):
        build(tmp_path, manifest=name, classes=["cat", "dgo"])


def test_hostile_labels_in_a_manifest(tmp_path: Path) -> None:
    rows = rows_of()
    rows["label"] = ["../x" if label == "cat" else "<b>" * 100 for label in rows["label"]]
    benchmark = build(tmp_path, manifest=manifest(tmp_path, rows))
    assert set(benchmark.classes) == {"../x", "<b>" * 100}
