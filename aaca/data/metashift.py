"""`MetaShift`: photos with contexts; one class learned in one context alone, or cats and dogs whose places are tied."""

import os
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from aaca.data.benchmark import Benchmark, BenchmarkSource
from aaca.data.confounded import Rows
from aaca.data.listing import FACTS, digest_files, is_utf8, printable
from aaca.data.metashift_folders import list_folders
from aaca.data.metashift_subsets import EXAMPLE, list_subsets, read_scenario
from aaca.data.splits import check_per_class, cut_by_source, cut_counts, limit_per_class
from aaca.data.table import ImageTable
from aaca.runtime.errors import ConfigError, DataError, nearest
from aaca.runtime.files import digest
from aaca.runtime.seeding import purpose_seed

Layout = Literal["subsets", "subpop"]

PER_CLASS = {"train": 100, "pool": 50, "audit": 50, "test": 50}
"""As published, where its 100 validation images are our pool and audit."""

REPEATS = "repeats"
"""Folder inside the benchmark's stage for links to images that are drawn again."""


class MetaShift(BenchmarkSource):
    """MetaShift (Liang and Zou, ICLR 2022) as in Abid et al. (ICML 2022) and NeuroInspect, or as unpacked folders.

    `layout: subsets`: `root` holds `dataset/meta_data/full-candidate-subsets.pkl` (or `.json`; subset → image ids) and
    `data/allImages/images/<id>.jpg`. The shifted class of `scenario` is trained on the named context alone, and pool,
    audit and test show it without; where it has too few such images, further ones are drawn with replacement (links in
    the benchmark's folder). An image that lies in several classes' subsets goes to one of them. `layout: subpop`:
    `root` holds `{train,test}/<class>/<class>(<context>)/*.jpg` (or a folder `MetaShift-Cat-Dog-indoor-outdoor` that
    does); pool and audit are cut from train. An image's id in Visual Genome is its `source`.

    Args:
        root: the folder.
        layout: subsets | subpop.
        scenario: <class>-<class>-…:<shifted class>(<context>); read with subsets, which gives the label order.
        subsets: file of the subsets, from `root` on; null: the published place. Read with subsets.
        pool_share: share of a class's training images that becomes the pool; read with subpop.
        audit_share: the same of audit; train is the rest.
        per_class: images a class of each split; null: 100, 50, 50 and 50 with subsets, all with subpop.
        seed: of every choice.

    """

    def __init__(
        self,
        root: str,
        layout: Layout = "subsets",
        scenario: str = EXAMPLE,
        subsets: str | None = None,
        pool_share: float = 0.1,
        audit_share: float = 0.1,
        per_class: dict[str, int | None] | None = None,
        seed: int = 0,
    ) -> None:
        self.root = Path(os.path.abspath(Path(root).expanduser()))  # noqa: PTH100 (resolve would follow links)
        if layout not in get_args(Layout):
            raise ConfigError(f"dataset.layout: {layout!r}; {nearest(layout, get_args(Layout))}")
        self.layout, self.subsets, self.seed = layout, subsets, seed
        self.scenario = read_scenario(scenario)
        given = check_per_class(per_class)
        self.per_class = {
            split: PER_CLASS[split] if count is None and layout == "subsets" else count
            for split, count in given.items()
        }
        self.shares = {"pool": pool_share, "audit": audit_share}
        for key, share in self.shares.items():
            if not 0 < share < 1:
                raise ConfigError(f"dataset.{key}_share: {share}; expected a number between 0 and 1")
        if pool_share + audit_share >= 1:
            raise ConfigError(
                f"dataset.audit_share: {audit_share}; expected less than {1 - pool_share:g}, train is what both leave"
            )
        self._listed: tuple[Rows, tuple[str, ...]] | None = None

    def at_most(self, split: str) -> int | None:
        """What `per_class` asks for."""
        return self.per_class[split]

    def class_names(self) -> tuple[str, ...] | None:
        """Those of the scenario, in its order; None where folders name them."""
        return self.scenario.classes if self.layout == "subsets" else None

    def fingerprint(self) -> dict[str, Any]:
        """Arguments, a hash over path, size and time of every file, and one over what is said of each.

        Raises `DataError` naming what is missing.
        """
        (frame, refused), classes = self._listed = self._look()
        return {
            "dataset": "metashift",
            "root": printable(str(self.root)),
            "layout": self.layout,
            "classes": classes,
            **({"scenario": self.scenario} if self.layout == "subsets" else {"shares": self.shares}),
            "per_class": self.per_class,
            "seed": self.seed,
            "files": digest_files(frame),
            "said": digest(frame[["id", "label", "group", "split"]].to_numpy().tolist()),
            "refused": digest(refused),
        }

    def build(self, folder: Path) -> Benchmark:
        """The benchmark over the files as `fingerprint` last listed them; paths are absolute.

        Of images that are repeated, links are laid into `folder`; their paths are relative to it.
        """
        (frame, refused), classes = self._listed if self._listed is not None else self._look()
        frame = frame.drop(columns=list(FACTS)).assign(path=f"{self.root}/" + frame["path"])
        if self.layout == "subsets":
            frame = self._repeat(self._cut(frame), folder)
        else:
            train = (frame["split"] == "train").to_numpy()
            frame.loc[train, "split"] = cut_by_source(frame[train], self.shares, "train", classes, self.seed)
        frame = limit_per_class(frame, self.per_class, classes, self.seed)
        return Benchmark(
            "metashift",
            ImageTable.build(frame, classes, folder),
            description=f"Photos of {printable(str(self.root))} by class and context ({self.layout}).",
            confounders=_confounders(frame, classes, self.scenario.shifted if self.layout == "subsets" else None),
            refused=refused,
        ).check()

    def _look(self) -> tuple[Rows, tuple[str, ...]]:
        if not self.root.is_dir() or not is_utf8(str(self.root)):
            raise DataError(f"dataset.root: {printable(str(self.root))!r} is not a folder (with a UTF-8 name)")
        if self.layout == "subpop":
            return list_folders(self.root, self.seed)
        return list_subsets(self.root, self.scenario, self.subsets, self.seed), self.scenario.classes

    def _cut(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The rows with a split each; without images of the shifted class that lack the context and are left."""
        classes, shifted = self.scenario.classes, self.scenario.shifted
        rest = (frame["split"] == "").to_numpy()
        counts = {split: self.per_class[split] or 0 for split in ("test", "pool", "audit")}
        frame.loc[rest, "split"] = cut_counts(frame[rest], counts, "train", classes, self.seed)
        left = rest & (frame["split"] == "train").to_numpy() & (frame["label"] == classes.index(shifted)).to_numpy()
        return frame[~left].reset_index(drop=True)

    def _repeat(self, frame: pd.DataFrame, folder: Path) -> pd.DataFrame:
        """The rows with further ones, drawn with replacement, where the shifted class has too few to train on."""
        label = self.scenario.classes.index(self.scenario.shifted)
        own = frame[(frame["label"] == label) & (frame["split"] == "train")]
        missing = (self.per_class["train"] or 0) - len(own)
        if missing <= 0 or own.empty:
            return frame
        generator = np.random.default_rng(purpose_seed(self.seed, "metashift", "repeats"))
        drawn = own.iloc[generator.integers(len(own), size=missing)].reset_index(drop=True)
        links = [f"{REPEATS}/{at:04d}_{Path(path).name}" for at, path in enumerate(drawn["path"])]
        (folder / REPEATS).mkdir(parents=True, exist_ok=True)
        for link, path in zip(links, drawn["path"], strict=True):
            (folder / link).unlink(missing_ok=True)
            (folder / link).symlink_to(path)
        ids = [f"{name}#{at}" for at, name in enumerate(drawn["id"])]
        return pd.concat([frame, drawn.assign(id=ids, path=links)], ignore_index=True)


def _confounders(frame: pd.DataFrame, classes: tuple[str, ...], shifted: str | None) -> list[dict[str, Any]]:
    """What train ties to a class: the shifted class's context, or of every class the most frequent one."""
    train = frame.loc[frame["split"] == "train", "group"].str.partition("|")
    found = []
    for name in classes if shifted is None else (shifted,):
        shares = train.loc[train[0] == name, 2].value_counts(normalize=True)
        if len(shares):
            found.append(
                {"class": name, "kind": "context", "value": str(shares.index[0]), "p": round(float(shares.iloc[0]), 4)}
            )
    return found
