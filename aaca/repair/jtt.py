"""`repair=jtt`: train once for a short while, then again with more of what it got wrong (Liu et al. 2021)."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from aaca.data.features import FeatureStore
from aaca.data.table import ImageTable
from aaca.repair.base import RepairContext
from aaca.repair.tune import Tuning
from aaca.runtime.errors import ConfigError
from aaca.runtime.files import read_json, write_json
from aaca.runtime.ranks import current
from aaca.runtime.stages import PROGRESS
from aaca.training.extract import extract_features
from aaca.training.fit import SUMMARY

ERRORS = "errors.json"


class JustTrainTwice(Tuning):
    """Just Train Twice: no group labels, no concept images.

    Args:
        first_epochs: of the first training, whose errors on train count (T).
        times: how often an error is in the second training's set (λ_up).
        epochs, lr, batch_size: of the second training; null: the recipe's.

    """

    asks_for = "nothing more"

    def __init__(
        self,
        first_epochs: int = 1,
        times: int = 20,
        epochs: int | None = None,
        lr: float | None = None,
        batch_size: int | None = None,
    ) -> None:
        super().__init__(epochs, lr, batch_size)
        for name, value in (("first_epochs", first_epochs), ("times", times)):
            if value < 1:
                raise ConfigError(f"repair.{name}: {value}; expected 1 or more")
        self.first_epochs, self.times = first_epochs, times

    def fingerprint(self) -> dict[str, Any]:
        """All arguments."""
        return {"repair": "jtt", "init": "pretrained", **vars(self)}

    def apply(self, context: RepairContext, folder: Path) -> dict[str, Any]:
        """Train, find the errors, train again from the start; `fit.json` says how many errors there were."""
        train, work = context.train, folder / PROGRESS / "first"
        epochs = self.first_epochs
        recipe = replace(context.recipe, epochs=epochs, warmup_epochs=min(context.recipe.warmup_epochs, epochs / 4))
        errors = work / ERRORS
        if not current().share(errors.is_file()):
            if current().rank == 0:
                work.mkdir(parents=True, exist_ok=True)
            current().exchange("the folder is there")
            first = context.start("pretrained")
            spent = context.fit(first, work / "fit", recipe, label="first training")
            extract_features(first, train, work / "train", context.trainer, 4 * recipe.batch_size, label="errors")
            if current().rank == 0:
                wrong = np.flatnonzero(FeatureStore(work / "train").scored().predictions != train.labels)
                write_json(errors, {"rows": wrong.tolist(), "updates": spent["updates"]})
        found = current().share(read_json(errors) if current().rank == 0 else None)
        rows = np.array(found["rows"], dtype=np.int64)
        summary = context.fit(
            context.start("pretrained"),
            folder,
            self.tuned(context.recipe),
            train=repeated(train, rows, self.times - 1),
            objective=f"{vars(self)} {len(rows)} errors",
        )
        if "errors" not in summary:  # else it was finished before
            summary |= {"errors": len(rows), "updates": summary["updates"] + found["updates"]}
        if current().rank == 0:
            write_json(folder / SUMMARY, summary)
        return summary


def repeated(table: ImageTable, rows: np.ndarray, times: int) -> ImageTable:
    """The table with these rows `times` more, under ids of their own."""
    if not len(rows) or not times:
        return table
    copies = [table.take(rows).frame.assign(id=lambda f, n=n: f["id"] + f"#again{n}") for n in range(times)]
    frame = pd.concat([table.frame, *copies], ignore_index=True)
    return ImageTable(frame, table.classes, table.root)
