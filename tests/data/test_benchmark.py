import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from aaca.data.benchmark import SPLITS, Benchmark
from aaca.data.table import ImageTable
from aaca.runtime.errors import DataError


def frame() -> pd.DataFrame:
    """Two classes, two images of each in every split, every image its own file and source."""
    rows = [(split, label, k) for split in SPLITS for label in (0, 1) for k in (0, 1)]
    table = pd.DataFrame(rows, columns=["split", "label", "k"])
    table["id"] = [f"{split}/{label}/{k}" for split, label, k in rows]
    return table.assign(path=table["id"] + ".png", source=table["id"]).drop(columns="k")


def benchmark(rows: pd.DataFrame, classes: tuple[str, ...] = ("cat", "dog"), root: Path = Path()) -> Benchmark:
    return Benchmark("toy", ImageTable.build(rows, classes, root))


def test_a_sound_benchmark_passes() -> None:
    sound = benchmark(frame())
    assert sound.check() is sound
    assert len(sound.split("pool")) == 4


def test_one_class_is_refused() -> None:
    with pytest.raises(DataError, match="1 class"):
        benchmark(frame().assign(label=0), ("cat",)).check()


@pytest.mark.parametrize("split", ["train", "audit", "test"])
def test_a_class_missing_from_a_split_is_named(split: str) -> None:
    rows = frame()
    with pytest.raises(DataError, match=f"split '{split}' has no image of class 'dog'"):
        benchmark(rows[~((rows["split"] == split) & (rows["label"] == 1))]).check()


def test_the_pool_may_lack_a_class_but_not_all() -> None:
    rows = frame()
    benchmark(rows[~((rows["split"] == "pool") & (rows["label"] == 1))]).check()
    with pytest.raises(DataError, match="'pool'"):
        benchmark(rows[rows["split"] != "pool"]).check()


def test_one_file_in_two_splits_is_refused() -> None:
    rows = frame()
    rows.loc[rows["id"] == "pool/0/0", "path"] = "train/0/0.png"
    with pytest.raises(DataError, match=r"train/0/0\.png is in the table 2 times \(splits: pool, train\)"):
        benchmark(rows).check()


def test_rows_of_one_array_are_different_images() -> None:
    rows = frame().assign(path="all.npy")
    benchmark(rows.assign(row=np.arange(len(rows)))).check()
    with pytest.raises(DataError, match="in the table 2 times"):
        benchmark(rows.assign(row=[0, *range(len(rows) - 1)])).check()


@pytest.mark.parametrize("split", ["train", "pool", "audit", "test_seen"])
def test_a_test_source_elsewhere_is_refused(split: str) -> None:
    rows = frame()
    if split == "test_seen":
        rows = pd.concat([rows, rows[:1].assign(id="new", path="new.png", split=split)])
    rows.loc[rows["split"] == split, "source"] = "test/1/1"
    with pytest.raises(DataError, match=f"source 'test/1/1' of split 'test' also occurs in '{split}'"):
        benchmark(rows).check()


def test_sources_may_be_shared_outside_test_and_unknown_ones_do_not_count() -> None:
    rows = frame()
    rows.loc[rows["split"] != "test", "source"] = "one"
    benchmark(rows).check()
    benchmark(frame().assign(source="")).check()


def test_save_and_load_in_the_tables_own_folder(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2), "red").save(tmp_path / "red.png")
    rows = frame()
    rows.loc[0, "path"] = "red.png"
    made = Benchmark(
        "toy",
        ImageTable.build(rows, ["cat", "<b>dog</b>"], tmp_path),
        "what",
        "balanced",
        [{"p": 0.9}],
        [{"path": "x"}],
    )
    made.save(tmp_path)
    moved = tmp_path.rename(tmp_path.with_name("moved"))  # a stage is published by renaming its folder
    again = Benchmark.load(moved)
    assert again.classes == ("cat", "<b>dog</b>") and again.table.image(0)[0, 0].tolist() == [255, 0, 0]
    for name in ("name", "description", "headline_slice", "confounders", "refused"):
        assert getattr(again, name) == getattr(made, name)
    pd.testing.assert_frame_equal(again.table.frame, made.table.frame)


def test_saved_elsewhere_it_still_finds_its_images(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2), "red").save(tmp_path / "red.png")
    rows = frame()
    rows.loc[0, "path"] = "red.png"
    benchmark(rows, root=tmp_path).save(tmp_path / "elsewhere")
    assert Benchmark.load(tmp_path / "elsewhere").table.image(0).shape == (2, 2, 3)


def test_checking_a_large_table_is_quick() -> None:
    many = frame().loc[np.repeat(np.arange(16), 6000)].reset_index(drop=True)
    names = [f"{name}#{k}" for k, name in enumerate(many["id"])]
    many = many.assign(id=names, path=names, source=names)
    start = time.perf_counter()
    benchmark(many).check()
    assert time.perf_counter() - start < 3  # 96,000 rows in 0.2 s on an idle core; a Python loop over rows takes over 6
