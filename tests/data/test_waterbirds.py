import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from aaca.data.benchmark import Benchmark
from aaca.data.scan import verify
from aaca.data.waterbirds import Waterbirds
from aaca.runtime.errors import AacaError, ConfigError, DataError

TRAIN = {(0, 0): 9, (0, 1): 1, (1, 0): 1, (1, 1): 4}  # (y, place): images
REST = {(0, 0): 6, (0, 1): 6, (1, 0): 4, (1, 1): 4}


def rows() -> pd.DataFrame:
    """metadata.csv as published, smaller."""
    found = [
        {"y": y, "split": split, "place": place}
        for split, counts in enumerate((TRAIN, REST, REST))
        for (y, place), count in counts.items()
        for _ in range(count)
    ]
    frame = pd.DataFrame(found)
    frame.insert(0, "img_id", range(1, len(frame) + 1))
    frame.insert(1, "img_filename", [f"{k % 3:03d}.Bird_{k % 3}/Bird_{k:04d}.jpg" for k in range(len(frame))])
    return frame.assign(place_filename="/f/forest/broadleaf/00000001.jpg")


def lay(root: Path, frame: pd.DataFrame | None = None) -> Path:
    """The published tree; every image has pixels of its own."""
    frame = rows() if frame is None else frame
    root.mkdir(parents=True, exist_ok=True)
    frame.to_csv(root / "metadata.csv", index=False)
    generator = np.random.default_rng(0)
    for name in rows()["img_filename"]:
        (root / name).parent.mkdir(exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(root / name)
    return root


def build(root: Path, **arguments: object) -> Benchmark:
    return Waterbirds(str(root), **arguments).build(root)  # type: ignore[arg-type]


def counts(benchmark: Benchmark, split: str) -> dict[str, int]:
    return benchmark.split(split).frame["group"].value_counts().to_dict()


def groups(images: dict[tuple[int, int], int]) -> dict[str, int]:
    return {f"{('landbird', 'waterbird')[y]} on {('land', 'water')[place]}": n for (y, place), n in images.items()}


def test_train_and_test_are_the_official_ones(tmp_path: Path) -> None:
    benchmark = build(lay(tmp_path))
    table = rows()
    assert benchmark.classes == ("landbird", "waterbird")
    assert counts(benchmark, "train") == groups(TRAIN) and counts(benchmark, "test") == groups(REST)
    for split, number in (("train", 0), ("test", 2)):
        frame = benchmark.split(split).frame
        official = table[table["split"] == number]
        assert frame["path"].tolist() == [f"{tmp_path}/{name}" for name in official["img_filename"]]
        assert frame["label"].tolist() == official["y"].tolist()
    assert benchmark.split("test").image(0).shape == (8, 8, 3)


def test_val_becomes_pool_and_audit_group_by_group(tmp_path: Path) -> None:
    benchmark = build(lay(tmp_path), pool_share=0.25)
    assert counts(benchmark, "pool") == groups({(0, 0): 2, (0, 1): 2, (1, 0): 1, (1, 1): 1})
    assert counts(benchmark, "audit") == groups({(0, 0): 4, (0, 1): 4, (1, 0): 3, (1, 1): 3})
    table = rows()
    val = set(table.loc[table["split"] == 1, "img_filename"])
    assert {*benchmark.split("pool").ids, *benchmark.split("audit").ids} == val
    assert counts(build(tmp_path, pool_share=0.99), "audit") == groups(dict.fromkeys(REST, 1))  # never empty


def test_the_division_hangs_on_seed_and_names_only(tmp_path: Path) -> None:
    pool = set(build(lay(tmp_path / "a")).split("pool").ids)
    assert pool != set(build(tmp_path / "a", seed=1).split("pool").ids)
    turned = build(lay(tmp_path / "b", rows()[::-1]))
    assert set(turned.split("pool").ids) == pool
    limited = build(tmp_path / "a", per_class={"pool": 3, "train": 4})
    assert limited.split("pool").frame["label"].value_counts().to_dict() == {0: 3, 1: 3}
    assert set(limited.split("pool").ids) < pool


def test_slices_and_headline(tmp_path: Path) -> None:
    benchmark = build(lay(tmp_path))
    frame = benchmark.split("test").frame
    assert benchmark.headline_slice == "conflicting"
    assert set(frame.loc[frame["slice"] == "conflicting", "group"]) == {"landbird on water", "waterbird on land"}
    assert set(frame.loc[frame["slice"] == "aligned", "group"]) == {"landbird on land", "waterbird on water"}
    assert set(benchmark.table.frame.loc[benchmark.table.frame["split"] != "test", "slice"]) == {"all"}


def test_the_bug_is_measured(tmp_path: Path) -> None:
    land, water = build(lay(tmp_path / "a")).confounders
    assert land == {"class": "landbird", "kind": "background", "value": "land", "p": 0.9}
    assert water == {"class": "waterbird", "kind": "background", "value": "water", "p": 0.8}
    table = rows()
    aligned = table[(table["split"] != 0) | (table["y"] == table["place"])]
    assert [one["p"] for one in build(lay(tmp_path / "b", aligned)).confounders] == [1.0, 1.0]  # Waterbirds-100


@pytest.mark.parametrize(
    "inside",
    [
        "waterbird_complete95_forest2water2",
        "waterbirds_v1.0",
        "cub/" + "/".join(["waterbird_complete95_forest2water2"] * 2),
    ],
)
def test_a_folder_above_gives_the_same(tmp_path: Path, inside: str) -> None:
    above, plain = build_both(tmp_path, inside)
    assert above.table.ids.tolist() == plain.table.ids.tolist()
    assert above.table.frame["split"].tolist() == plain.table.frame["split"].tolist()
    assert all(Path(path).is_file() for path in above.table.frame["path"])


def build_both(root: Path, inside: str) -> tuple[Benchmark, Benchmark]:
    lay(root / inside)
    return build(root), build(root / inside)


def test_files_that_cannot_be_used_are_listed(tmp_path: Path) -> None:
    names = rows()["img_filename"]
    lay(tmp_path)
    (tmp_path / names[0]).unlink()
    (tmp_path / names[1]).write_bytes(b"no image")
    benchmark = build(tmp_path)
    assert len(benchmark.table) == len(names) - 1
    assert [(one["path"], "No such file" in one["reason"]) for one in benchmark.refused] == [
        (f"{tmp_path}/{names[0]}", True)
    ]
    clean = verify(benchmark, progress=False).clean(benchmark.table)
    assert set(benchmark.table.ids) - set(clean.ids) == {names[1]}


@pytest.mark.parametrize("name", ["../secret.jpg", "{outside}/secret.jpg"])
def test_metadata_does_not_lead_out_of_the_folder(tmp_path: Path, name: str) -> None:
    name = name.format(outside=tmp_path)
    frame = rows()
    frame.loc[0, "img_filename"] = name
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.jpg")
    benchmark = build(lay(tmp_path / "birds", frame))
    assert len(benchmark.table) == len(frame) - 1
    assert [one["reason"] for one in benchmark.refused] == ["lies outside dataset.root"]


def test_the_fingerprint_sees_files_metadata_and_arguments(tmp_path: Path) -> None:
    lay(tmp_path)

    def now(**arguments: object) -> dict[str, object]:
        return Waterbirds(str(tmp_path), **arguments).fingerprint()  # type: ignore[arg-type]

    before = now()
    assert now() == before
    assert all(now(**one) != before for one in ({"seed": 1}, {"pool_share": 0.4}, {"per_class": {"train": 3}}))
    table = rows()
    table.loc[0, "place"] = 1
    table.to_csv(tmp_path / "metadata.csv", index=False)
    changed = now()
    assert changed != before and changed["files"] == before["files"]
    os.utime(tmp_path / table["img_filename"][0], ns=(1, 1))
    assert now()["files"] != before["files"]


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("y", "2", r"metadata\.csv row 3 has y '2'; expected 0, 1$"),
        ("split", "val", r"metadata\.csv row 3 has split 'val'; expected 0, 1, 2$"),
        ("place", "", r"metadata\.csv row 3 has place ''; expected 0, 1$"),
        ("img_filename", "./000.Bird_0/Bird_0000.jpg", r"lists '000.Bird_0/Bird_0000.jpg' more than once"),
    ],
)
def test_wrong_metadata(tmp_path: Path, column: str, value: str, message: str) -> None:
    frame = rows().astype(str)
    frame.loc[2, column] = value
    with pytest.raises(DataError, match=rf"^dataset\.root: .*{message}"):
        build(lay(tmp_path, frame))


