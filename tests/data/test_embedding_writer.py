"""Writing embeddings: shards that resume, rows of something else and broken rows refused, arrays as stores."""

import json

import numpy as np
import pytest

from aaca.data.embedding_writer import EmbeddingWriter, store_of_array
from aaca.data.embeddings import EmbeddingStore
from aaca.runtime.errors import ConfigError, DataError
from tests.data.embedding_toys import ABOUT, SHARD, D, N, add, vectors, written


def test_a_cut_off_writer_goes_on_after_its_published_shards(tmp_path):
    rows = vectors()
    whole = written(tmp_path / "whole", rows)
    first = EmbeddingWriter(tmp_path / "cut", D, "float32", ABOUT, SHARD)
    assert (first.done, first.last_key) == (0, None)
    add(first, rows, 0, 34)
    with pytest.raises(DataError, match=r"manifest\.json is missing"):
        EmbeddingStore.open(tmp_path / "cut")
    again = EmbeddingWriter(tmp_path / "cut", D, "float32", json.loads(json.dumps(ABOUT)), SHARD)
    assert (again.done, again.last_key) == (30, "k29")
    add(again, rows, 30, N)
    store = again.close()
    assert store.content == whole.content and store.keys.tolist() == whole.keys.tolist()
    np.testing.assert_array_equal(store.block(0, N), rows)
    late = EmbeddingWriter(tmp_path / "cut", D, "float32", ABOUT, SHARD)
    assert late.done == N and late.close().content == store.content
    with pytest.raises(DataError, match="this store is complete"):
        add(late, rows, 0, 2)


def test_rows_of_something_else_do_not_mix(tmp_path):
    EmbeddingWriter(tmp_path, D, "float32", ABOUT)
    for dim, dtype, about in (
        (D, "float32", {**ABOUT, "encoder": "b"}),
        (D, "float16", ABOUT),
        (D + 1, "float32", ABOUT),
    ):
        with pytest.raises(DataError, match="holds embeddings of another kind"):
            EmbeddingWriter(tmp_path, dim, dtype, about)
    with pytest.raises(ConfigError, match="dtype: 'float61'; nearest valid: float16"):
        EmbeddingWriter(tmp_path, D, "float61", ABOUT)
    with pytest.raises(DataError, match="no embedding was written"):
        EmbeddingWriter(tmp_path, D, "float32", ABOUT).close()
    with pytest.raises(DataError, match="holds embeddings already"):
        store_of_array(tmp_path, vectors())


@pytest.mark.parametrize(("dtype", "value"), [("float32", np.nan), ("float32", np.inf), ("float16", 1e5)])
def test_nan_infinity_and_overflow_are_named(tmp_path, dtype, value):
    rows = vectors()
    rows[4, 2] = value
    writer = EmbeddingWriter(tmp_path, D, dtype, ABOUT, SHARD)
    with pytest.raises(DataError, match=rf"the vector of 'k4' holds NaN or infinity \(as {dtype}\)"):
        add(writer, rows, 0, 12)
    assert writer.done == 0 and writer.filled == 0  # nothing of a refused batch stays


def test_columns_of_another_length_are_refused(tmp_path):
    writer = EmbeddingWriter(tmp_path, D, "float32", ABOUT)
    rows = vectors(3)
    for arguments in (
        (rows, ["a", "b"]),
        (rows[:, :2], list("abc")),
        (rows, list("abc"), np.arange(2)),
        (rows, list("abc"), None, ["x"]),
    ):
        with pytest.raises(DataError, match="expected"):
            writer.add(*arguments)


def test_content_follows_rows_labels_and_about(tmp_path):
    rows = vectors()
    other = rows.copy()
    other[56, 5] += 1
    variants = [
        store_of_array(tmp_path / str(number), array, labels=labels, about=about).content
        for number, (array, labels, about) in enumerate(
            ((rows, None, {}), (rows, None, {}), (other, None, {}), (rows, np.arange(N), {}), (rows, None, {"a": 1}))
        )
    ]
    assert variants[0] == variants[1] and len(set(variants)) == 4


def test_a_shard_of_another_shape_or_schema_is_refused(tmp_path):
    EmbeddingWriter(tmp_path, D, "float32", ABOUT)
    np.save(tmp_path / "feat-00000.npy", np.zeros((4, D + 1), np.float32))
    with pytest.raises(DataError, match=r"float32 of shape \[4, 7\]; expected float32 \[rows, 6\]"):
        EmbeddingWriter(tmp_path, D, "float32", ABOUT)
    store = written(tmp_path / "b", vectors())
    (tmp_path / "b" / "manifest.json").write_text(json.dumps({**store.manifest, "schema": 99}))
    with pytest.raises(DataError, match=r"schema 99 of manifest\.json; expected 1"):
        EmbeddingStore.open(tmp_path / "b")


def test_defaults_of_an_array(tmp_path):
    store = store_of_array(tmp_path, vectors().astype(np.float64))
    assert store.dtype == "float32" and store.keys[:2].tolist() == ["00000000", "00000001"] and store.about == {}
    assert set(store.labels) == {-1} and set(store.groups) == {""}
