"""`fit_classifier`: one training run from start weights to a saved classifier, on any number of devices."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from pytorch_lightning.loggers import Logger
from torch import Tensor

from aaca.data.module import ImageDataModule
from aaca.data.table import ImageTable
from aaca.models.classifier import Classifier, parameters_sha256
from aaca.runtime.errors import AacaError
from aaca.runtime.files import digest, read_json, write_json
from aaca.runtime.ranks import current
from aaca.runtime.stages import PROGRESS
from aaca.training.checkpoints import VerifiedCheckpoints
from aaca.training.curves import Curves
from aaca.training.finetune import FineTune
from aaca.training.keep_best import KeepBest
from aaca.training.recipe import Recipe
from aaca.training.resume import ResumeSpec, SaveProgress, left_by
from aaca.training.trainer import TrainerSpec

log = logging.getLogger(__name__)

WEIGHTS = "model.safetensors"
SUMMARY = "fit.json"
SelectionRule = Literal["last", "best"]


ModuleOf = Callable[[Classifier, Recipe, int, int, Tensor], FineTune]
"""(classifier, recipe, classes, batches an epoch, groups of the validation rows) → what is trained."""


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
    resume: ResumeSpec = field(default_factory=ResumeSpec)
    module: ModuleOf = FineTune
    objective: str = "loss of the recipe"  # of `module`, with all that influences it

    def fingerprint(self) -> dict[str, Any]:
        """What a checkpoint must share with the fit that goes on from it."""
        return {
            "images": digest([self.train.ids.tolist(), self.train.labels.tolist()])[:16],
            "audit": digest([self.audit.ids.tolist(), self.audit.labels.tolist()])[:16],
            "recipe": digest(self.recipe.fingerprint())[:16],
            "rule": self.rule,
            "objective": self.objective,
            "epoch_size": self.epoch_size,
            "seed": self.seed,
            "world": self.trainer.world,
            "precision": self.trainer.precision,
            "device": self.trainer.device_kind,
        }


def group_codes(table: ImageTable) -> Tensor:
    """Integer group ids `[N]` of a table; the class where groups are unknown."""
    groups = table.frame["group"].where(table.frame["group"] != "", table.frame["label"].astype(str))
    return torch.from_numpy(pd.factorize(groups, sort=True)[0].astype("int64"))


def fit_classifier(classifier: Classifier, job: FitJob, folder: Path) -> dict[str, Any]:
    """Train `classifier` in place, write its weights and `fit.json` to `folder`, and return what `fit.json` holds.

    All ranks call it. It goes on from what an interrupted call left in `folder` (checkpoints below `PROGRESS`): the
    result is the same, on the CPU to the bit. Raises `ConfigError` when the images do not fill one batch, `AacaError`
    on a non-finite loss.
    """
    recipe, spec, ranks = job.recipe, job.trainer, current()
    done = ranks.share((folder / SUMMARY).is_file())
    if done:
        classifier.load(folder / WEIGHTS)
        return dict(read_json(folder / SUMMARY))
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
    batches = data.batches_per_epoch(spec.world)
    updates = math.ceil(batches / recipe.accumulate)
    module = job.module(classifier.train(), recipe, len(job.train.classes), batches, group_codes(job.audit))
    best = KeepBest("val/accuracy") if job.rule == "best" else None
    progress = SaveProgress(folder / PROGRESS, job.resume.every, job.label)
    loop = spec.make(
        job.label,
        max_epochs=recipe.epochs,
        callbacks=[*([best] if best else []), Curves(folder / "log" / "metrics.csv"), progress],
        loggers=job.loggers,
        plugins=[VerifiedCheckpoints(job.fingerprint())],
        accumulate_grad_batches=recipe.accumulate,
        gradient_clip_val=recipe.clip_grad,
        check_val_every_n_epoch=1 if best else recipe.epochs,
    )
    left = left_by(folder / PROGRESS, job.fingerprint(), job.resume.force)
    if left is not None:
        log.info("  %s  goes on after update %d of %d", job.label, int(left.stem), recipe.epochs * updates)
    loop.fit(module, datamodule=data, ckpt_path=left, weights_only=True)
    parameters = ranks.exchange(parameters_sha256(classifier))
    if len(set(parameters)) > 1:
        raise AacaError(f"{job.label}: the ranks ended with different parameters ({', '.join(parameters)})")
    summary = {
        "rule": job.rule,
        "train_images": len(job.train),
        "epochs": recipe.epochs,
        "updates": recipe.epochs * updates,
        "devices": spec.world,
        "parameters_sha256": parameters,  # of each rank: equal, or nothing would have been saved
        "metrics": {name: float(value) for name, value in loop.callback_metrics.items()},
    }
    if ranks.rank == 0:
        classifier.save(folder / WEIGHTS)
        write_json(folder / SUMMARY, summary)
    return dict(ranks.share(summary))
