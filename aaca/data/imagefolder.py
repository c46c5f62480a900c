"""`ImageFolder`: any user's images, from `root/<split>/<class>/*` or from a manifest; nothing is copied."""

import os
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from aaca.data.archive import is_archive, unpack
from aaca.data.benchmark import Benchmark, BenchmarkSource
from aaca.data.listing import digest_files, folders_in, is_utf8, list_files, printable, stat_files
from aaca.data.manifest import read_manifest
from aaca.data.splits import check_per_class, cut_by_source, limit_per_class
from aaca.data.table import ImageTable
from aaca.runtime.errors import ConfigError, DataError, nearest
from aaca.runtime.files import digest, file_sha256

IMAGES = "images"
"""Folder inside the benchmark's stage for the files of an archive."""

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "pool": "pool",
    "audit": "audit",
    "test": "test",
    "testing": "test",
    "test_seen": "test_seen",
}
"""Folder or manifest names (lower case) and the split each stands for."""


class ImageFolder(BenchmarkSource):
    """A user's images. Splits that are not there are cut from others, by source, per class, seeded:

    `val` becomes `test` where no `test` is given, else `audit` where no `audit` is given. `pool`, `audit` and `test`
    that are still missing are cut from `train`: these fractions of each class's sources (an image without one is its
    own).
    `per_class` then limits the images a class of each split. `root` may be an archive (zip, tar) of such a folder.
    """

    def __init__(
        self,
        root: str,
        manifest: str | None = None,
        classes: list[str] | None = None,
        per_class: dict[str, int | None] | None = None,
        seed: int = 0,
        pool_fraction: float = 0.25,
        audit_fraction: float = 0.15,
        test_fraction: float = 0.2,
        headline_slice: str = "all",
    ) -> None:
        self.root = Path(os.path.abspath(Path(root).expanduser()))  # noqa: PTH100 (resolve would follow links)
        self._manifest = manifest
        self.manifest = None if manifest is None else self.root / Path(manifest).expanduser()
        self.classes = None if classes is None else [str(name) for name in classes]
        self.per_class = check_per_class(per_class)
        self.seed = seed
        self.fractions = {"test": test_fraction, "audit": audit_fraction, "pool": pool_fraction}
        self.headline_slice = headline_slice
        self._listed: tuple[pd.DataFrame, list[dict[str, str]]] | None = None
        for name, value in self.fractions.items():
            if not 0 < value < 1:
                raise ConfigError(f"dataset.{name}_fraction: {value}; expected a number between 0 and 1")
        if sum(self.fractions.values()) >= 1:
            raise ConfigError(
                "dataset.pool_fraction: pool, audit and test fractions sum to "
                f"{sum(self.fractions.values()):g}; expected less than 1, the rest is train"
            )
        if self.classes is not None and len(set(self.classes)) < max(2, len(self.classes)):
            raise ConfigError("dataset.classes: expected at least 2 different class names, or null for all")

    def fingerprint(self) -> dict[str, Any]:
        """Arguments, and a hash over path, size and time of every file. Raises `DataError` naming what is missing.

        Of an archive, the hash of its bytes.
        """
        arguments = {
            "dataset": "imagefolder",
            "root": printable(str(self.root)),
            "classes": self.classes,
            "per_class": self.per_class,
            "seed": self.seed,
            "fractions": self.fractions,
            "headline_slice": self.headline_slice,
        }
        if self._is_archive():
            return {**arguments, "archive": file_sha256(self.root), "manifest": self._manifest}
        frame, refused = self._listed = self._list()
        return {
            **arguments,
            "manifest": None if self.manifest is None else file_sha256(self.manifest),
            "files": digest_files(frame),
            "refused": digest(refused),
        }

    def _is_archive(self) -> bool:
        return is_archive(self.root) and self.root.is_file()

    def build(self, folder: Path) -> Benchmark:
        """The benchmark over the files as `fingerprint` last listed them; writes nothing, paths are absolute.

        An archive is unpacked into `folder`, and paths are relative to it.
        """
        if self._is_archive():
            return self._unpacked(folder)
        frame, refused = self._listed if self._listed is not None else self._list()
        classes = self._classes(frame)
        frame = frame[frame["label"].isin(classes)].reset_index(drop=True)
        frame["label"] = frame["label"].map({name: label for label, name in enumerate(classes)}).astype("int64")
        frame, shared = _drop_links(frame, self.root)
        frame = self._assign(frame, classes)
        frame = limit_per_class(frame, self.per_class, classes, self.seed)
        frame = frame.assign(path=str(self.root) + "/" + frame["path"])
        table = ImageTable.build(frame.drop(columns=["size", "mtime_ns", "device", "inode"]), classes)
        slices = {"all", *table.split("test").frame["slice"]}
        if self.headline_slice not in slices:
            raise ConfigError(
                f"dataset.headline_slice: no {self.headline_slice!r}; {nearest(self.headline_slice, slices)}"
            )
        return Benchmark(
            "imagefolder",
            table,
            description=f"Images of {printable(str(self.root))}.",
            headline_slice=self.headline_slice,
            refused=[*refused, *shared],
        ).check()

    def _unpacked(self, folder: Path) -> Benchmark:
        unpack(self.root, folder / IMAGES)
        inside = folder / IMAGES
        while self.manifest is None and len(list(inside.iterdir())) == 1 and not (inside / "train").is_dir():
            inside = next(inside.iterdir())  # archives often hold one folder that holds the rest
        part = copy(self)
        part.root = inside
        part.manifest = None if self._manifest is None else inside / self._manifest
        built = part.build(folder)
        paths = [str(Path(path).relative_to(folder)) for path in built.table.frame["path"]]
        table = replace(built.table, frame=built.table.frame.assign(path=paths), root=folder)
        return replace(built, table=table, description=f"Images of {printable(str(self.root))}.")

    def _list(self) -> tuple[pd.DataFrame, list[dict[str, str]]]:
        """Rows (path, label as text, split, …) with the files' facts, and what was left out."""
        if not self.root.is_dir() or not is_utf8(str(self.root)):
            raise DataError(
                f"dataset.root: {printable(str(self.root))!r} is not a folder (with a UTF-8 name), nor an archive"
            )
        frame, refused = self._from_folders() if self.manifest is None else self._from_manifest(self.manifest)
        if frame.empty:
            raise DataError(f"dataset.root: no image in {str(self.root)!r} ({len(refused)} files refused)")
        return frame, refused

    def _from_manifest(self, manifest: Path) -> tuple[pd.DataFrame, list[dict[str, str]]]:
        rows = read_manifest(manifest)
        prefix = f"{self.root}/"
        rows["path"] = [os.path.normpath(path.removeprefix(prefix)) for path in rows["path"]]
        if (rows["split"] != "").any():
            rows["split"] = [_split_of(name, f"dataset.manifest: row {at}") for at, name in enumerate(rows["split"], 1)]
        else:
            rows["split"] = "train"
        twice = rows[rows["path"].duplicated(keep=False)]
        if len(twice):
            raise DataError(
                f"dataset.manifest: {twice['path'].iloc[0]!r} is listed more than once "
                f"(splits: {', '.join(sorted(set(twice['split'])))}); splits must be disjoint, one row a file"
            )
        listing = stat_files(self.root, rows["path"].tolist())
        frame = listing.frame.merge(rows, on="path", how="left", validate="one_to_one")
        return frame.assign(id=frame["path"], slice=frame["slice"].replace("", "all")), listing.refused

    def _from_folders(self) -> tuple[pd.DataFrame, list[dict[str, str]]]:
        found, stray = folders_in(self.root)
        names = {SPLIT_NAMES[name.lower()]: name for name in found if name.lower() in SPLIT_NAMES}
        strange = [name for name in found if name.lower() not in SPLIT_NAMES]
        if "train" not in names:
            seen = ", ".join(map(repr, found[:10])) or "no folder"
            raise DataError(
                f"dataset.root: no split folder train in {str(self.root)!r}; found {seen}; "
                "expected <split>/<class>/<image> with splits train and val, or train, pool, audit, test"
            )
        if len(names) + len(strange) < len(found):
            raise DataError(
                f"dataset.root: two folders for one split in {str(self.root)!r}: {', '.join(found)}; rename one"
            )
        refused = [_refusal(self.root / name, "not a split folder") for name in (*stray, *strange)]
        classes = {}
        for split, name in names.items():
            classes[split], stray = folders_in(self.root / name)
            refused += [_refusal(self.root / name / other, "not a class folder") for other in stray]
        frames = []
        for label in self._same_classes(classes):
            for split, name in names.items():
                listing = list_files(self.root, f"{name}/{label}")
                refused += listing.refused
                if listing.frame.empty:
                    raise DataError(
                        f"dataset.root: class {label!r} has no image in split {name!r} "
                        f"({len(listing.refused)} other files); expected at least one, or no such folder"
                    )
                frames.append(listing.frame.assign(label=label, split=split, source="", id=listing.frame["path"]))
        return (pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()), refused

    def _same_classes(self, folders: dict[str, list[str]]) -> list[str]:
        """The class folders that count (all, or those of `classes`). Raises unless every split has them."""
        wanted = set(folders["train"]) if self.classes is None else set(self.classes)
        for name in sorted(wanted - set(folders["train"])):
            raise ConfigError(f"dataset.classes: no folder {name!r} in train; {nearest(name, folders['train'])}")
        for split, names in folders.items():
            own = set(names) if self.classes is None else set(names) & wanted
            for name in sorted(wanted ^ own):
                here, there = ("train", split) if name in wanted else (split, "train")
                raise DataError(f"dataset.root: class folder {name!r} is in split {here!r} but not in {there!r}")
        return sorted(wanted)

    def _classes(self, frame: pd.DataFrame) -> list[str]:
        """Class names in label order: as given, else sorted (a manifest's whole numbers by value)."""
        found = set(frame["label"].unique())
        for name in self.classes or ():
            if name not in found:
                raise ConfigError(f"dataset.classes: no image of class {name!r}; {nearest(name, found)}")
        numbers = self.manifest is not None and all(name.isdecimal() for name in found)
        classes = self.classes or sorted(found, key=lambda name: (int(name) if numbers else 0, name))
        if len(classes) < 2:
            raise DataError(
                f"dataset.root: 1 class ({classes[0]!r}) in {str(self.root)!r}; a classifier needs at least 2"
            )
        return classes

    def _assign(self, frame: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
        """Give `val` its role and cut the splits that are missing from train."""
        present = set(frame["split"])
        if "train" not in present:
            raise DataError(f"dataset.manifest: no row of split train; found {', '.join(sorted(present))}")
        if "val" in present:
            role = next((split for split in ("test", "audit") if split not in present), None)
            if role is None:
                raise DataError("dataset.root: splits val, audit and test are all there; val has no role, leave it out")
            frame["split"] = frame["split"].replace("val", role)
            present.add(role)
        fractions = {split: share for split, share in self.fractions.items() if split not in present}
        if fractions:
            train = (frame["split"] == "train").to_numpy()
            frame.loc[train, "split"] = cut_by_source(frame[train], fractions, "train", classes, self.seed)
        return frame


def _refusal(path: Path, reason: str) -> dict[str, str]:
    return {"path": printable(str(path)), "reason": reason}


def _split_of(name: str, where: str) -> str:
    if name.lower() not in SPLIT_NAMES:
        raise DataError(f"{where}: split {name!r}; {nearest(name, SPLIT_NAMES)}")
    return SPLIT_NAMES[name.lower()]


def _drop_links(frame: pd.DataFrame, root: Path) -> tuple[pd.DataFrame, list[dict[str, str]]]:
    """Rows without second names of one file, and those as refused. Raises `DataError` if split or class differ."""
    known = (frame["inode"] != 0).to_numpy()  # some file systems number nothing
    twice = frame[known & frame.duplicated(["device", "inode"], keep=False).to_numpy()]
    drop, refused = [], []
    for _, names in twice.groupby(["device", "inode"]):
        first = names.iloc[0]
        for at, other in names.iloc[1:].iterrows():
            if (first["split"], first["label"]) != (other["split"], other["label"]):
                raise DataError(
                    f"dataset.root: {first['path']!r} and {other['path']!r} are one file "
                    f"(splits: {first['split']}, {other['split']}); splits and classes must be disjoint"
                )
            drop.append(at)
            refused.append(_refusal(root / other["path"], f"the same file as {first['path']}"))
    return frame.drop(index=drop).reset_index(drop=True), refused
