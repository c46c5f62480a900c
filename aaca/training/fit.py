"""`fit_classifier`: one training run from start weights to a saved classifier, on any number of devices."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger
from torch import Tensor

from aaca.data.module import ImageDataModule
from aaca.data.table import ImageTable
from aaca.models.classifier import Classifier
from aaca.runtime.files import write_json
from aaca.training.finetune import FineTune
from aaca.training.recipe import Recipe
from aaca.training.trainer import TrainerSpec

WEIGHTS = "model.safetensors"
SelectionRule = Literal["last", "best"]


class KeepBest(Callback):
    """Remembers the weights with the highest validation accuracy (first of equals), restores them at the end."""

    def __init__(self) -> None:
        self.accuracy, self.epoch = -1.0, -1
        self.weights: dict[str, Tensor] = {}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep a copy where this epoch is better than all before."""
        accuracy = float(trainer.callback_metrics["val/accuracy"])
        if accuracy > self.accuracy:
            self.accuracy, self.epoch = accuracy, trainer.current_epoch
            self.weights = {name: value.detach().cpu().clone() for name, value in pl_module.state_dict().items()}

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the best weights back."""
        pl_module.load_state_dict(self.weights)


@dataclass(frozen=True)
class FitJob:
    """Everything one training run needs besides its start weights."""

    train: ImageTable
    audit: ImageTable
    recipe: Recipe
    trainer: TrainerSpec
    rule: SelectionRule  # last epoch, or the best on audit
    epoch_size: int  # images an epoch draws
    seed: int
    label: str
    loggers: Sequence[Logger] = ()


def group_codes(table: ImageTable) -> Tensor:
    """Integer group ids `[N]` of a table; the class where groups are unknown."""
    groups = table.frame["group"].where(table.frame["group"] != "", table.frame["label"].astype(str))
    return torch.from_numpy(pd.factorize(groups, sort=True)[0].astype("int64"))


def fit_classifier(classifier: Classifier, job: FitJob, folder: Path) -> dict[str, Any]:
    """Train `classifier` in place, write its weights and `fit.json` to `folder`, and return what `fit.json` holds.

    Raises `ConfigError` when the images do not fill one batch, `AacaError` on a non-finite loss.
    """
    recipe, spec = job.recipe, job.trainer
    data = ImageDataModule(
        classifier.image_size,
        classifier.mean,
        classifier.std,
        recipe.batch_size,
        train=job.train,
        val=job.audit,
        augment=recipe.augment,
        epoch_size=job.epoch_size,
        divisor=recipe.accumulate if recipe.strict_accumulation else 1,
        seed=job.seed,
        workers=spec.loader_workers(job.train, job.audit),
    )
    batches = data.batches_per_epoch(spec.devices)
    module = FineTune(classifier.train(), recipe, len(job.train.classes), batches, group_codes(job.audit), job.seed)
    best = KeepBest() if job.rule == "best" else None
    loop = spec.make(
        job.label,
        max_epochs=recipe.epochs,
        callbacks=[best] if best else [],
        loggers=job.loggers,
        accumulate_grad_batches=recipe.accumulate,
        gradient_clip_val=recipe.clip_grad,
        check_val_every_n_epoch=1 if best else recipe.epochs,
    )
    loop.fit(module, datamodule=data)
    classifier.save(folder / WEIGHTS)
    summary = {
        "rule": job.rule,
        "train_images": len(job.train),
        "epochs": recipe.epochs,
        "updates": recipe.epochs * math.ceil(batches / recipe.accumulate),
        "devices": spec.devices,
        "metrics": {name: float(value) for name, value in loop.callback_metrics.items()},
    }
    write_json(folder / "fit.json", summary)
    return summary
