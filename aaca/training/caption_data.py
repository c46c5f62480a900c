"""Graphs and captions for a captioner's loops: what a set of them offers, its batches, shared over ranks."""

from typing import Any, Protocol

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Sampler

from aaca.data.sampler import EpochSampler, ShardSampler
from aaca.data.scenegraph.batch import GraphBatch, GraphData, GraphItem, collate
from aaca.data.scenegraph.graph import SceneGraph
from aaca.data.scenegraph.vocabulary import Words
from aaca.runtime.seeding import purpose_seed


class CaptionSource(Protocol):
    """What a captioner is trained on: a `GraphSet`, `PackedGraphs`, or anything like them."""

    @property
    def words(self) -> Words:
        """The vocabulary that its captions are encoded with."""

    def __len__(self) -> int:
        """Number of samples."""

    def item(self, i: int) -> GraphItem:
        """Sample `i` as a captioner takes it."""

    def name(self, i: int) -> str:
        """Its name, unlike all others."""

    def phrase(self, i: int) -> str:
        """Its caption."""

    def graph(self, i: int) -> SceneGraph:
        """Its whole scene graph."""

    def references(self) -> dict[str, list[str]]:
        """The reference captions of each sample, by name."""


class CaptionData(pl.LightningDataModule):
    """Batches of graphs, `batch_size` on each device, shared out over the ranks.

    Training draws every sample once an epoch (where ranks do not divide them, an epoch begins with what its forerunner
    took ahead), in orders of `seed`; its last batch is kept, however small. How many batches were trained on is part of
    a checkpoint, and dropout in a batch is drawn from a stream of this seed, rank and batch: a resumed fit goes on to
    the bit.
    """

    def __init__(
        self,
        batch_size: int,
        train: CaptionSource | None = None,
        val: CaptionSource | None = None,
        predict: CaptionSource | None = None,
        seed: int = 0,
        workers: int = 0,
    ) -> None:
        super().__init__()
        self.batch_size, self.seed, self.workers = batch_size, seed, workers
        self.train, self.val, self.predict = train, val, predict
        self.allow_zero_length_dataloader_with_multiple_devices = True  # a rank may have no share of a small set
        self.batches = 0  # training batches that this rank has seen, over all epochs

    def state_dict(self) -> dict[str, Any]:
        """Where in the data a checkpoint is."""
        return {"batches": self.batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after the batches that were seen."""
        self.batches = int(state_dict["batches"])

    def batches_per_epoch(self, world: int) -> int:
        """Training batches an epoch on each of `world` devices."""
        assert self.train is not None
        return -(-_share(self.train, world) // self.batch_size)

    def train_dataloader(self) -> DataLoader:
        """Shuffled batches of this rank's share."""
        assert self.train is not None and self.trainer is not None
        rank, world = self.trainer.global_rank, self.trainer.world_size
        share = _share(self.train, world)
        sampler = EpochSampler(len(self.train), share, share * world, self.seed, rank, world)
        epoch, batch = divmod(self.batches, self.batches_per_epoch(world))
        sampler.resume(epoch, batch * self.batch_size)
        return self._loader(self.train, sampler)

    def val_dataloader(self) -> DataLoader:
        """This rank's share of the validation set, padded to equal lengths (each row counts once)."""
        return self._shard(self.val, pad=True)

    def predict_dataloader(self) -> DataLoader:
        """This rank's share of the set to caption; every row once over all ranks."""
        return self._shard(self.predict, pad=False)

    def on_before_batch_transfer(self, batch: GraphBatch, dataloader_idx: int) -> GraphBatch:
        """Start the random stream of this training batch."""
        if self.trainer is not None and self.trainer.training:
            torch.manual_seed(purpose_seed(self.seed, "batch", self.trainer.global_rank, self.batches))
            self.batches += 1
        return batch

    def _shard(self, source: CaptionSource | None, pad: bool) -> DataLoader:
        assert source is not None and self.trainer is not None
        return self._loader(source, ShardSampler(len(source), self.trainer.global_rank, self.trainer.world_size, pad))

    def _loader(self, source: CaptionSource, sampler: Sampler[int]) -> DataLoader:
        return DataLoader(
            GraphData(source),
            batch_size=self.batch_size,  # by name: Lightning builds a loader anew to predict
            sampler=sampler,
            collate_fn=collate,
            num_workers=self.workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.workers > 0,
        )


def _share(source: CaptionSource, world: int) -> int:
    return -(-len(source) // world)
