"""Augment and retrain: fit on train ∪ debug set with the recipe that made f0 (steps (e), (f) of AACA's figure)."""

from pathlib import Path
from typing import Any, Literal

from aaca.repair.base import Repair, RepairContext, start_classifier
from aaca.runtime.seeding import purpose_seed
from aaca.training.fit import FitJob, fit_classifier


class AugmentAndRetrain(Repair):
    """Retrains on the union of the training images and the debug set.

    `init` is the start: `pretrained` = the very start weights of f0 (the released AACA code), `f0` = the failing model.
    Without a debug set it is the control that only trains as long as the others do.
    """

    def __init__(self, init: Literal["pretrained", "f0"] = "pretrained") -> None:
        self.init = init

    def fingerprint(self) -> dict[str, Any]:
        """The start."""
        return {"repair": "augment", "init": self.init}

    def apply(self, context: RepairContext, folder: Path) -> dict[str, Any]:
        """Fit and save; see `Repair.apply`."""
        train = context.benchmark.split("train")
        if context.debug is not None:
            train = train.concat(context.debug)
        classifier = start_classifier(context.model, len(train.classes), context.recipe, context.seed)
        if self.init == "f0":
            classifier.load(context.f0_weights)
        job = FitJob(
            train=train,
            audit=context.benchmark.split("audit"),
            recipe=context.recipe,
            trainer=context.trainer,
            rule=context.rule,
            epoch_size=context.epoch_size,
            seed=purpose_seed(context.seed, "order"),
            label="refit",
            loggers=context.loggers,
            resume=context.resume,
        )
        return fit_classifier(classifier, job, folder)
