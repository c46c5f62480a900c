"""`DebugSet`: the images that a method adds to the training set, with where each came from."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from aaca.data.table import ImageTable
from aaca.runtime.errors import DataError
from aaca.runtime.files import write_json

TABLE, ABOUT = "debugset.parquet", "debugset.json"


@dataclass(frozen=True)
class DebugSet:
    """Up to K images a class, class by class, best first.

    Beside the columns of an `ImageTable` with absolute paths, `table` has `origin_id` (id in the pool), `rank` (from 1,
    the best of its class), `score` (of the selector; NaN where it gave none) and `provenance` (real | synthetic).
    `shortfalls` names the classes that had fewer than K images before any filling, and how many fewer. Of a generated
    one, `funnel`: class → how many images were asked for, redrawn, dropped for each reason, passed, taken; `quality`:
    class → score → value of the taken images.
    """

    table: ImageTable
    shortfalls: dict[str, int] = field(default_factory=dict)
    funnel: dict[str, dict[str, int]] = field(default_factory=dict)
    quality: dict[str, dict[str, float]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.table)

    def save(self, folder: Path) -> None:
        """Write `debugset.parquet` and `debugset.json` into `folder`."""
        self.table.save(folder / TABLE)
        about = {"classes": list(self.table.classes), "shortfalls": self.shortfalls, "funnel": self.funnel}
        about["quality"] = self.quality
        write_json(folder / ABOUT, about)

    @classmethod
    def load(cls, folder: Path) -> "DebugSet":
        """Read what `save` wrote. Raises `DataError` if there is none."""
        for name in (TABLE, ABOUT):
            if not (folder / name).is_file():
                raise DataError(f"{folder}: not a debug set ({name} is missing)")
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        return cls(
            ImageTable.load(folder / TABLE, about["classes"]), about["shortfalls"], about["funnel"], about["quality"]
        )
