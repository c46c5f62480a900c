"""`Extract`: one forward pass over a table into a feature store; the loop behind predictions and selection."""

from pathlib import Path

import pytorch_lightning as pl
import torch
from timm.layers import DropPath
from torch import Tensor, nn

from aaca.data.features import FeatureStore
from aaca.data.module import Batch, ImageDataModule
from aaca.data.table import ImageTable
from aaca.models.classifier import Classifier
from aaca.runtime.errors import ConfigError
from aaca.training.trainer import TrainerSpec

STOCHASTIC = (nn.Dropout, nn.Dropout2d, DropPath)


class Extract(pl.LightningModule):
    """Writes embeddings and logits of every batch to the feature store in `folder`, each row by its position.

    With `passes` = T > 1 also the logits of T stochastic passes (MC dropout: everything in evaluation mode but dropout
    and drop-path; Gal et al. 2017), drawn anew a batch.
    """

    def __init__(self, classifier: Classifier, folder: Path, passes: int = 1, seed: int = 0) -> None:
        super().__init__()
        self.classifier = classifier
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
        embeddings, logits = self.classifier.embed(images)
        passes = self._stochastic(images, int(rows[0])) if self.passes > 1 else None
        assert self.store is not None
        self.store.write(
            rows.cpu().numpy(),
            embeddings.float().cpu().numpy(),
            logits.float().cpu().numpy(),
            None if passes is None else passes.float().cpu().numpy(),
        )

    def _stochastic(self, images: Tensor, row: int) -> Tensor:
        torch.manual_seed(self.seed * 1_000_003 + row)
        layers = stochastic_layers(self.classifier)
        for layer in layers:
            layer.train()
        logits = torch.stack([self.classifier(images) for _ in range(self.passes)], dim=1)
        for layer in layers:
            layer.eval()
        return logits


def stochastic_layers(model: nn.Module) -> list[nn.Module]:
    """Layers that drop something at random when in training mode."""
    rate = {"p": 0.0, "drop_prob": 0.0}
    return [m for m in model.modules() if isinstance(m, STOCHASTIC) and any(getattr(m, name, 0.0) > 0 for name in rate)]


def extract_features(
    classifier: Classifier,
    table: ImageTable,
    folder: Path,
    trainer: TrainerSpec,
    batch_size: int,
    passes: int = 1,
    seed: int = 0,
    label: str = "features",
) -> FeatureStore:
    """Embeddings `[N, D]` and logits `[N, C]` of `table`, every row exactly once, in a feature store at `folder`.

    Raises `ConfigError` when stochastic passes are asked of a model that has nothing stochastic.
    """
    if passes > 1 and not stochastic_layers(classifier):
        raise ConfigError("selector.mc_samples: the model has no dropout or drop-path; set recipe.drop_path above 0")
    head_input = classifier.backbone.head_hidden_size if hasattr(classifier.backbone, "head_hidden_size") else None
    dim = head_input or classifier.backbone.num_features
    FeatureStore.create(folder, table, dim, len(table.classes), passes)
    data = ImageDataModule(
        classifier.image_size,
        classifier.mean,
        classifier.std,
        batch_size,
        predict=table,
        workers=trainer.loader_workers(table),
    )
    loop = trainer.make(label)
    loop.predict(Extract(classifier.eval(), folder, passes, seed), datamodule=data, return_predictions=False)
    return FeatureStore(folder).check()
