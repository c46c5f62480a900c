"""`Places365`: a subset of Places365-Standard by class name, read where it lies in either of its published layouts."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from aaca.data.benchmark import Benchmark, BenchmarkSource
from aaca.data.listing import digest_files, is_utf8, list_files, printable
from aaca.data.splits import check_per_class, cut_counts, limit_per_class
from aaca.data.table import ImageTable
from aaca.runtime.errors import ConfigError, DataError, nearest
from aaca.runtime.files import digest

CLASSES = (
    "art_studio",
    "art_gallery",
    "museum/indoor",
    "classroom",
    "lecture_room",
    "library/indoor",
    "office",
    "home_office",
    "living_room",
    "bedroom",
    "dining_room",
    "kitchen",
)
"""Twelve confusable rooms: our choice, not the paper's, whose class list is not published."""

PER_CLASS: dict[str, int | None] = {"train": 1500, "pool": None, "audit": 500, "test": None}
"""train and audit are drawn from the official training images, the pool is what is left; test is the official val."""

CATEGORIES = "categories_places365.txt"
FILE_LISTS = {"train": "places365_train_standard.txt", "val": "places365_val.txt"}


class Places365(BenchmarkSource):
    """Places365-Standard (Zhou et al., TPAMI 2018), in the layout of the official archives or as train/val folders.

    Official (`torchvision.datasets.Places365`): `categories_places365.txt`, `places365_train_standard.txt`,
    `places365_val.txt` and the folders `data_256_standard` (or `data_256`) and `val_256`; with `images: large`
    `data_large_standard` (or `data_large`) and `val_large`. Folders (the "easyformat" archive): `train/<class>/*.jpg`
    and `val/<class>/*.jpg`. An image's id is `<official split>/<class>/<file>` in all of them, so every layout and size
    gives the same splits. Class names are written as in the category list, with or without the leading `/a/`.
    """

    def __init__(
        self,
        root: str,
        classes: list[str] | None = None,
        images: Literal["256", "large"] = "256",
        per_class: dict[str, int | None] | None = None,
        seed: int = 0,
    ) -> None:
        self.root = Path(os.path.abspath(Path(root).expanduser()))  # noqa: PTH100 (resolve would follow links)
        self.classes = [_plain(name) for name in (CLASSES if classes is None else classes)]
        self.images = images
        self.per_class = check_per_class(PER_CLASS if per_class is None else {**PER_CLASS, **per_class})
        self.seed = seed
        self._listed: tuple[pd.DataFrame, list[dict[str, str]]] | None = None
        if images not in ("256", "large"):
            raise ConfigError(f"dataset.images: {images!r}; expected 256 or large")
        if len(set(map(_key, self.classes))) < max(2, len(self.classes)):
            raise ConfigError("dataset.classes: expected at least 2 different class names, or null for the default 12")
        if self.per_class["train"] is None or self.per_class["audit"] is None:
            raise ConfigError("dataset.per_class: train and audit need a number of images; the pool is what they leave")

    def fingerprint(self) -> dict[str, Any]:
        """Arguments, and a hash over path, size and time of the chosen classes' files. Raises `DataError`."""
        frame, refused = self._listed = self._list()
        return {
            "dataset": "places365",
            "root": printable(str(self.root)),
            "classes": self.classes,
            "images": self.images,
            "per_class": self.per_class,
            "seed": self.seed,
            "files": digest_files(frame),
            "refused": digest(refused),
        }

    def build(self, folder: Path) -> Benchmark:
        """The benchmark over the files as `fingerprint` last listed them; writes nothing, paths are absolute."""
        frame, refused = self._listed if self._listed is not None else self._list()
        train = (frame["split"] == "train").to_numpy()
        counts = {split: self.per_class[split] or 0 for split in ("train", "audit")}
        frame.loc[train, "split"] = cut_counts(frame[train], counts, "pool", self.classes, self.seed)
        frame.loc[~train, "split"] = "test"
        rest = {split: self.per_class[split] for split in ("pool", "test")}
        frame = limit_per_class(frame, rest, self.classes, self.seed)
        frame = frame.assign(path=str(self.root) + "/" + frame["path"], source=frame["id"])
        table = ImageTable.build(frame.drop(columns=["size", "mtime_ns", "device", "inode"]), self.classes)
        return Benchmark(
            "places365",
            table,
            description=f"{len(self.classes)} classes of Places365-Standard; test is its official validation set.",
            refused=refused,
        ).check()

    def _list(self) -> tuple[pd.DataFrame, list[dict[str, str]]]:
        """Rows (path, id, label, split train | val) with the files' facts, and what was left out."""
        if not self.root.is_dir() or not is_utf8(str(self.root)):
            raise DataError(f"dataset.root: {printable(str(self.root))!r} is not a folder (with a UTF-8 name)")
        if (self.root / CATEGORIES).is_file() and (self.root / FILE_LISTS["train"]).is_file():
            return self._official()
        if (self.root / "train").is_dir() and (self.root / "val").is_dir():
            return self._folders()
        seen = ", ".join(sorted(map(printable, os.listdir(self.root)))[:10]) or "nothing"  # noqa: PTH208
        raise DataError(
            f"dataset.root: {str(self.root)!r} holds {seen}; expected {CATEGORIES}, {FILE_LISTS['train']}, "
            f"{FILE_LISTS['val']} and the folders data_{self.images}_standard and val_{self.images}, or train/ and val/"
        )

    def _official(self) -> tuple[pd.DataFrame, list[dict[str, str]]]:
        categories = _read_list(self.root / CATEGORIES)
        numbers = dict(zip(categories["name"].map(_plain), categories["number"], strict=True))
        labels = {numbers[_find(name, numbers)]: label for label, name in enumerate(self.classes)}
        frames, refused = [], []
        for split, tops in (
            ("train", (f"data_{self.images}_standard", f"data_{self.images}")),
            ("val", (f"val_{self.images}",)),
        ):
            top = next((name for name in tops if (self.root / name).is_dir()), None)
            if top is None:
                raise DataError(
                    f"dataset.root: no folder {tops[0]!r} in {str(self.root)!r} (dataset.images: {self.images})"
                )
            rows = _read_list(self.root / FILE_LISTS[split])
            rows = rows[rows["number"].isin(labels)]
            rows = rows.assign(path=top + "/" + rows["name"].str.lstrip("/"), label=rows["number"].map(labels))
            folders = sorted(set(rows["path"].str.rpartition("/")[0]))
            listings = [list_files(self.root, at, deep=False) for at in folders]
            files = pd.concat([listing.frame for listing in listings], ignore_index=True)
            refused += [row for listing in listings for row in listing.refused]
            missing = rows["path"][~rows["path"].isin(files["path"])]
            refused += [
                {"path": str(self.root / path), "reason": f"named in {FILE_LISTS[split]}, not there"}
                for path in missing
            ]
            found = files.merge(rows[["path", "label"]], on="path", validate="one_to_one")
            frames.append(self._with_ids(found, split))
        return pd.concat(frames, ignore_index=True), refused

    def _folders(self) -> tuple[pd.DataFrame, list[dict[str, str]]]:
        frames, refused = [], []
        for split in ("train", "val"):
            folders = {_plain(name): name for name in _leaf_folders(self.root / split)}
            for label, name in enumerate(self.classes):
                folder = folders[_find(name, folders)]
                listing = list_files(self.root, f"{split}/{folder}", deep=False)
                refused += listing.refused
                frames.append(self._with_ids(listing.frame.assign(label=label), split))
        return pd.concat(frames, ignore_index=True), refused

    def _with_ids(self, frame: pd.DataFrame, split: str) -> pd.DataFrame:
        names = frame["label"].map(dict(enumerate(self.classes)))
        return frame.assign(id=f"{split}/" + names + "/" + frame["path"].str.rpartition("/")[2], split=split)


