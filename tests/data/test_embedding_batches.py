"""Batches of embeddings: every row once, the same batches wherever the vectors lie, on any number of ranks, resumed."""

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch

from aaca.data import embedding_batches
from aaca.data.embedding_batches import EmbeddingBatches, available_memory
from aaca.data.embedding_writer import EmbeddingWriter, store_of_array
from aaca.runtime.errors import ConfigError

N, D, B = 103, 5, 8
MODES = ("global", "block", "none")


def vectors() -> np.ndarray:
    return (np.random.default_rng(0).normal(size=(N, D)) + 1).astype(np.float32)


@pytest.fixture(scope="module", params=["float32", "float16"])
def store(request, tmp_path_factory):
    writer = EmbeddingWriter(tmp_path_factory.mktemp("store"), D, request.param, {}, shard_rows=17)
    writer.add(vectors(), [str(row) for row in range(N)])
    return writer.close()


def epoch(source, number=0, skip=0, **arguments):
    arguments = {"block_rows": 6, "seed": 3, "resident": "no", **arguments}
    return list(EmbeddingBatches(source, B, **arguments).epoch(number, skip, with_rows=True))


def rows_of(batches) -> list[int]:
    return [row for _, rows in batches for row in rows.tolist()]


@pytest.mark.parametrize("shuffle", MODES)
@pytest.mark.parametrize("resident", ["no", "memory", "auto"])
def test_every_row_comes_once_with_its_own_vector(store, shuffle, resident):
    batches = epoch(store, shuffle=shuffle, resident=resident, drop_last=False)
    assert sorted(rows_of(batches)) == list(range(N)) and [len(batch) for batch, _ in batches] == [B] * 12 + [7]
    for batch, rows in batches:
        assert batch.dtype == torch.float32
        np.testing.assert_array_equal(batch.numpy(), store.gather(rows.numpy()))
    whole = epoch(store, shuffle=shuffle, resident=resident)
    assert [len(batch) for batch, _ in whole] == [B] * 12 and len(set(rows_of(whole))) == 96


@pytest.mark.parametrize("shuffle", MODES)
def test_batches_do_not_depend_on_where_the_vectors_lie(store, shuffle):
    wanted = epoch(store, shuffle=shuffle)
    for resident in ("memory", "device", "auto"):
        for (batch, rows), (other, others) in zip(
            wanted, epoch(store, shuffle=shuffle, resident=resident), strict=True
        ):
            assert torch.equal(batch, other) and torch.equal(rows, others)


@pytest.mark.parametrize("shuffle", ["global", "block"])
def test_orders_follow_seed_and_epoch_and_mix(store, shuffle):
    orders = [
        rows_of(epoch(store, number, shuffle=shuffle, seed=seed)) for seed, number in ((3, 0), (3, 0), (3, 1), (4, 0))
    ]
    assert orders[0] == orders[1] and len({tuple(order) for order in orders}) == 3
    assert orders[0] != sorted(orders[0])
    assert rows_of(epoch(store, shuffle="none")) == list(range(96))


def test_every_row_is_as_likely_in_the_first_batch(store):
    for shuffle in ("global", "block"):
        batches = EmbeddingBatches(store, B, shuffle, block_rows=6, resident="memory")
        firsts = [next(batches.epoch(number, with_rows=True))[1] for number in range(1500)]
        counts = np.bincount(torch.cat(firsts).numpy(), minlength=N)
        # blocks come together, so that counts vary more than a binomial's; 5.5 of its deviations bound both
        expected = 1500 * B / N
        assert np.abs(counts - expected).max() < 5.5 * np.sqrt(expected)


