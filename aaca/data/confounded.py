"""`ConfoundedFiles`: image files with a class and a confounder value each; what Waterbirds and BFFHQ have in common."""

import os
from abc import abstractmethod
from pathlib import Path
from typing import Any

import pandas as pd

from aaca.data.benchmark import Benchmark, BenchmarkSource
from aaca.data.listing import FACTS, digest_files, is_utf8, printable
from aaca.data.splits import check_per_class, cut_groups, limit_per_class
from aaca.data.table import ImageTable
from aaca.runtime.errors import ConfigError, DataError
from aaca.runtime.files import digest

CUTS = ("train", "val", "test")
"""The splits as published; `val` becomes `pool` and `audit`."""

Rows = tuple[pd.DataFrame, list[dict[str, str]]]
"""Columns path (relative to `root`), id, label, value, split (of `CUTS`), the files' facts; and what was left out."""


class ConfoundedFiles(BenchmarkSource):
    """Two classes and two values of a confounder; class k is *aligned* with value k, as nearly all of train is.

    The published validation images are divided, group by group, into `pool` (`pool_share` of them) and `audit`. `test`
    has the slices aligned and conflicting, the headline is the latter. `per_class` then limits the images a class.
    Sub-classes say what the files are: `_list` and the attributes below it.
    """

    name: str
    kind: str  # what the confounder is
    classes: tuple[str, ...]
    values: tuple[str, ...]

    def __init__(self, root: str, pool_share: float, per_class: dict[str, int | None] | None, seed: int) -> None:
        self.root = Path(os.path.abspath(Path(root).expanduser()))  # noqa: PTH100 (resolve would follow links)
        self.pool_share = pool_share
        self.per_class = check_per_class(per_class)
        self.seed = seed
        self._listed: Rows | None = None
        if not 0 < pool_share < 1:
            raise ConfigError(f"dataset.pool_share: {pool_share}; expected a number between 0 and 1, the rest is audit")

    @abstractmethod
    def _list(self) -> Rows:
        """Look at the folder; no image is opened."""

    @abstractmethod
    def _group(self, label: int, value: int) -> str:
        """The name of the images of a class that show a value."""

    def class_names(self) -> tuple[str, ...]:
        """The two classes, in the order of their numbers in the files."""
        return self.classes

    def at_most(self, split: str) -> int | None:
        """What `per_class` asks for."""
        return self.per_class[split]

    def fingerprint(self) -> dict[str, Any]:
        """Arguments, a hash over path, size and time of every file, and one over what is said of each.

        Raises `DataError` naming what is missing.
        """
        frame, refused = self._listed = self._look()
        return {
            "dataset": self.name,
            "root": printable(str(self.root)),
            "kind": self.kind,
            "classes": self.classes,
            "values": self.values,
            "pool_share": self.pool_share,
            "per_class": self.per_class,
            "seed": self.seed,
            "files": digest_files(frame),
            "said": digest(frame[["id", "label", "value", "split"]].to_numpy().tolist()),
            "refused": digest(refused),
        }

    def build(self, folder: Path) -> Benchmark:
        """The benchmark over the files as `fingerprint` last listed them; writes nothing, paths are absolute."""
        listed, refused = self._listed if self._listed is not None else self._look()
        aligned = listed["label"] == listed["value"]
        frame = listed.assign(
            path=f"{self.root}/" + listed["path"],
            group=[self._group(*pair) for pair in zip(listed["label"], listed["value"], strict=True)],
            slice=aligned.map({True: "aligned", False: "conflicting"}).where(listed["split"] == "test", "all"),
        )
        val = (frame["split"] == "val").to_numpy()
        frame.loc[val, "split"] = cut_groups(frame[val], self.pool_share, "pool", "audit", self.seed)
        frame = limit_per_class(frame, self.per_class, self.classes, self.seed)
        if not (frame["slice"] == "conflicting").any():
            raise DataError(
                f"dataset.root: no test image in {str(self.root)!r} shows a class with the other's {self.kind}; "
                "expected at least one, they are the slice 'conflicting'"
            )
        train = frame[frame["split"] == "train"]
        shares = (train["label"] == train["value"]).groupby(train["label"]).mean()
        confounders = [
            {"class": name, "kind": self.kind, "value": value, "p": round(float(shares.get(label, 0.0)), 4)}
            for label, (name, value) in enumerate(zip(self.classes, self.values, strict=True))
        ]
        table = ImageTable.build(frame.drop(columns=["value", *FACTS]), self.classes)
        tied = " and ".join(f"{one['p']:.1%} of {one['class']} with {one['value']}" for one in confounders)
        return Benchmark(
            self.name,
            table,
            description=f"Images of {printable(str(self.root))}; train shows {tied}.",
            headline_slice="conflicting",
            confounders=confounders,
            refused=refused,
        ).check()

    def _look(self) -> Rows:
        if not self.root.is_dir() or not is_utf8(str(self.root)):
            raise DataError(f"dataset.root: {printable(str(self.root))!r} is not a folder (with a UTF-8 name)")
        frame, refused = self._list()
        for split in CUTS:
            if not (frame["split"] == split).any():
                raise DataError(
                    f"dataset.root: no image of split {split} in {str(self.root)!r} ({len(refused)} files refused"
                    + (f"; the first: {refused[0]['path']}, {refused[0]['reason']})" if refused else ")")
                )
        return frame, refused
