"""`ImageDataModule`: tables to batches. Batches are `(images, labels, rows)`; rows are positions in the table."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from aaca.data.sampler import EpochSampler, ShardSampler
from aaca.data.table import ImageReader, ImageTable
from aaca.data.transforms import Augment, EvalTransform, ImageTransform, normalise
from aaca.runtime.errors import ConfigError
from aaca.runtime.seeding import purpose_seed

Batch = tuple[Tensor, Tensor, Tensor]


class TableDataset(Dataset[Batch]):
    """A table's images, fetched a batch at a time: `(images [B, 3, S, S], labels [B], rows [B])`.

    Images are uint8 as stored, or normalised float where `transform` (augmentation of one PIL image) is given.
    """

    def __init__(self, table: ImageTable, size: int, transform: ImageTransform | None = None, seed: int = 0) -> None:
        self.reader = ImageReader(table)
        self.labels = torch.from_numpy(table.labels)
        self.transform = transform
        self.seed = seed
        self.size = size
        self.evaluate = EvalTransform(size)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, draw: int) -> Batch:
        return self.__getitems__([draw])

    def __getitems__(self, draws: Sequence[int]) -> Batch:
        index = torch.as_tensor(draws) % max(len(self.labels), 1)
        images = self.reader.read(index.numpy())
        if self.transform is not None:
            pixels = torch.stack([self._augmented(image, draw) for image, draw in zip(images, draws, strict=True)])
        elif all(image.shape[:2] == (self.size, self.size) for image in images):
            pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
        else:
            pixels = torch.stack([self.evaluate(image) for image in images])
        return pixels, self.labels[index], index

    def _augmented(self, image: np.ndarray, draw: int) -> Tensor:
        """One augmented image, the same wherever and whenever this draw is made; global generators stay untouched."""
        assert self.transform is not None
        with isolate_rng(include_cuda=False):
            seed = purpose_seed(self.seed, "augment", draw)
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
            return self.transform(Image.fromarray(image))


class ArrayDataset(Dataset[Batch]):
    """Float values `[N, …]` in place of a table's images, with its labels: `(values, labels, rows)` a batch."""

    def __init__(self, values: np.ndarray, labels: np.ndarray) -> None:
        self.values, self.labels = values, torch.from_numpy(labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, draw: int) -> Batch:
        return self.__getitems__([draw])

    def __getitems__(self, draws: Sequence[int]) -> Batch:
        index = torch.as_tensor(draws) % len(self.labels)
        return torch.from_numpy(self.values[index.numpy()]), self.labels[index], index


class ImageDataModule(pl.LightningDataModule):
    """Batches for fit (`train`, `val`) and predict (`predict`), the same on any number of devices.

    `batch_size` is per device. `epoch_size` is how many images an epoch draws (default: all of `train`); a larger one
    goes on with the next shuffle, so that runs with and without a debug set can take the same number of updates.
    How many batches were trained on is part of a checkpoint: a resumed fit goes on with the very next one. Whatever is
    random in a training batch (augmentation, mixing, dropping) is drawn from a stream of this seed, rank and batch.
    `values` `[N, …]` (float) are shown in training in the place of the images of `train`, as they are.
    Training batches are whole: with `accumulate` micro-batches an update, a rest below `divisor` batches is left out.
    """

    def __init__(
        self,
        image_size: int,
        mean: list[float],
        std: list[float],
        batch_size: int,
        train: ImageTable | None = None,
        val: ImageTable | None = None,
        predict: ImageTable | None = None,
        augment: Augment | None = None,
        epoch_size: int | None = None,
        divisor: int = 1,
        seed: int = 0,
        workers: int = 0,
        skip: int = 0,
        values: np.ndarray | None = None,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.mean = mean
        self.std = std
        self.batch_size = batch_size
        self.train, self.val, self.predict = train, val, predict
        self.augment = augment
        self.epoch_size = epoch_size or (len(train) if train is not None else 0)
        self.divisor = divisor
        self.seed = seed
        self.workers = workers
        self.skip = skip
        self.values = values
        self.allow_zero_length_dataloader_with_multiple_devices = True  # a rank may have finished its share before
        self.batches = 0  # training batches that this rank has seen, over all epochs

    def state_dict(self) -> dict[str, Any]:
        """Where in the data a checkpoint is."""
        return {"batches": self.batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after the batches that were seen."""
        self.batches = int(state_dict["batches"])

    def batches_per_epoch(self, world: int) -> int:
        """Training batches an epoch on each of `world` devices. Raises `ConfigError` when there is not even one."""
        batches = self.epoch_size // world // self.batch_size
        batches -= batches % self.divisor
        if batches == 0:
            raise ConfigError(
                f"recipe.batch_size: {self.batch_size} × {world} device(s) × {self.divisor} batches an update exceed "
                f"the {self.epoch_size} training images; expected at most {self.epoch_size // world // self.divisor}"
            )
        return batches

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled whole batches of this rank's share."""
        table, augment = self._need(self.train), self._need(self.augment)
        rank, world = self._rank()
        per_epoch = self.batches_per_epoch(world)
        sampler = EpochSampler(len(table), per_epoch * self.batch_size, self.epoch_size, self.seed, rank, world)
        epoch, batch = divmod(self.batches, per_epoch)
        sampler.resume(epoch, batch * self.batch_size)
        if self.values is not None:
            return self._batches(ArrayDataset(self.values, table.labels), sampler)
        transform = augment.per_image(self.image_size, self.mean, self.std)
        return self._loader(table, sampler, transform)

    def val_dataloader(self) -> DataLoader[Batch]:
        """This rank's share of the validation table, padded to equal lengths (metrics drop repeated rows)."""
        rank, world = self._rank()
        return self._loader(self._need(self.val), ShardSampler(len(self._need(self.val)), rank, world, pad=True))

    def predict_dataloader(self) -> DataLoader[Batch]:
        """This rank's share of the prediction table but for its first `skip` batches; every row once over all ranks."""
        rank, world = self._rank()
        table, skip = self._need(self.predict), self.skip * self.batch_size
        return self._loader(table, ShardSampler(len(table), rank, world, pad=False, skip=skip))

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Start the random stream of this training batch."""
        if self.trainer is not None and self.trainer.training:
            seed = purpose_seed(self.seed, "batch", self._rank()[0], self.batches)
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
            self.batches += 1
        return batch

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """On the device: scale uint8 to [0, 1], augment when training, normalise. Float batches are ready already."""
        images, labels, rows = batch
        if images.dtype == torch.uint8:
            images = images.float().div_(255)
            if self.trainer is not None and self.trainer.training and self.augment is not None:
                images = self.augment.per_batch(images)
            images = normalise(images, self.mean, self.std)
        return images, labels, rows

    def _loader(self, table: ImageTable, sampler: Any, transform: ImageTransform | None = None) -> DataLoader[Batch]:
        return self._batches(TableDataset(table, self.image_size, transform, self.seed), sampler)

    def _batches(self, dataset: Dataset[Batch], sampler: Any) -> DataLoader[Batch]:
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=self.workers,
            collate_fn=_as_is,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.workers > 0,
        )

    def _rank(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    def _need(self, part: Any) -> Any:
        if part is None:
            raise ValueError("this data module was built without the table or augmentation that is asked for")
        return part


def _as_is(batch: Any) -> Any:
    return batch
