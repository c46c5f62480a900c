"""Columns of numbers and text in one folder: each a plain file of bytes, written row after row and read as a map."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from aaca.runtime.errors import DataError
from aaca.runtime.files import file_sha256, sync

Schema = Mapping[str, tuple[str, tuple[int, ...]]]
"""{name: (numpy type, shape of a row)} of the columns."""


class ColumnWriter:
    """Appends rows to the columns of `folder`; `close` returns what `read_columns` needs."""

    def __init__(self, folder: Path, schema: Schema) -> None:
        self.folder, self.schema = folder, schema
        self.lengths = dict.fromkeys(schema, 0)
        self.streams: dict[str, BinaryIO] = {name: _file(folder, name).open("xb") for name in schema}

    def add(self, name: str, values: Any) -> tuple[int, int]:
        """Append rows; returns where they begin and how many. Raises `DataError` where a number does not fit."""
        dtype, row = self.schema[name]
        rows = np.asarray(values).reshape(-1, *row)
        with np.errstate(over="ignore", invalid="ignore"):
            stored = rows.astype(dtype)
        same = np.isfinite(stored) if stored.dtype.kind == "f" else stored == rows
        if not np.all(same):
            raise DataError(f"{name}: {rows[~same].flat[0]} does not fit {dtype}")
        self.streams[name].write(np.ascontiguousarray(stored).tobytes())
        first = self.lengths[name]
        self.lengths[name] += len(rows)
        return first, len(rows)

    def add_text(self, name: str, text: str) -> tuple[int, int]:
        """Append UTF-8; returns the position of the first byte, and how many."""
        return self.add(name, np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8))

    def close(self) -> dict[str, dict[str, Any]]:
        """Finish all files; returns {name: dtype, shape, sha256}."""
        self.abandon()
        about = {}
        for name, (dtype, row) in self.schema.items():
            file = _file(self.folder, name)
            sync(file)
            about[name] = {"dtype": dtype, "shape": [self.lengths[name], *row], "sha256": file_sha256(file)}
        return about

    def abandon(self) -> None:
        """Close the files as they are."""
        for stream in self.streams.values():
            stream.close()


def read_columns(folder: Path, about: Mapping[str, Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """The columns as read-only maps. Raises `DataError` where a file is missing or not as long as `about` says."""
    columns = {}
    for name, one in about.items():
        file, dtype, shape = _file(folder, name), np.dtype(one["dtype"]), tuple(one["shape"])
        wanted = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        found = file.stat().st_size if file.is_file() else None
        if found != wanted:
            raise DataError(f"{file}: {'missing' if found is None else f'{found} bytes'}; expected {wanted} bytes")
        # a plain view of the map: slices of it are several times cheaper than those of numpy's own class of maps
        columns[name] = np.asarray(np.memmap(file, dtype, "r", shape=shape)) if wanted else np.empty(shape, dtype)
    return columns


def check_columns(folder: Path, about: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise `DataError` where a column's bytes are not those that were written."""
    for name, one in about.items():
        if file_sha256(_file(folder, name)) != one["sha256"]:
            raise DataError(f"{_file(folder, name)}: its bytes have changed since it was written")


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.bin"
