"""`Extract`: one forward pass over a table into a feature store; the loop behind predictions and selection."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from aaca.data.features import FeatureStore
from aaca.data.module import Batch, ImageDataModule
from aaca.data.sampler import ShardSampler
from aaca.data.table import ImageTable
from aaca.models.classifier import Classifier
from aaca.runtime.errors import ConfigError, DataError
from aaca.runtime.files import read_json, remove_tree, write_json
from aaca.runtime.ranks import current
from aaca.runtime.seeding import purpose_seed
from aaca.runtime.stages import PROGRESS, note_spent, spent
from aaca.training.trainer import TrainerSpec

log = logging.getLogger(__name__)


class Describe(Protocol):
    """What is kept of each image in the place of its embedding: `dim` numbers of type `dtype`, beside logits."""

    dim: int
    dtype: str

    def __call__(self, images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(`[B, dim]`, logits `[B, C]`) of normalised images `[B, 3, S, S]` at these rows `[B]` of the table."""


class Extract(pl.LightningModule):
    """Writes embeddings and logits of every batch to the feature store in `folder`, each row by its position.

    With `passes` = T > 1 also the logits of T stochastic passes (MC dropout: everything in evaluation mode but dropout
    and drop-path; Gal et al. 2017), drawn anew a batch.
    """

    def __init__(
        self,
        classifier: Classifier,
        folder: Path,
        passes: int = 1,
        seed: int = 0,
        progress: "Progress | None" = None,
        describe: Describe | None = None,
    ) -> None:
        super().__init__()
        self.progress = progress
        self.classifier = classifier
        self.describe = describe
        self.folder = folder
        self.passes = passes
        self.seed = seed
        self.store: FeatureStore | None = None

    def on_predict_start(self) -> None:
        """Open the store in this process."""
        self.store = FeatureStore(self.folder, mode="r+")

    def predict_step(self, batch: Batch, batch_idx: int) -> None:
        """Write one batch."""
        images, _, rows = batch
        embeddings, logits = self.describe(images, rows) if self.describe else self.classifier.embed(images)
        passes = self._stochastic(images, int(rows[0])) if self.passes > 1 else None
        assert self.store is not None
        self.store.write(
            rows.cpu().numpy(),
            embeddings.float().cpu().numpy(),
            logits.float().cpu().numpy(),
            None if passes is None else passes.float().cpu().numpy(),
        )
        if self.progress is not None:
            self.progress.advance(self.store)

    def on_predict_end(self) -> None:
        """Bring the store to the disk before other ranks look at it."""
        assert self.store is not None
        self.store.flush()

    def _stochastic(self, images: Tensor, row: int) -> Tensor:
        with torch.random.fork_rng(devices=[]), dropping(self.classifier):
            torch.manual_seed(purpose_seed(self.seed, row))
            return torch.stack([self.classifier(images) for _ in range(self.passes)], dim=1)


@dataclass
class Progress:
    """How many batches of its share this rank has written, noted in a file now and then, after they are on the disk."""

    file: Path
    of: list[int]  # rank, ranks, batch size: a note about another division of the rows is worth nothing
    every: float  # seconds between two notes
    batches: int = 0
    began: float = field(default_factory=time.monotonic)
    noted: float = field(default_factory=time.monotonic)
    earlier: float = 0.0  # seconds of interrupted passes

    @classmethod
    def left(cls, folder: Path, batch_size: int, every: float) -> "Progress":
        """What an interrupted pass into `folder` left; nothing on any rank where one rank's note does not fit."""
        ranks = current()
        new = cls(folder / PROGRESS / f"rank-{ranks.rank}.json", [ranks.rank, ranks.world, batch_size], every)
        known = new.file.is_file() and (folder / "store.json").is_file()
        note: dict[str, Any] = read_json(new.file) if known else {"of": None, "batches": 0}
        notes = ranks.exchange(note["of"] == new.of)
        return replace(new, batches=int(note["batches"]), earlier=spent(folder)) if all(notes) else new

    def advance(self, store: FeatureStore) -> None:
        """One more batch is written."""
        self.batches += 1
        if time.monotonic() - self.noted >= self.every:
            store.flush()
            write_json(self.file, {"batches": self.batches, "of": self.of})
            self.noted = time.monotonic()
            if self.of[0] == 0:
                note_spent(self.file.parent.parent, self.earlier + self.noted - self.began)


@contextmanager
def dropping(model: nn.Module) -> Iterator[None]:
    """The model as it trains (dropout, drop-path), with normalisation as it evaluates; evaluation mode afterwards."""
    model.train()
    for layer in model.modules():
        if isinstance(layer, _NormBase):
            layer.eval()
    try:
        yield
    finally:
        model.eval()


@torch.no_grad()
def check_stochastic(classifier: Classifier) -> None:
    """Raise `ConfigError` if two training-mode passes over the same noise agree: there is nothing to sample from."""
    size = classifier.image_size
    with torch.random.fork_rng(devices=[]), dropping(classifier):
        noise = torch.randn(16, 3, size, size)
        if torch.equal(classifier(noise), classifier(noise)):
            raise ConfigError(
                "selector.mc_samples: stochastic passes need dropout or drop-path, and this model has none; "
                "set recipe.drop_path above 0 (or model.kwargs.drop_rate)"
            )


def extract_features(
    classifier: Classifier,
    table: ImageTable,
    folder: Path,
    trainer: TrainerSpec,
    batch_size: int,
    passes: int = 1,
    seed: int = 0,
    label: str = "features",
    every: float = 300.0,
    describe: Describe | None = None,
) -> FeatureStore:
    """Embeddings `[N, D]` and logits `[N, C]` of `table`, every row exactly once, in a feature store at `folder`.

    `describe` puts something else of each image in the embedding's place: an attribution map, for one.
    All ranks call it. About every `every` seconds each notes how far it is; an interrupted call is gone on from there,
    batch by batch as it would have been.
    """
    ranks = current()
    head_input = classifier.backbone.head_hidden_size if hasattr(classifier.backbone, "head_hidden_size") else None
    dim = describe.dim if describe else head_input or classifier.backbone.num_features
    progress = Progress.left(folder, batch_size, every)
    if not progress.batches and ranks.rank == 0:
        remove_tree(folder / PROGRESS)  # notes that do not fit together
        kind = describe.dtype if describe else "float32"
        FeatureStore.create(folder, table, dim, len(table.classes), passes, kind)
    ranks.exchange("laid out")
    rest = ShardSampler(len(table), ranks.rank, ranks.world, skip=progress.batches * batch_size).rows
    FeatureStore(folder, mode="r+").forget(rest)
    if progress.batches:
        log.info("  %s  goes on after batch %d", label, progress.batches)
    data = ImageDataModule(
        classifier.image_size,
        classifier.mean,
        classifier.std,
        batch_size,
        predict=table,
        skip=progress.batches,
        workers=trainer.loader_workers(table),
    )
    loop = trainer.make(label)
    extract = Extract(classifier.eval(), folder, passes, seed, progress, describe)
    loop.predict(extract, datamodule=data, return_predictions=False)
    ranks.exchange("written")
    _check(folder)
    return FeatureStore(folder)


def _check(folder: Path) -> None:
    # rank 0 reads the whole store once; what it finds is every rank's error
    ranks, problem = current(), None
    if ranks.rank == 0:
        try:
            FeatureStore(folder).check()
        except DataError as error:
            problem = str(error)
    problem = ranks.share(problem)
    if problem:
        raise DataError(problem)
