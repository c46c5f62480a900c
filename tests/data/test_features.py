"""Feature store and its views: reading lazily, writing once, refusing holes and infinities."""

import numpy as np
import pandas as pd
import pytest

from aaca.data import features
from aaca.data.features import FeatureStore, Scored
from aaca.data.table import ImageTable
from aaca.runtime.errors import DataError


def table(n: int = 10) -> ImageTable:
    frame = pd.DataFrame({"id": [f"i{x}" for x in range(n)], "label": np.arange(n) % 2, "path": "x.png"})
    return ImageTable.build(frame, ("a", "b"))


def filled(folder, n: int = 10, passes: int = 1, dtype: str = "float32") -> tuple[FeatureStore, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    store = FeatureStore.create(folder, table(n), dim=4, n_classes=2, passes=passes, dtype=dtype)
    values = {"embeddings": rng.normal(size=(n, 4)), "logits": rng.normal(size=(n, 2))}
    values["passes"] = rng.normal(size=(n, passes, 2))
    order = rng.permutation(n)
    for rows in np.array_split(order, 3):
        store.write(rows, *(values[name][rows] for name in ("embeddings", "logits", "passes")))
    return store, values


@pytest.mark.parametrize("rows", [[2, 3, 4, 5], [5, 3, 4, 2], [2, 4, 6], [7], [2, 2, 4], [], [3, 4, 4, 6]])
def test_any_rows_are_read_as_numpy_reads_them(tmp_path, rows):
    _, values = filled(tmp_path, passes=3)
    view = FeatureStore(tmp_path).scored().take(np.array(rows, dtype=np.int64))
    rows = np.array(rows, dtype=np.int64)
    np.testing.assert_array_equal(view.embeddings, values["embeddings"][rows].astype(np.float32))
    np.testing.assert_array_equal(view.logits, values["logits"][rows].astype(np.float32))
    np.testing.assert_array_equal(view.passes, values["passes"][rows].astype(np.float32))
    np.testing.assert_array_equal(view.predictions, values["logits"][rows].argmax(axis=1))
    assert view.ids.tolist() == [f"i{x}" for x in rows]
    assert view.labels.tolist() == (rows % 2).tolist()


def test_one_run_of_rows_is_a_slice_others_are_not():
    array = np.arange(20.0).reshape(10, 2)
    assert np.shares_memory(features._read(array, np.array([3, 4, 5])), array)
    assert not np.shares_memory(features._read(array, np.array([3, 5, 4, 6])), array)


def test_changing_what_was_read_changes_no_store(tmp_path):
    store, values = filled(tmp_path)
    store.scored().embeddings[:] = 0.0
    store.scored().logits[:] = 0.0
    np.testing.assert_array_equal(store.scored().embeddings, values["embeddings"].astype(np.float32))
    np.testing.assert_array_equal(store.scored().logits, values["logits"].astype(np.float32))


def test_take_by_mask_positions_and_nothing():
    view = Scored.of(np.array(list("abcd")), np.array([0, 1, 0, 1]), np.eye(4), np.eye(4)).take([3, 0, 1])
    assert view.take(view.labels == 1).ids.tolist() == ["d", "b"]
    assert view.take([2, 0]).ids.tolist() == ["b", "d"]
    assert len(view.take([])) == len(view.take(view.labels == 7)) == 0


def test_chunks_cover_the_view_in_order_and_fit_the_budget(monkeypatch):
    n, classes, passes = 50, 3, 4
    view = Scored.of(
        np.array([f"i{x}" for x in range(n)]), np.zeros(n), np.ones((n, 5)), np.ones((n, classes)), np.ones((n, 4, 3))
    ).take(np.arange(n)[::-1])
    monkeypatch.setattr(features, "CHUNK_BYTES", 4 * classes * passes * 7)
    sizes = [len(chunk) for chunk in view.chunks()]
    assert sizes == [7] * 7 + [1]
    assert [name for chunk in view.chunks() for name in chunk.ids] == view.ids.tolist()
    assert [len(chunk) for chunk in view.chunks(20)] == [20, 20, 10]


def test_a_complete_store_passes_and_holes_or_repeats_do_not(tmp_path):
    store, values = filled(tmp_path / "whole")
    assert store.check() is store
    store.write(np.array([4]), values["embeddings"][[4]], values["logits"][[4]])
    with pytest.raises(DataError, match=r"row 4 was written 2 times, expected once \(1 rows\)"):
        store.check()
    twice = FeatureStore.create(tmp_path / "twice", table(3), dim=4, n_classes=2)
    twice.write(np.array([0, 1, 1]), np.ones((3, 4)), np.ones((3, 2)))
    with pytest.raises(DataError, match="row 1 was written 2 times"):
        twice.check()
    with pytest.raises(DataError, match="row 0 was written 0 times"):
        FeatureStore.create(tmp_path / "empty", table(3), dim=4, n_classes=2).check()


@pytest.mark.parametrize("name", ["logits", "embeddings", "passes"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_infinite_numbers_are_refused_wherever_they_stand(tmp_path, monkeypatch, name, bad):
    monkeypatch.setattr(features, "CHUNK_BYTES", 64)
    store, _ = filled(tmp_path, passes=2)
    getattr(store, name)[8, ..., 1] = bad
    with pytest.raises(DataError, match=rf"{name} hold NaN or infinity \(first in row 8\); the model"):
        store.check()


def test_an_overflow_of_half_precision_is_named(tmp_path):
    store, _ = filled(tmp_path, dtype="float16")
    with np.errstate(over="ignore"):
        store.embeddings[2] = 1e6
    with pytest.raises(DataError, match=r"embeddings hold NaN or infinity .* overflow float16"):
        store.check()


def test_check_reads_in_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(features, "CHUNK_BYTES", 64)
    store, _ = filled(tmp_path, n=40)
    sizes = []
    monkeypatch.setattr(np, "isfinite", lambda block, real=np.isfinite: sizes.append(block.size) or real(block))
    store.check()
    assert max(sizes) * 4 <= 64
    assert sum(sizes) == 40 * (4 + 2)


def test_not_a_store(tmp_path):
    with pytest.raises(DataError, match=r"not a feature store \(store.json is missing\)"):
        FeatureStore(tmp_path)
