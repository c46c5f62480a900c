"""Checkpoints of a fit under way: verified after writing, the last two kept, refused when damaged or foreign."""

import hashlib
import logging
import pickle
import zipfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

import torch
from lightning_fabric.plugins import CheckpointIO

from aaca.runtime.errors import AacaError, ConfigError, DataError
from aaca.runtime.files import file_sha256, read_json, sync, write_json

log = logging.getLogger(__name__)
KEPT = 2
SUFFIX = ".ckpt"


class _Hashing:
    """A binary file that knows the SHA-256 and the size of what was written to it."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream, self.sha, self.size = stream, hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self.sha.update(data)
        self.size += len(data)
        return self.stream.write(data)

    def flush(self) -> None:
        self.stream.flush()


class VerifiedCheckpoints(CheckpointIO):
    """How a Trainer saves and loads: `<update>.ckpt` and, written last, `<update>.json` with its size and SHA-256.

    `fit` says which fit it belongs to (any JSON). A file that does not read back as it was written raises `AacaError`.
    """

    def __init__(self, fit: Mapping[str, Any]) -> None:
        self.fit = dict(fit)

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write, flush to the disk, read back and compare; then drop all but the last `KEPT`."""
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(".writing")
        try:
            with temporary.open("wb") as stream:
                hashing = _Hashing(stream)
                torch.save(checkpoint, hashing)  # type: ignore[arg-type]
            sync(temporary)
            note = {"size": hashing.size, "sha256": hashing.sha.hexdigest(), "versions": versions(), "fit": self.fit}
            problem = damage(temporary, note)
            if problem:
                raise AacaError(f"{file}: the checkpoint did not reach the disk whole ({problem})")
            temporary.replace(file)
            write_json(file.with_suffix(".json"), note)
        except (OSError, RuntimeError) as error:
            stop = _interruption(error)
            if stop is not None:
                raise stop from None
            reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())[:200]
            raise AacaError(
                f"{file}: the checkpoint could not be saved ({reason}); older ones are kept; "
                "free space, then run the same command again"
            ) from error
        finally:
            temporary.unlink(missing_ok=True)
        for old in found(file.parent)[KEPT:]:
            self.remove_checkpoint(old)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """The checkpoint, on the CPU. Plain tensors and numbers only: nothing in the file is ever executed."""
        file = Path(path)
        problem = damage(file, read_json(file.with_suffix(".json")))
        if problem:
            raise DataError(f"{file}: {problem}")
        loaded: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        return loaded

    def remove_checkpoint(self, path: Any) -> None:
        """Remove the file and its note; the note first, since a file without one does not count."""
        Path(path).with_suffix(".json").unlink(missing_ok=True)
        Path(path).unlink(missing_ok=True)


def _interruption(error: BaseException) -> BaseException | None:
    # SIGTERM or Ctrl-C between two writes: torch closes the half-written file and complains about that instead
    seen = error.__context__
    while seen is not None and not isinstance(seen, (SystemExit, KeyboardInterrupt)):
        seen = seen.__context__
    return seen


def versions() -> dict[str, str]:
    """Versions on which the bits of a resumed fit depend."""
    return {name: version(name) for name in ("torch", "timm", "pytorch-lightning")}


def found(folder: Path) -> list[Path]:
    """Checkpoints in `folder` that have a note, newest first (names hold the update; clocks do not matter)."""
    return sorted((file for file in folder.glob(f"*{SUFFIX}") if file.with_suffix(".json").is_file()), reverse=True)


def damage(file: Path, note: Mapping[str, Any]) -> str | None:
    """What is wrong with `file` by its note: size, header, hash; None when it is whole."""
    size = file.stat().st_size
    if size != note.get("size"):
        return f"{size} bytes, expected {note.get('size')}"
    if not zipfile.is_zipfile(file):
        return "not a torch file (no zip directory)"
    if file_sha256(file) != note.get("sha256"):
        return "its SHA-256 is not the one that was written"
    return None


def newest(folder: Path, fit: Mapping[str, Any], force: bool = False) -> Path | None:
    """The newest whole checkpoint of `folder`; damaged ones are named and passed over.

    Raises `ConfigError` when it belongs to another fit or was made by other versions, unless `force` (versions only:
    weights trained under other settings are never taken over).
    """
    for file in found(folder):
        try:
            note = read_json(file.with_suffix(".json"))
            problem = damage(file, note)
            if not problem:
                torch.load(file, map_location="meta", weights_only=True, mmap=True)
        except (OSError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
            problem = " ".join(str(error).split())[:200]
        if problem:
            log.warning("%s: damaged (%s); the one before it is used", file, problem)
            continue
        if note["fit"] != dict(fit):
            odd = [key for key in {**fit, **note["fit"]} if fit.get(key) != note["fit"].get(key)]
            raise ConfigError(
                f"{file}: made by a fit with other {', '.join(sorted(odd))}; expected "
                f"{ {key: fit.get(key) for key in odd} }, got { {key: note['fit'].get(key) for key in odd} }; "
                "resume=never starts afresh"
            )
        if note["versions"] != versions() and not force:
            raise ConfigError(
                f"resume.force: {file} was written by {note['versions']}, now it is {versions()}, and the bits may "
                "differ; resume.force=true goes on, resume=never starts the stage afresh"
            )
        return file
    return None
