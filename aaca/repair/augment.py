"""Augment and retrain: fit on train ∪ debug set with the recipe that made f0 (steps (e), (f) of AACA's figure)."""

from pathlib import Path
from typing import Any

from aaca.repair.base import Init, Repair, RepairContext


class AugmentAndRetrain(Repair):
    """Retrains on the union of the training images and the debug set.

    `init` is the start: `pretrained` = the very start weights of f0 (the released AACA code), `f0` = the failing model.
    Without a debug set it is the control that only trains as long as the others do.
    """

    def __init__(self, init: Init = "pretrained") -> None:
        self.init = init

    def fingerprint(self) -> dict[str, Any]:
        """The start."""
        return {"repair": "augment", "init": self.init}

    def apply(self, context: RepairContext, folder: Path) -> dict[str, Any]:
        """Fit and save; see `Repair.apply`."""
        return context.fit(context.start(self.init), folder)
