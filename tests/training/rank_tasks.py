"""What every rank of a test does; apart from the tests, so that a started process imports little."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aaca.models.timm_model import TimmModel
from aaca.repair.base import start_classifier
from aaca.runtime.ranks import current
from aaca.training.extract import extract_features
from aaca.training.fit import FitJob, fit_classifier
from aaca.training.resume import ResumeSpec
from aaca.training.trainer import TrainerSpec
from tests.toys import plain_recipe, square_table, tiny_vit


def fit_and_extract(argument: dict[str, Any]) -> dict[str, Any]:
    """Train, extract, and say what fit.json holds. All images are divided over the ranks."""
    folder, data, world = Path(argument["folder"]), Path(argument["data"]), current().world
    spec = TrainerSpec(accelerator="cpu", devices=world)
    train, audit = square_table(data, 48), square_table(data, 15, "audit", seed=1)
    recipe = plain_recipe(batch_size=8 // world)
    source = tiny_vit()
    if argument.get("noisy"):  # batch norm and chance: what only an exact resume gets right
        source = TimmModel("resnet18", 16, kwargs={"layers": [1, 1, 1, 1], "channels": [4, 4, 8, 8]})
        recipe = replace(recipe, drop_path=0.3, mixup=0.4, smoothing=0.1)
    classifier = start_classifier(source, 2, recipe, 0)
    resume = ResumeSpec(every=argument.get("every", 300.0))
    job = FitJob(train, audit, recipe, spec, rule="best", epoch_size=48, seed=3, label="fit", resume=resume)
    if argument.get("die_at"):
        die_at(argument["die_at"])
    summary = fit_classifier(classifier, job, folder)
    extract_features(classifier, audit, folder / "features", spec, batch_size=4)
    return summary


def die_at(batch: int) -> None:
    """Rank 1 vanishes in the middle of training."""
    from aaca.training.finetune import FineTune

    step, seen = FineTune.training_step, [0]

    def stepping(self: FineTune, *arguments: Any) -> torch.Tensor:
        seen[0] += 1
        if current().rank == 1 and seen[0] == batch:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, *arguments)

    FineTune.training_step = stepping  # type: ignore[method-assign]


def passes(argument: dict[str, Any]) -> None:
    """Features of a table into a folder."""
    table = square_table(Path(argument["data"]), 37)
    classifier = start_classifier(tiny_vit(), 2, plain_recipe(), 0)
    spec = TrainerSpec(accelerator="cpu", devices=current().world)
    if argument.get("die_at"):
        write = np.add.at
        count = [0]

        def counting(*arguments: Any) -> None:
            count[0] += 1
            if current().rank == argument["rank"] and count[0] == argument["die_at"]:
                raise MemoryError("planted")
            write(*arguments)

        np.add.at = counting  # type: ignore[assignment]
    extract_features(classifier, table, Path(argument["folder"]), spec, batch_size=2, every=0)
