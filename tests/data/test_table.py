from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from aaca.data.table import COLUMNS, ImageReader, ImageTable
from aaca.runtime.errors import DataError


def frame(n: int = 4) -> pd.DataFrame:
    return pd.DataFrame({"id": [f"i{k}" for k in range(n)], "label": [k % 2 for k in range(n)], "split": "train"})


@pytest.fixture
def mixed(tmp_path: Path) -> ImageTable:
    """Two rows of an array file and one image file."""
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 6, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    Image.fromarray(images[1]).save(tmp_path / "one.png")
    rows = pd.DataFrame({"id": list("abc"), "path": ["images.npy", "one.png", "images.npy"], "row": [1, -1, 0]})
    return ImageTable.build(rows, ["cat", "dog"], tmp_path)


def test_missing_columns_get_their_defaults_and_others_stay() -> None:
    table = ImageTable.build(frame().assign(extra=7), ["cat", "dog"])
    assert list(table.frame.columns) == [*COLUMNS, "extra"]
    assert (table.frame["slice"] == "all").all() and (table.frame["row"] == -1).all()


def test_repeated_ids_and_labels_out_of_range_are_refused() -> None:
    with pytest.raises(DataError, match="'i0' occurs more than once"):
        ImageTable.build(frame().assign(id=["i0", "i0", "x", "y"]), ["cat", "dog"])
    with pytest.raises(DataError, match="labels must lie in 0…0"):
        ImageTable.build(frame(), ["cat"])
    with pytest.raises(DataError, match="labels"):
        ImageTable.build(frame().assign(label=-1), ["cat", "dog"])


def test_take_by_positions_and_by_mask() -> None:
    table = ImageTable.build(frame(), ["cat", "dog"])
    assert table.take([3, 0]).ids.tolist() == ["i3", "i0"]
    assert table.take(np.array([False, True, False, True])).ids.tolist() == ["i1", "i3"]
    assert len(table.take(np.zeros(4, dtype=bool))) == 0
    assert len(table.split("test")) == 0 and len(table.split("train")) == 4


def test_images_of_files_and_arrays_agree(mixed: ImageTable) -> None:
    assert np.array_equal(mixed.image(0), mixed.image(1))
    assert not np.array_equal(mixed.image(0), mixed.image(2))
    together = ImageReader(mixed).read(np.array([2, 1, 0, 2]))
    for image, position in zip(together, [2, 1, 0, 2], strict=True):
        assert np.array_equal(image, mixed.image(position))


def test_save_and_load(mixed: ImageTable, tmp_path: Path) -> None:
    mixed.save(tmp_path / "table.parquet")
    again = ImageTable.load(tmp_path / "table.parquet", mixed.classes)
    pd.testing.assert_frame_equal(again.frame, mixed.frame)
    assert np.array_equal(again.image(2), mixed.image(2))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_concat_keeps_each_tables_files(mixed: ImageTable, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    Image.new("RGB", (2, 2), "red").save(other / "one.png")
    rows = pd.DataFrame({"id": ["z"], "path": ["one.png"]})
    both = mixed.concat(ImageTable.build(rows, ["cat", "dog"], other))
    assert np.array_equal(both.image(2), mixed.image(2)) and both.image(3)[0, 0].tolist() == [255, 0, 0]
    with pytest.raises(DataError, match="different classes"):
        mixed.concat(ImageTable.build(rows, ["dog", "cat"], other))


def test_hostile_names_are_only_data(tmp_path: Path) -> None:
    names = ["../x", "<script>alert(1)</script>", "a" * 300]
    rows = pd.DataFrame({"id": names, "label": [0, 1, 2]})
    table = ImageTable.build(rows, names)
    table.save(tmp_path / "t.parquet")
    assert ImageTable.load(tmp_path / "t.parquet", names).classes == tuple(names)