def test_block_shuffle_mixes_a_few_blocks_and_no_more(store):
    batches = epoch(store, shuffle="block", drop_last=False)
    chunk = 4 * 6 // B * B  # rows in the buffer: whole batches of about four blocks
    order = rows_of(batches)
    for start in range(0, N, chunk):
        blocks = {row // 6 for row in order[start : start + chunk]}
        assert len(blocks) <= 6  # four whole blocks, or parts of one more at either end
    assert any(abs(a - b) > 6 for a, b in pairwise(order[:B]))


@pytest.mark.parametrize("shuffle", MODES)
@pytest.mark.parametrize("skip", [0, 1, 4, 11, 12, 13])
def test_a_resumed_epoch_goes_on_with_the_same_batches(store, shuffle, skip):
    wanted = epoch(store, 2, shuffle=shuffle, drop_last=False)[skip:]
    found = epoch(store, 2, skip, shuffle=shuffle, drop_last=False)
    assert len(found) == len(wanted)
    for (batch, rows), (other, others) in zip(wanted, found, strict=True):
        assert torch.equal(batch, other) and torch.equal(rows, others)


@pytest.mark.parametrize("shuffle", MODES)
@pytest.mark.parametrize("world", [2, 3, 5])
@pytest.mark.parametrize("drop_last", [True, False])
def test_ranks_share_the_rows_in_equally_many_batches(store, shuffle, world, drop_last):
    for resident in ("no", "memory"):
        ranks = [
            epoch(store, shuffle=shuffle, rank=rank, world=world, drop_last=drop_last, resident=resident)
            for rank in range(world)
        ]
        assert len({len(batches) for batches in ranks}) == 1
        rows = [row for batches in ranks for row in rows_of(batches)]
        assert len(rows) == len(set(rows))
        if drop_last:
            assert {len(batch) for batches in ranks for batch, _ in batches} == {B}
            assert len(rows) == N // world // B * B * world
        else:
            assert sorted(rows) == list(range(N))
        for batches in ranks:
            for batch, own in batches:
                np.testing.assert_array_equal(batch.numpy(), store.gather(own.numpy()))


@pytest.mark.parametrize("shuffle", MODES)
def test_a_rank_with_one_batch_less_of_rows_still_gives_as_many(store, shuffle):
    view = store.take_split(np.arange(33))  # shares of 16 and 17 rows: two batches, and three
    ranks = [epoch(view, shuffle=shuffle, rank=rank, world=2, drop_last=False) for rank in range(2)]
    assert [[len(batch) for batch, _ in batches] for batches in ranks] == [[8, 7, 1], [8, 8, 1]]
    assert sorted(rows_of(ranks[0]) + rows_of(ranks[1])) == list(range(33))


@pytest.mark.parametrize("shuffle", MODES)
@pytest.mark.parametrize("resident", ["no", "memory"])
def test_a_view_gives_its_own_rows_by_their_numbers_in_the_store(store, shuffle, resident):
    for chosen in (np.arange(20, 80), np.random.default_rng(1).permutation(N)[:60]):
        batches = epoch(store.take_split(chosen), shuffle=shuffle, resident=resident, drop_last=False)
        assert sorted(rows_of(batches)) == sorted(chosen.tolist())
        for batch, rows in batches:
            np.testing.assert_array_equal(batch.numpy(), store.gather(rows.numpy()))


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("scale", ["none", "unit", "sqrt_d"])
@pytest.mark.parametrize("shuffle", MODES)
@pytest.mark.parametrize("resident", ["no", "memory"])
def test_centring_and_scaling(store, center, scale, shuffle, resident):
    rows = store.gather(np.arange(N)).astype(np.float64)
    if center:
        rows -= rows.mean(axis=0)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    if scale != "none":
        rows = rows / norms if scale == "unit" else rows * np.sqrt(D) / norms.mean()
    batches = EmbeddingBatches(
        store, B, shuffle, block_rows=6, center=center, scale=scale, resident=resident, drop_last=False
    )
    for number in range(2):  # twice: what is done to a batch must not reach the vectors in memory
        for batch, at in batches.epoch(number, with_rows=True):
            np.testing.assert_allclose(batch.numpy(), rows[at.numpy()], rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("shuffle", MODES)
@pytest.mark.parametrize("resident", ["no", "memory"])
def test_batches_belong_to_the_caller(store, shuffle, resident):
    batches = EmbeddingBatches(store, B, shuffle, block_rows=6, resident=resident)
    for batch, rows in batches.epoch(0, with_rows=True):
        batch.zero_()
        rows.zero_()
    for batch, rows in batches.epoch(0, with_rows=True):
        np.testing.assert_array_equal(batch.numpy(), store.gather(rows.numpy()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shuffle": "blocks"}, r"sae\.shuffle: 'blocks'; nearest valid: block"),
        ({"scale": "sqrt"}, r"sae\.scale: 'sqrt'; nearest valid: sqrt_d"),
        ({"resident": "disk"}, r"sae\.resident: 'disk'"),
        ({"batch_size": 0}, r"sae\.training\.batch_size: 0; expected 1 or more"),
        ({"block_rows": 0}, r"sae\.block_rows: 0; expected 1 or more"),
        ({"batch_size": 104}, r"sae\.training\.batch_size: 104; 103 rows give 1 ranks .* at most 103"),
        ({"batch_size": 52, "world": 2}, r"sae\.training\.batch_size: 52; 103 rows give 2 ranks"),
        ({"batch_size": 1, "world": 2, "drop_last": False}, r"sae\.training\.batch_size: 1; .* 2 or more"),
        ({"rank": 2, "world": 2}, r"batches\.rank: 2; expected 0…1"),
    ],
)
def test_impossible_arguments_are_one_line(store, arguments, message):
    with pytest.raises(ConfigError, match=message):
        EmbeddingBatches(store, **{"batch_size": B, **arguments})


def test_auto_keeps_in_memory_what_is_under_a_quarter_of_it(store, monkeypatch):
    size = N * D * np.dtype(store.dtype).itemsize
    for free, world, place in (
        (4 * size, 1, "memory"),
        (4 * size - 1, 1, "no"),
        (4 * size, 2, "no"),
        (8 * size, 2, "memory"),
    ):
        monkeypatch.setattr(embedding_batches, "available_memory", lambda free=free: free)
        batches = EmbeddingBatches(store, B, world=world)
        assert batches.place == place and (batches.data is None) == (place == "no")
        assert batches.data is None or batches.data.dtype == getattr(torch, store.dtype)


def test_available_memory_heeds_a_container(tmp_path):
    meminfo, limit = tmp_path / "meminfo", tmp_path / "memory.max"
    meminfo.write_text("MemTotal: 99 kB\nMemAvailable:   50 kB\n")
    assert available_memory(meminfo, limit) == 50 * 1024
    for text, expected in (("max\n", 50 * 1024), ("4096\n", 4096), ("999999999\n", 50 * 1024)):
        limit.write_text(text)
        assert available_memory(meminfo, limit) == expected
    assert available_memory(tmp_path / "none", limit) > 2**26


EPOCHS = """
import sys
from pathlib import Path
from aaca.data import embedding_batches, embeddings
from aaca.runtime.memory import peak_memory_mb, reset_peak_memory
embeddings.MAPPED_BYTES = 2**24
for shuffle in sys.argv[2:]:
    store = embeddings.EmbeddingStore.open(Path(sys.argv[1]))
    batches = embedding_batches.EmbeddingBatches(store, 64, shuffle, block_rows=1024, resident="no")
    reset_peak_memory()
    before = peak_memory_mb()
    count = sum(len(batch) for batch in batches.epoch(1))
    print(count, peak_memory_mb() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resident memory is read from Linux's /proc")
def test_an_epoch_from_disk_keeps_little_of_the_store_resident(tmp_path):
    rows, dim = 65_536, 512  # 128 MiB
    store_of_array(tmp_path, np.ones((rows, dim), np.float32))
    command = [sys.executable, "-c", EPOCHS, tmp_path, *MODES]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for line in done.stdout.splitlines():
        count, grown = line.split()
        assert int(count) == rows and float(grown) < 48  # of 128; a buffer of blocks is 8 MiB
    assert len(done.stdout.splitlines()) == len(MODES)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("resident", ["device", "memory", "no", "auto"])
@pytest.mark.parametrize("shuffle", MODES)
def test_batches_on_a_gpu_are_those_of_the_cpu(store, shuffle, resident):
    wanted = epoch(store, shuffle=shuffle, center=True, scale="sqrt_d")
    found = epoch(store, shuffle=shuffle, center=True, scale="sqrt_d", resident=resident, device="cuda")
    for (batch, rows), (other, others) in zip(wanted, found, strict=True):
        assert other.device.type == "cuda" and torch.equal(rows, others)
        torch.testing.assert_close(batch, other.cpu())