def test_missing_and_unreadable_columns(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no column 'place'; nearest valid: place_id"):
        build(lay(tmp_path, rows().rename(columns={"place": "place_id"}).drop(columns="place_filename")))
    (tmp_path / "metadata.csv").write_bytes(b"")
    with pytest.raises(DataError, match=r"^dataset\.root: .*metadata\.csv is not readable as CSV \([^\n]*\)$"):
        build(tmp_path)
    (tmp_path / "metadata.csv").write_bytes(b"\xff\xfe\x00y,\x80")
    with pytest.raises(DataError, match="is not readable as CSV"):
        build(tmp_path)


def test_wrong_trees(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^dataset\.root: '.*/none' is not a folder"):
        build(tmp_path / "none")
    (tmp_path / "waterbird").mkdir()
    with pytest.raises(DataError, match=r"^dataset\.root: no metadata\.csv in .* it holds waterbird$"):
        build(tmp_path)
    rows().to_csv(tmp_path / "metadata.csv")
    with pytest.raises(
        DataError, match=r"no image of split train in .*\(55 files refused; the first: .*0000\.jpg, cannot"
    ):
        build(tmp_path)
    lay(tmp_path / "a", rows().query("split != 1"))
    with pytest.raises(DataError, match=r"no image of split val in .*\(0 files refused\)"):
        build(tmp_path / "a")
    lay(tmp_path / "b", rows().query("split != 2 or y == place"))
    with pytest.raises(DataError, match=r"no test image .* shows a class with the other's background"):
        build(tmp_path / "b")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pool_share": 0.0}, r"dataset\.pool_share: 0\.0; expected a number between 0 and 1"),
        ({"pool_share": 1.0}, r"dataset\.pool_share: 1\.0"),
        ({"per_class": {"pol": 1}}, r"dataset\.per_class\.pol: .*nearest valid: pool"),
        ({"per_class": {"pool": 5}}, r"dataset\.per_class\.pool: 5 .*'waterbird' has 4"),
    ],
)
def test_wrong_arguments(tmp_path: Path, arguments: dict[str, object], message: str) -> None:
    lay(tmp_path)
    with pytest.raises(ConfigError, match=message):
        build(tmp_path, **arguments)


def test_what_is_known_before_looking() -> None:
    source = Waterbirds("/nowhere", per_class={"pool": 7})
    assert source.class_names() == ("landbird", "waterbird")
    assert (source.at_most("pool"), source.at_most("train")) == (7, None)
    with pytest.raises(AacaError):
        source.fingerprint()
