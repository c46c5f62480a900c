"""Files that are never seen half-written: write beside the goal, flush to disk, then rename."""

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from aaca.runtime.errors import AacaError
from aaca.runtime.secrets import mask_values

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
"""Error numbers of a disk that is full or does not let us write."""


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text on every machine."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)


def digest(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it takes `path`'s place, on any failure it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically (UTF-8), known secrets masked."""
    with atomic_path(path) as temporary:
        temporary.write_text(mask_values(text), encoding="utf-8")


def read_json(path: Path) -> Any:
    """The value in a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def allocate_array(path: Path, dtype: str, shape: tuple[int, ...]) -> np.memmap:
    """A new zeroed `.npy` file, opened as a writable memory map, with its disk space reserved.

    Reserving turns a full disk into an `OSError` here instead of a bus error at some later write.
    """
    array: np.memmap = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate"):  # Linux; macOS has no such call
        with path.open("r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
    return array


def sync(path: Path) -> None:
    """Flush a file's or a folder's bytes to the disk, so that a rename after it never reveals an empty file."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def ensure_writable(folder: Path, key: str) -> None:
    """Create `folder` and try a write in it. Raises `AacaError` naming the configuration `key` that points there."""
    probe = folder / f".probe-{uuid.uuid4().hex[:8]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"aaca")
    except OSError as error:
        raise AacaError(f"{key}: cannot write to {folder} ({error.strerror}); expected a writable folder") from error
    finally:
        if folder.is_dir():
            probe.unlink(missing_ok=True)


def remove_tree(folder: Path) -> None:
    """Remove a folder and all below it; a folder that is not there is fine."""
    shutil.rmtree(folder, ignore_errors=True)