def _plain(name: str) -> str:
    """The category's name without its letter folder: "/m/museum/indoor" → "museum/indoor"."""
    parts = name.strip("/").split("/")
    return "/".join(parts[1:] if len(parts) > 1 and len(parts[0]) == 1 else parts)


def _key(name: str) -> str:
    """Equal for all spellings of one category: museum/indoor, museum-indoor, museum_indoor."""
    return name.replace("/", "_").replace("-", "_").lower()


def _find(name: str, known: dict[str, Any]) -> str:
    """The known category that `name` spells. Raises `ConfigError` with the nearest ones."""
    match = next((one for one in known if _key(one) == _key(name)), None)
    if match is None:
        raise ConfigError(f"dataset.classes: no Places365 class {name!r} here; {nearest(name, known)}")
    return match


def _read_list(path: Path) -> pd.DataFrame:
    """A category or file list: columns name, number. Raises `DataError` naming the file and the first bad line."""
    if not path.is_file():
        raise DataError(f"dataset.root: {path} is missing; it is part of the official file list archive")
    try:
        rows = pd.read_csv(path, sep=" ", header=None, names=["name", "number"], dtype={"name": str, "number": "int64"})
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise DataError(f"dataset.root: {path} is not a list of '<name> <number>' lines ({reason})") from error
    return rows


def _leaf_folders(top: Path, prefix: str = "") -> Iterator[str]:
    """Class folders, at most two deep: a folder that holds folders is the first half of a name (museum/indoor)."""
    with os.scandir(top / prefix) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir() and is_utf8(entry.name))
    for name in names:
        path = f"{prefix}/{name}" if prefix else name
        inner = [] if prefix else list(_leaf_folders(top, path))
        yield from inner or [path]
