"""Samplers and batches: who sees which image when, on any number of ranks."""

import numpy as np
import pytest
import torch

from aaca.data.module import ImageDataModule, TableDataset
from aaca.data.sampler import EpochSampler, ShardSampler
from aaca.data.transforms import BatchAugment, EvalTransform, TimmAugment, normalise
from aaca.runtime.errors import ConfigError
from tests.toys import SIZE, square_table


def epochs(count: int, **arguments: int) -> list[list[int]]:
    sampler = EpochSampler(**arguments)
    drawn = []
    for epoch in range(count):
        sampler.set_epoch(epoch)
        drawn.append([draw % arguments["n"] for draw in sampler])
    return drawn


def test_an_epoch_is_one_shuffle_and_every_epoch_another():
    first, second = epochs(2, n=10, per_rank=10, epoch_size=10, seed=0)
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert epochs(2, n=10, per_rank=10, epoch_size=10, seed=0) == [first, second]
    assert epochs(1, n=10, per_rank=10, epoch_size=10, seed=1) != [first]


def test_a_longer_epoch_runs_on_into_the_next_shuffle_and_no_image_is_favoured():
    drawn = np.concatenate(epochs(7, n=10, per_rank=14, epoch_size=14, seed=0))
    for taken in (10, 30, 70, 98):
        counts = np.bincount(drawn[:taken], minlength=10)
        assert counts.max() - counts.min() <= 1
    shorter = np.concatenate(epochs(5, n=10, per_rank=4, epoch_size=4, seed=0))
    assert sorted(np.bincount(shorter)) == [2] * 10


def test_ranks_share_an_epoch_without_overlap():
    ranks = [epochs(1, n=11, per_rank=5, epoch_size=11, seed=0, rank=rank, world=2)[0] for rank in (0, 1)]
    assert len(set(ranks[0]) | set(ranks[1])) == 10
    interleaved = [row for pair in zip(*ranks, strict=True) for row in pair]
    assert interleaved == epochs(1, n=11, per_rank=11, epoch_size=11, seed=0)[0][:10]


@pytest.mark.parametrize("n", [1, 7, 8])
def test_shards_cover_every_row_once_and_padding_evens_them_out(n):
    bare = [list(ShardSampler(n, rank, 2)) for rank in (0, 1)]
    assert sorted(bare[0] + bare[1]) == list(range(n))
    padded = [list(ShardSampler(n, rank, 2, pad=True)) for rank in (0, 1)]
    assert len(padded[0]) == len(padded[1])
    assert set(padded[0] + padded[1]) == set(range(n))


def test_a_batch_holds_the_images_of_its_rows(tmp_path):
    table = square_table(tmp_path, 9)
    images, labels, rows = TableDataset(table, SIZE).__getitems__([4, 0, 8])
    assert rows.tolist() == [4, 0, 8]
    assert labels.tolist() == [0, 0, 0]
    for image, row in zip(images, rows, strict=True):
        np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), table.image(int(row)))
    resized, *_ = TableDataset(table, 32).__getitems__([1, 2])
    assert resized.shape == (2, 3, 32, 32)


def test_predict_batches_are_normalised_and_not_augmented(tmp_path):
    table = square_table(tmp_path, 5)
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]
    data = ImageDataModule(SIZE, mean, std, batch_size=4, predict=table, augment=BatchAugment())
    images, _, rows = data.on_after_batch_transfer(next(iter(data.predict_dataloader())), 0)
    raw = np.stack([table.image(int(row)) for row in rows]) / 255
    expected = ((raw - mean) / std).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(images.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_batches_an_epoch_count_devices_and_accumulation(tmp_path):
    data = ImageDataModule(SIZE, [0] * 3, [1] * 3, 64, train=square_table(tmp_path, 4), epoch_size=72_000, divisor=4)
    assert data.batches_per_epoch(4) == 280  # 281 micro-batches a GPU, of which MAE leaves one out
    with pytest.raises(ConfigError, match=r"recipe\.batch_size"):
        data.batches_per_epoch(1000)


def test_the_evaluation_crop_is_maes():
    image = np.zeros((100, 200, 3), dtype=np.uint8)
    image[:, 99:101] = 255
    out = EvalTransform(56)(image)  # shorter side to 64, centre 56
    assert out.shape == (3, 56, 56)
    columns = out[0].float().mean(0)
    assert columns.argmax() in (27, 28)
    same = np.random.default_rng(0).integers(0, 255, (56, 56, 3), dtype=np.uint8)
    np.testing.assert_array_equal(EvalTransform(56)(same).permute(1, 2, 0).numpy(), same)
    assert EvalTransform(300)(np.zeros((300, 300, 3), np.uint8)).shape == (3, 300, 300)


def test_batch_augmentation_keeps_range_and_can_be_the_identity_or_a_flip():
    images = torch.rand(6, 3, 16, 16)
    torch.testing.assert_close(BatchAugment(1.0, 0.0, 0.0).per_batch(images), images, rtol=0, atol=1e-5)
    torch.testing.assert_close(BatchAugment(1.0, 1.0, 0.0).per_batch(images), images.flip(3), rtol=0, atol=1e-5)
    varied = BatchAugment().per_batch(images)
    assert varied.min() >= 0
    assert varied.max() <= 1
    assert not torch.allclose(varied, images)


def test_augmentation_belongs_to_the_draw_not_to_worker_or_batch(tmp_path):
    """Without and with workers, in batches of 2 and 4: same epoch, same look; another epoch, another look."""
    table = square_table(tmp_path, 8)
    seen = []
    for workers, size in ((0, 2), (2, 4), (0, 2)):
        data = ImageDataModule(
            SIZE, [0.5] * 3, [0.5] * 3, size, train=table, augment=TimmAugment(), seed=3, workers=workers
        )
        loader = data.train_dataloader()
        if len(seen) == 2:
            loader.sampler.set_epoch(1)
        batches = list(loader)
        rows = torch.cat([rows for _, _, rows in batches])
        seen.append(torch.cat([images for images, _, _ in batches])[rows.argsort()])
    torch.testing.assert_close(seen[0], seen[1], rtol=0, atol=0)
    assert not torch.equal(seen[0], seen[2])


def test_timm_augmentation_is_normalised_and_sized():
    from PIL import Image

    transform = TimmAugment(erasing=0.0).per_image(32, [0.5] * 3, [0.5] * 3)
    out = transform(Image.new("RGB", (80, 60), (255, 255, 255)))
    assert out.shape == (3, 32, 32)
    assert out.max() <= 1.0 + 1e-6
    torch.testing.assert_close(normalise(torch.ones(1, 3, 2, 2), [0.5] * 3, [0.5] * 3), torch.ones(1, 3, 2, 2))
