"""`Cifar`: CIFAR-10 and CIFAR-100 in torchvision's layout, the official test images as test."""

from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from torchvision.datasets import CIFAR10, CIFAR100
from torchvision.datasets.utils import check_integrity

from aaca.data.benchmark import Benchmark, BenchmarkSource
from aaca.data.splits import check_per_class, cut_by_source, limit_per_class
from aaca.data.table import ImageTable
from aaca.runtime.errors import ConfigError, DataError, nearest

Classes = Literal[10, 100]
OFFICIAL = {10: CIFAR10, 100: CIFAR100}


class Cifar(BenchmarkSource):
    """CIFAR-10 or CIFAR-100 (Krizhevsky, 2009): natural images of 32 pixels a side, no planted confounder.

    The official training images are divided, class by class, into `train`, `pool` and `audit`. The published MD5 sums
    are checked before a file is opened, since its format (pickle) runs whatever it holds.

    Args:
        root: the folder of `cifar-10-batches-py` or `cifar-100-python`.
        classes: 10 | 100 (the fine ones).
        pool_share: share of the official training images of a class that becomes the pool.
        audit_share: the same of audit; train is the rest.
        per_class: images a class of each split; null: all.
        seed: of the division and of what `per_class` leaves out.

    """

    def __init__(
        self,
        root: str,
        classes: Classes = 10,
        pool_share: float = 0.1,
        audit_share: float = 0.1,
        per_class: dict[str, int | None] | None = None,
        seed: int = 0,
    ) -> None:
        if classes not in get_args(Classes):
            raise ConfigError(f"dataset.classes: {classes!r}; {nearest(str(classes), map(str, get_args(Classes)))}")
        for key, share in (("pool_share", pool_share), ("audit_share", audit_share)):
            if not 0 < share < 1:
                raise ConfigError(f"dataset.{key}: {share}; expected a number between 0 and 1")
        if pool_share + audit_share >= 1:
            raise ConfigError(
                f"dataset.audit_share: {audit_share}; expected less than {1 - pool_share:g}, train is what both leave"
            )
        self.root, self.classes, self.seed = Path(root).expanduser(), classes, seed
        self.shares = {"pool": pool_share, "audit": audit_share}
        self.per_class = check_per_class(per_class)
        self.name = f"cifar{classes}"

    def at_most(self, split: str) -> int | None:
        """What `per_class` asks for."""
        return self.per_class[split]

    def fingerprint(self) -> dict[str, Any]:
        """All arguments but the folder, and the published sums of the files, which `build` holds them to."""
        official = OFFICIAL[self.classes]
        arguments = {"shares": self.shares, "per_class": self.per_class, "seed": self.seed}
        return {"dataset": self.name, **arguments, "files": [*official.train_list, *official.test_list]}

    def build(self, folder: Path) -> Benchmark:
        """Write `train.npy`, `test.npy` (uint8 `[N, 32, 32, 3]`, as published), the table and `benchmark.json`.

        Raises `DataError` where a file is missing or is not the published one.
        """
        folder.mkdir(parents=True, exist_ok=True)
        parts = {part: self._read(train=part == "train") for part in ("train", "test")}
        names = parts["train"].classes
        frames = []
        for part, images in parts.items():
            np.save(folder / f"{part}.npy", images.data)
            ids = [f"{self.name}/{part}/{row:05d}" for row in range(len(images.data))]
            facts = {"id": ids, "label": images.targets, "split": part, "source": ids, "path": f"{part}.npy"}
            frames.append(pd.DataFrame(facts).assign(row=range(len(ids))))
        train = frames[0].assign(split=cut_by_source(frames[0], self.shares, "train", names, self.seed))
        frame = limit_per_class(pd.concat([train, frames[1]], ignore_index=True), self.per_class, names, self.seed)
        benchmark = Benchmark(
            self.name,
            ImageTable.build(frame, names, folder),
            description=f"CIFAR-{self.classes}; test is the official one, no data bug is planted.",
        ).check()
        benchmark.save(folder)
        return benchmark

    def _read(self, train: bool) -> Any:
        """The part as torchvision reads it: `data` uint8 `[N, 32, 32, 3]`, `targets`, `classes`."""
        official = OFFICIAL[self.classes]
        try:
            return official(str(self.root), train=train, download=False)
        except (RuntimeError, OSError) as error:
            base = self.root / official.base_folder
            meta = (official.meta["filename"], official.meta["md5"])
            files = [(base / name, md5) for name, md5 in (*official.train_list, *official.test_list, meta)]
            missing = [path for path, _ in files if not path.is_file()]
            if missing:
                raise DataError(f"dataset.root: no {missing[0]}; expected CIFAR-{self.classes} as unpacked") from error
            wrong = [path for path, md5 in files if not check_integrity(str(path), md5)]
            raise DataError(
                f"dataset.root: {wrong[0] if wrong else base} is not as published (its MD5 sum differs); not opened"
            ) from error
