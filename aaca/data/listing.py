"""Listing image files under a folder without opening one: names, sizes and times of millions of files."""

import hashlib
import os
import stat
from array import array
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from aaca.data.images import IMAGE_SUFFIXES

FACTS = ("size", "mtime_ns", "device", "inode")
Identity = tuple[int, int]  # device, inode: two names with equal identities are one file or folder


@dataclass
class Listing:
    """Image files found, and what was left out."""

    frame: pd.DataFrame  # path (relative to the root, with "/"), size (bytes), mtime_ns, device, inode
    refused: list[dict[str, str]] = field(default_factory=list)  # {path, reason}


def digest_files(frame: pd.DataFrame) -> str:
    """SHA-256 (hex) over path, size and time of every file of a listing: a changed file changes it."""
    total = hashlib.sha256()
    for path, size, mtime in zip(frame["path"], frame["size"], frame["mtime_ns"], strict=True):
        total.update(f"{path}\0{size}\0{mtime}\0".encode())
    return total.hexdigest()


def printable(path: str) -> str:
    """A file name that any text file can hold: undecodable bytes are written as escapes."""
    return path.encode("utf-8", "backslashreplace").decode()


def is_utf8(path: str) -> bool:
    """Whether every byte of a file name could be decoded."""
    return path.isascii() or printable(path) == path


def folders_in(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the usable sub-folders (links followed) and of everything else directly in `folder`, both sorted."""
    folders: list[str] = []
    others: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            usable = entry.is_dir() and not entry.name.startswith(".") and is_utf8(entry.name)
            (folders if usable else others).append(entry.name)
    return sorted(folders), sorted(others)


class _Walk:
    """One walk: the files' facts are gathered in compact columns, 32 bytes a file beside its name."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.names: list[str] = []
        self.facts = {name: array(kind) for name, kind in zip(FACTS, "qqQQ", strict=True)}
        self.refused: list[dict[str, str]] = []

    def refuse(self, path: str, reason: str) -> None:
        self.refused.append({"path": printable(str(self.root / path)), "reason": reason})

    def file(self, path: str, facts: os.stat_result) -> None:
        suffix = os.path.splitext(path)[1].lower()  # noqa: PTH122 (a Path a file would double the time)
        if not stat.S_ISREG(facts.st_mode):
            self.refuse(path, "not a regular file")
        elif suffix not in IMAGE_SUFFIXES:
            self.refuse(path, f"suffix {suffix!r} is not one of an image")
        elif not is_utf8(path):
            self.refuse(path, "the name is not UTF-8")
        else:
            self.names.append(path)
            values = (facts.st_size, facts.st_mtime_ns, facts.st_dev, facts.st_ino)
            for column, value in zip(self.facts.values(), values, strict=True):
                column.append(value)

    def folder(self, at: str, above: frozenset[Identity], deep: bool) -> None:
        try:
            facts = os.stat(self.root / at)  # noqa: PTH116 (as above)
            entries = list(os.scandir(self.root / at))
        except OSError as error:
            return self.refuse(at, f"the folder cannot be read ({error.strerror})")
        here = (facts.st_dev, facts.st_ino)
        if here in above:
            return self.refuse(at, "a link to a folder above it")
        for entry in sorted(entries, key=lambda entry: entry.name):
            path = f"{at}/{entry.name}" if at else entry.name
            if entry.name.startswith("."):
                self.refuse(path, "hidden")
                continue
            try:
                is_folder, facts = entry.is_dir(), entry.stat()
            except OSError as error:
                self.refuse(path, f"cannot be read ({error.strerror})")
                continue
            if not is_folder:
                self.file(path, facts)
            elif deep:
                self.folder(path, above | {here}, deep)
        return None

    def listing(self) -> Listing:
        facts = {name: np.asarray(column) for name, column in self.facts.items()}
        return Listing(pd.DataFrame({"path": pd.Series(self.names, dtype="str"), **facts}), self.refused)


def list_files(root: Path, folder: str, deep: bool = True) -> Listing:
    """Image files in `root/folder` (and, where `deep`, below it), sorted folder by folder; links are followed.

    Hidden names, other suffixes, unreadable entries and looping links are listed as refused, with the reason.
    """
    walk = _Walk(root)
    walk.folder(folder, frozenset(), deep)
    return walk.listing()


def stat_files(root: Path, paths: list[str]) -> Listing:
    """The same for files named in a manifest, in its order; a path that leaves `root` by `..` is refused."""
    walk = _Walk(root)
    for path in paths:
        inside = os.path.normpath(path)
        if os.path.isabs(inside) or inside.split("/")[0] == "..":  # noqa: PTH117
            walk.refuse(path, "lies outside dataset.root")
            continue
        try:
            facts = os.stat(root / path)  # noqa: PTH116
        except (OSError, ValueError) as error:
            walk.refuse(path, f"cannot be read ({getattr(error, 'strerror', None) or error})")
        else:
            walk.file(path, facts)
    return walk.listing()
