"""`Food101`: 101 dishes, read where they lie as published and as torchvision unpacks them."""

import os
from pathlib import Path
from typing import Any

import pandas as pd

from aaca.data.benchmark import Benchmark, BenchmarkSource
from aaca.data.listing import FACTS, digest_files, is_utf8, list_files, printable
from aaca.data.splits import check_per_class, cut_by_source, cut_groups, limit_per_class
from aaca.data.table import ImageTable
from aaca.runtime.errors import ConfigError, DataError
from aaca.runtime.files import digest, read_json

FOLDERS = ("", "food-101")
"""Where in `root` the files may lie. The first found counts."""

IMAGES, META = "images", "meta"
PARTS = ("train", "test")


class Food101(BenchmarkSource):
    """Food-101 (Bossard et al., ECCV 2014): of each dish 750 training images with some noise and 250 clean test images.

    `root` holds `images/<class>/<id>.jpg` and `meta/{train,test}.json` (class → list of "class/id") or, without them,
    `meta/{train,test}.txt` ("class/id" a line); or a folder `food-101` that does. The published set has no validation
    images: they are taken from train by a seeded hash of each id, and nothing is written. No data bug is planted. Each
    photo occurs once, so its id is its `source`. Classes are sorted by folder name, as torchvision numbers them.

    Args:
        root: the folder.
        val_share: share of each class's training images that becomes validation (112 of 750 as published).
        pool_share: share of a class's validation images that becomes the pool; the rest is audit.
        per_class: images a class of each split; null: all.
        seed: of the division and of what `per_class` leaves out.

    """

    def __init__(
        self,
        root: str,
        val_share: float = 0.15,
        pool_share: float = 0.5,
        per_class: dict[str, int | None] | None = None,
        seed: int = 0,
    ) -> None:
        self.root = Path(os.path.abspath(Path(root).expanduser()))  # noqa: PTH100 (resolve would follow links)
        self.shares = {"val_share": val_share, "pool_share": pool_share}
        self.per_class = check_per_class(per_class)
        self.seed = seed
        self._listed: tuple[pd.DataFrame, list[dict[str, str]]] | None = None
        for key, share in self.shares.items():
            if not 0 < share < 1:
                raise ConfigError(f"dataset.{key}: {share}; expected a number between 0 and 1")

    def at_most(self, split: str) -> int | None:
        """What `per_class` asks for."""
        return self.per_class[split]

    def class_names(self) -> tuple[str, ...]:
        """Folder names with spaces, "apple pie". Raises `DataError` where the lists are missing or wrong."""
        names = read_names(self.root / self._base() / META, "test")
        return tuple(name.replace("_", " ") for name in _classes(names))

    def fingerprint(self) -> dict[str, Any]:
        """Arguments, a hash over path, size and time of every file, and one over what is said of each.

        Raises `DataError` naming what is missing.
        """
        frame, refused = self._listed = self._list()
        return {
            "dataset": "food101",
            "root": printable(str(self.root)),
            **self.shares,
            "per_class": self.per_class,
            "seed": self.seed,
            "files": digest_files(frame),
            "said": digest(frame[["id", "label", "split"]].to_numpy().tolist()),
            "refused": digest(refused),
        }

    def build(self, folder: Path) -> Benchmark:
        """The benchmark over the files as `fingerprint` last listed them; writes nothing, paths are absolute."""
        frame, refused = self._listed if self._listed is not None else self._list()
        classes = self.class_names()
        frame = frame.assign(path=f"{self.root}/" + frame["path"], source=frame["id"])
        train = (frame["split"] == "train").to_numpy()
        shares = {"val": self.shares["val_share"]}
        frame.loc[train, "split"] = cut_by_source(frame[train], shares, "train", classes, self.seed)
        val = (frame["split"] == "val").to_numpy()
        by_class = frame[val].assign(group=frame["label"][val])
        frame.loc[val, "split"] = cut_groups(by_class, self.shares["pool_share"], "pool", "audit", self.seed)
        frame = limit_per_class(frame, self.per_class, classes, self.seed)
        return Benchmark(
            "food101",
            ImageTable.build(frame.drop(columns=list(FACTS)), classes),
            description=f"{len(classes)} dishes; test is the official one, no bug is planted.",
            refused=refused,
        ).check()

    def _base(self) -> str:
        """The folder of `FOLDERS` that holds the files. Raises `DataError` saying what is there instead."""
        if not self.root.is_dir() or not is_utf8(str(self.root)):
            raise DataError(f"dataset.root: {printable(str(self.root))!r} is not a folder (with a UTF-8 name)")
        wanted = (IMAGES, META)
        base = next((name for name in FOLDERS if all((self.root / name / one).is_dir() for one in wanted)), None)
        if base is None:
            seen = ", ".join(sorted(map(printable, os.listdir(self.root)))[:10]) or "nothing"  # noqa: PTH208
            raise DataError(
                f"dataset.root: no folders {IMAGES} and {META} in {str(self.root)!r} or its {FOLDERS[1]}; "
                f"it holds {seen}"
            )
        return base

    def _list(self) -> tuple[pd.DataFrame, list[dict[str, str]]]:
        """Rows (path, id, label, split train | test) with the files' facts, and what was left out."""
        base = self._base()
        meta = self.root / base / META
        parts = {part: read_names(meta, part) for part in PARTS}
        rows = pd.DataFrame([(name, part) for part, names in parts.items() for name in names], columns=["id", "split"])
        twice = rows[rows["id"].duplicated(keep=False)]
        if len(twice):
            name = twice["id"].iloc[0]
            splits = ", ".join(twice["split"][twice["id"] == name])
            raise DataError(f"dataset.root: {meta} lists {name!r} more than once (splits: {splits})")
        classes = _classes(parts["train"])
        for name in sorted(set(classes) ^ set(_classes(parts["test"]))):
            here, there = PARTS if name in classes else PARTS[::-1]
            raise DataError(f"dataset.root: class {name!r} of {meta} is in {here!r} but not in {there!r}")
        numbers = {name: label for label, name in enumerate(classes)}
        rows["label"] = [numbers[_class(name)] for name in rows["id"]]
        rows["path"] = [os.path.join(base, IMAGES, f"{name}.jpg") for name in rows["id"]]  # noqa: PTH118
        listings = [list_files(self.root, os.path.join(base, IMAGES, name), deep=False) for name in classes]  # noqa: PTH118
        files = pd.concat([listing.frame for listing in listings], ignore_index=True)
        missing = rows["path"][~rows["path"].isin(files["path"])]
        refused = [row for listing in listings for row in listing.refused]
        refused += [{"path": str(self.root / path), "reason": f"named in {META}, not there"} for path in missing]
        return files.merge(rows, on="path", validate="one_to_one"), refused


