"""`repair=erm`: train f0 on as long as the other repairs do, with the recipe's loss: their control."""

from pathlib import Path
from typing import Any

from aaca.repair.base import RepairContext
from aaca.repair.tune import Tuning


class TrainOn(Tuning):
    """Empirical risk minimisation from f0.

    Args:
        epochs, lr, batch_size: of this training; null: the recipe's.

    """

    asks_for = "nothing more"

    def __init__(self, epochs: int | None = 8, lr: float | None = 1e-3, batch_size: int | None = None) -> None:
        super().__init__(epochs, lr, batch_size)

    def fingerprint(self) -> dict[str, Any]:
        """All arguments."""
        return {"repair": "erm", "init": "f0", **vars(self)}

    def apply(self, context: RepairContext, folder: Path) -> dict[str, Any]:
        """Train on; see `Repair.apply`."""
        return context.fit(context.start("f0"), folder, self.tuned(context.recipe))
