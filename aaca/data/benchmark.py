"""`Benchmark`: one table with disjoint splits, and `BenchmarkSource`, the role of the `dataset` config group."""

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aaca.data.table import ImageTable
from aaca.runtime.errors import DataError
from aaca.runtime.files import write_json

SPLITS = ("train", "pool", "audit", "test")
"""Every benchmark has these; `test_seen` (new compositions of train sources) is optional."""


@dataclass(frozen=True)
class Benchmark:
    """A dataset with its four-split contract.

    `train` carries the data bug, `pool` is the labelled reserve that selectors choose from, `audit` is where failures
    are looked for, `test` is read by no method, and no `source` of it occurs in another split.
    """

    name: str
    table: ImageTable
    description: str = ""
    headline_slice: str = "all"  # the slice of `test` whose accuracy is the headline
    confounders: list[dict[str, Any]] = field(default_factory=list)  # planted truth: {class, kind, value, p}
    core: dict[str, list[str]] = field(default_factory=dict)  # planted truth: class → what truly belongs to it
    refused: list[dict[str, str]] = field(default_factory=list)  # files left out: {path, reason}

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""
        return self.table.classes

    def split(self, name: str) -> ImageTable:
        """The rows of one split."""
        return self.table.split(name)

    def check(self) -> "Benchmark":
        """Return self if the four-split contract holds, else raise `DataError` naming the first breach."""
        frame = self.table.frame
        if len(self.classes) < 2:
            raise DataError(f"dataset {self.name}: {len(self.classes)} class; a classifier needs at least 2")
        for split in SPLITS:
            present = set(frame.loc[frame["split"] == split, "label"])
            missing = [name for label, name in enumerate(self.classes) if label not in present]
            if missing and (split != "pool" or len(missing) == len(self.classes)):
                raise DataError(f"dataset {self.name}: split {split!r} has no image of class {missing[0]!r}")
        twice = frame[frame.duplicated(["path", "row"], keep=False)]
        if len(twice):
            splits = ", ".join(sorted(twice["split"].unique()))
            raise DataError(
                f"dataset {self.name}: {twice['path'].iloc[0]} is in the table {len(twice)} times (splits: {splits}); "
                "splits must be disjoint"
            )
        known = frame[frame["source"] != ""]
        test_sources = set(known.loc[known["split"] == "test", "source"])
        leaked = known[(known["split"] != "test") & known["source"].isin(test_sources)]
        if len(leaked):
            row = leaked.iloc[0]
            raise DataError(
                f"dataset {self.name}: source {row['source']!r} of split 'test' also occurs in {row['split']!r} "
                f"({len(leaked)} images); no source of test may occur elsewhere"
            )
        return self

    def save(self, folder: Path) -> None:
        """Write `table.parquet` and `benchmark.json` into `folder`; paths become absolute if they start elsewhere."""
        table = self.table if self.table.root.absolute() == folder.absolute() else self.table.absolute()
        table.save(folder / "table.parquet")
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "table"}
        write_json(folder / "benchmark.json", {**fields, "classes": list(self.classes)})

    @classmethod
    def load(cls, folder: Path) -> "Benchmark":
        """Read what `save` wrote; relative image paths start at `folder`."""
        fields = json.loads((folder / "benchmark.json").read_text(encoding="utf-8"))
        table = ImageTable.load(folder / "table.parquet", fields.pop("classes"))
        return cls(table=table, **fields)


class BenchmarkSource(ABC):
    """Something that can lay out a benchmark in a folder. One subclass a dataset; its arguments are its config."""

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """Everything that influences what `build` writes, cheap to compute: arguments, versions, file listings."""

    def at_most(self, split: str) -> int | None:
        """Images a class that `split` will hold at most, where the arguments alone tell; None where they do not."""
        return None

    def class_names(self) -> tuple[str, ...] | None:
        """The classes in label order, where they are known without laying anything out."""
        return None

    def truth(self) -> frozenset[str]:
        """What the dataset may say beyond labels: "graph", "masks" (of audit), "masks of train", "core" of classes."""
        return frozenset()

    @abstractmethod
    def build(self, folder: Path) -> Benchmark:
        """Lay the images' table (and, where images are made, the images) into `folder`; return the benchmark."""
