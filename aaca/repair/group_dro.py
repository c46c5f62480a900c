"""`repair=group_dro`: train with the worst group's loss in front; asks for the groups of training images."""

from functools import partial
from pathlib import Path
from typing import Any

from aaca.data.benchmark import Benchmark
from aaca.data.table import ImageTable
from aaca.repair.base import Init, RepairContext
from aaca.repair.tune import Tuning
from aaca.runtime.errors import ConfigError, DataError
from aaca.training.fit import group_codes
from aaca.training.group_dro import GroupDro


def check_groups(table: ImageTable, split: str, repair: str) -> None:
    """Raise `DataError` where a class has fewer than two groups: nothing could be balanced."""
    frame = table.frame
    known = frame[frame["group"] != ""]
    if known.groupby("label")["group"].nunique().max() > 1:
        return
    examples = ", ".join(sorted(set(known["group"]))[:3]) or "unknown"
    raise DataError(
        f"repair: {repair} needs several groups within a class, and those of {split} are {examples}; expected a "
        f"dataset whose {split} has more, or another repair"
    )


class GroupDroRepair(Tuning):
    """Group DRO (Sagawa et al. 2020).

    Args:
        eta: step of the group weights.
        init: pretrained | f0.
        epochs, lr, batch_size: of this training; null: the recipe's.

    """

    asks_for = "groups of train"
    mixes_well = False

    def __init__(
        self,
        eta: float = 0.01,
        init: Init = "pretrained",
        epochs: int | None = None,
        lr: float | None = None,
        batch_size: int | None = None,
    ) -> None:
        super().__init__(epochs, lr, batch_size)
        if eta < 0:
            raise ConfigError(f"repair.eta: {eta}; expected 0 or more")
        self.eta, self.init = eta, init

    def fingerprint(self) -> dict[str, Any]:
        """All arguments."""
        return {"repair": "group_dro", **vars(self)}

    def check_images(self, benchmark: Benchmark) -> None:
        """Raise `DataError` where train has one group a class."""
        check_groups(benchmark.split("train"), "train", "group_dro")

    def apply(self, context: RepairContext, folder: Path) -> dict[str, Any]:
        """Train on the training images (and the debug set) by their groups."""
        module = partial(GroupDro, groups=group_codes(context.train), eta=self.eta)
        recipe = self.tuned(context.recipe)
        return context.fit(context.start(self.init), folder, recipe, module=module, objective=repr(vars(self)))