def read_names(meta: Path, part: str) -> list[str]:
    """The names "class/id" of a part: those of its JSON page, or else of its text. Raises `DataError` naming both."""
    page, text = meta / f"{part}.json", meta / f"{part}.txt"
    if page.is_file():
        lists = _lists(page)
        names = [name for own in lists.values() for name in own]
        strange = next(
            (name for label, own in lists.items() for name in own if _class(name) != label or not label), None
        )
        path = page
    elif text.is_file():
        try:
            names = text.read_text(encoding="utf-8").split()
        except ValueError as error:
            raise DataError(f"dataset.root: {text} is not UTF-8 text ({error})") from error
        strange, path = next((name for name in names if not _class(name)), None), text
    else:
        raise DataError(f"dataset.root: neither {page.name} nor {text.name} is in {meta}; they are part of the set")
    if strange is not None or not names:
        said = "no name" if strange is None else f"the name {printable(strange)!r}"
        raise DataError(f"dataset.root: {path} has {said}; expected <class>/<id>")
    return names


def _lists(page: Path) -> dict[str, list[str]]:
    try:
        lists = read_json(page)
    except ValueError as error:
        raise DataError(f"dataset.root: {page} is not readable as JSON ({' '.join(str(error).split())})") from error
    lists_of_text = isinstance(lists, dict) and all(
        isinstance(own, list) and all(isinstance(name, str) for name in own) for own in lists.values()
    )
    if not lists_of_text:
        raise DataError(f'dataset.root: {page} is not a JSON object of class → list of "class/id"')
    return lists


def _class(name: str) -> str:
    """The class of a name "class/id"; "" where it is none, so that no name leads out of the folder."""
    parts = name.split("/")
    return parts[0] if len(parts) == 2 and not {"", ".", ".."} & set(parts) and "\0" not in name else ""


def _classes(names: list[str]) -> list[str]:
    return sorted({_class(name) for name in names})
