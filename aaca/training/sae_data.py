"""`EmbeddingDataModule`: whole batches of embeddings for a fit, which goes on where a checkpoint was made."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from aaca.data.embedding_batches import EmbeddingBatches


@dataclass
class Epochs:
    """Batches `[B, D]` to the end of an epoch, from wherever `seen` says that one is when the first is asked for.

    Not from how often it was begun: Lightning also begins it only to look whether it can.
    """

    batches: EmbeddingBatches
    seen: Callable[[], int]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Tensor]:
        epoch, skip = divmod(self.seen(), len(self.batches))
        yield from self.batches.epoch(epoch, skip)


class EmbeddingDataModule(pl.LightningDataModule):
    """Training batches, and validation batches in order. How many were trained on is part of a checkpoint."""

    def __init__(self, train: EmbeddingBatches, val: EmbeddingBatches | None = None) -> None:
        super().__init__()
        self.train, self.val = train, val
        self.seen = 0  # training batches, over all epochs

    def state_dict(self) -> dict[str, Any]:
        """Where in the data a checkpoint is."""
        return {"seen": self.seen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after the batches that were seen."""
        self.seen = int(state_dict["seen"])

    def train_dataloader(self) -> Epochs:
        """The epochs from here on."""
        return Epochs(self.train, lambda: self.seen)

    def val_dataloader(self) -> Epochs | list[Tensor]:
        """All validation batches."""
        return [] if self.val is None else Epochs(self.val, lambda: 0)

    def on_before_batch_transfer(self, batch: Tensor, dataloader_idx: int) -> Tensor:
        """Count."""
        if self.trainer is not None and self.trainer.training:
            self.seen += 1
        return batch
