"""Embedding store: rows come back as they were, across shards and through views; damage is seen."""

import numpy as np
import pytest

from aaca.data import embeddings
from aaca.data.embeddings import EmbeddingStore
from aaca.runtime.errors import DataError
from tests.data.embedding_toys import D, N, vectors, written


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_what_was_written_is_read_across_shards(tmp_path, dtype):
    rows = vectors()
    store = written(tmp_path, rows, dtype)
    kept = rows.astype(dtype)
    assert (store.n, store.dim, store.dtype, len(store.manifest["shards"])) == (N, D, dtype, 6)
    for wanted in ([], [3], [56, 0, 9, 10, 10, 31], np.random.default_rng(1).integers(0, N, 200)):
        wanted = np.array(wanted, dtype=np.int64)
        np.testing.assert_array_equal(store.gather(wanted), kept[wanted].astype(np.float32))
        assert store.gather(wanted).dtype == np.float32 and store.fetch(wanted).dtype == dtype
    for start, stop in ((0, N), (0, 10), (3, 9), (8, 33), (50, N), (10, 20)):
        np.testing.assert_array_equal(store.block(start, stop), kept[start:stop])
    np.testing.assert_array_equal(np.concatenate(list(store.chunks())), kept.astype(np.float32))
    assert np.shares_memory(store.block(11, 19), store.block(10, 12))
    assert not np.shares_memory(store.block(8, 12), store.block(10, 12))
    assert store.keys.tolist() == [f"k{x}" for x in range(N)] and store.groups.tolist()[:3] == ["g0", "g1", "g0"]
    np.testing.assert_array_equal(store.labels, np.arange(N) % 3)
    for wrong in ([-1], [N]):
        with pytest.raises(IndexError, match=f"0…{N - 1}"):
            store.fetch(np.array(wrong))


def test_a_view_reads_as_the_store_at_its_rows(tmp_path):
    rows = vectors()
    store = written(tmp_path, rows)
    mask = np.random.default_rng(2).random(N) < 0.5
    for chosen in (mask, np.flatnonzero(mask)[::-1], np.arange(8, 27)):
        view, own = store.take_split(chosen), rows[chosen]
        assert (view.n, view.dim, view.dtype) == (len(own), D, "float32")
        at = np.array([5, 0, 5, view.n - 1])
        np.testing.assert_array_equal(view.gather(at), own[at])
        np.testing.assert_array_equal(view.block(2, 9), own[2:9])
        out = np.empty((view.n - 3, D), np.float32)
        view.read(3, out)
        np.testing.assert_array_equal(out, own[3:])
        np.testing.assert_array_equal(view.labels, (np.arange(N) % 3)[chosen])
        assert view.keys.tolist() == store.keys[chosen].tolist() and len(view.groups) == view.n
    with pytest.raises(DataError, match="a mask of 3 rows; expected 57"):
        store.take_split(np.ones(3, dtype=bool))


def test_damage_is_seen(tmp_path):
    store = written(tmp_path, vectors())
    assert store.verify() is store
    feat = tmp_path / "feat-00002.npy"
    good = feat.read_bytes()
    feat.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(DataError, match=r"feat-00002\.npy: its bytes are not those"):
        EmbeddingStore.open(tmp_path).verify()
    feat.write_bytes(good[:-4])
    with pytest.raises(DataError, match=r"feat-00002\.npy: \d+ bytes; expected \d+"):
        EmbeddingStore.open(tmp_path)
    feat.unlink()
    with pytest.raises(DataError, match=r"feat-00002\.npy: not a readable array"):
        EmbeddingStore.open(tmp_path)
    feat.write_bytes(good)
    (tmp_path / "rows-00001.parquet").write_bytes(b"")
    with pytest.raises(DataError, match=r"rows-00001\.parquet: missing or of another size"):
        EmbeddingStore.open(tmp_path)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_scattered_rows_of_a_large_store_are_read_one_by_one(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(embeddings, "MAPPED_BYTES", N * D * np.dtype(dtype).itemsize - 1)
    rows = vectors()
    store = written(tmp_path, rows, dtype)
    wanted = np.random.default_rng(0).integers(0, N, 80)
    np.testing.assert_array_equal(store.fetch(wanted), rows.astype(dtype)[wanted])
    (tmp_path / "feat-00003.npy").write_bytes(b"")
    with pytest.raises(DataError, match=r"feat-00003\.npy: shorter than it was"):
        store.fetch(wanted)
    with pytest.raises(DataError, match=r"feat-00003\.npy: shorter than it was"):
        next(iter(np.concatenate(list(store.chunks()))))
