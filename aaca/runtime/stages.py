"""Stages are artefacts: a folder made once, published by atomic rename, found again by what went into it."""

import json
import logging
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from aaca import __version__
from aaca.runtime.errors import AacaError
from aaca.runtime.files import DISK_ERRORS, digest, ensure_writable, remove_tree, sync, write_json

log = logging.getLogger(__name__)
MANIFEST = "manifest.json"
VERSIONED = ("torch", "timm", "pytorch-lightning", "pillow", "numpy")


@dataclass(frozen=True)
class Stage:
    """A published stage: its folder, its key, and what it cost to make (seconds, whether it was found ready)."""

    name: str
    folder: Path
    key: str
    seconds: float
    reused: bool


@dataclass
class StageCache:
    """All stages below `root/stages`. Runs of a sweep, and concurrent sweeps, share it: one makes, the others wait."""

    root: Path
    history: list[Stage] = field(default_factory=list)  # the stages this run touched, in order

    def stage(self, name: str, inputs: Mapping[str, Any], make: Callable[[Path], None], about: str = "") -> Stage:
        """Return the stage with these inputs, calling `make(folder)` for it where nobody has published it yet.

        `about` says in the log which one it is.
        `inputs` must hold exactly what influences the result (upstream stages enter by their key). If `make` raises or
        the process dies, nothing is published and the next call starts the stage afresh.
        """
        key = digest({"stage": name, "inputs": inputs, "aaca": __version__})
        folder = self.root / "stages" / name / key[:16]
        found = self._load(name, folder, key)
        if found is None:
            ensure_writable(folder.parent, "paths.root")
            with self._lock(folder):
                log.info("stage %-16s %s  …", f"{name} {about}", key[:8])
                found = self._load(name, folder, key) or self._publish(name, folder, key, inputs, make)
        log.info(
            "stage %-16s %s  %s %.1f s",
            f"{name} {about}",
            key[:8],
            "ready, made in" if found.reused else "made in",
            found.seconds,
        )
        self.history.append(found)
        return found

    def _load(self, name: str, folder: Path, key: str) -> Stage | None:
        file = folder / MANIFEST
        if not file.is_file():
            return None
        try:
            manifest = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            log.warning("stage %s: %s is damaged; the stage is made again", name, file)
            return None
        if manifest["key"] != key:
            raise AacaError(
                f"{file}: holds key {manifest['key'][:16]}…, expected {key[:16]}…; remove the folder {folder}"
            )
        missing = [entry for entry in manifest["files"] if not (folder / entry).is_file()]
        if missing:
            log.warning("stage %s at %s lost %s; it is made again", name, folder, missing[0])
            return None
        return Stage(name, folder, key, manifest["seconds"], reused=True)

    def _publish(
        self, name: str, folder: Path, key: str, inputs: Mapping[str, Any], make: Callable[[Path], None]
    ) -> Stage:
        work = folder.with_name(f".{folder.name}.work")
        remove_tree(work)  # what a killed run left; the lock says that nobody is at it now
        work.mkdir(parents=True)
        began, started = time.perf_counter(), time.strftime("%Y-%m-%dT%H:%M:%S%z")
        try:
            make(work)
            seconds = time.perf_counter() - began
            files = sorted(str(path.relative_to(work)) for path in work.rglob("*") if path.is_file())
            manifest = {
                "stage": name,
                "key": key,
                "inputs": inputs,
                "files": files,
                "started": started,
                "seconds": round(seconds, 3),
                "versions": {"aaca": __version__, "python": platform.python_version(), **_versions()},
            }
            write_json(work / MANIFEST, manifest)
            for file in files:
                sync(work / file)
            sync(work)
            remove_tree(folder)  # a damaged one; the lock says that nobody else is replacing it
            work.rename(folder)
            sync(folder.parent)
        except OSError as error:
            remove_tree(work)
            if error.errno not in DISK_ERRORS:
                raise
            raise AacaError(
                f"stage {name}: could not be written below {folder.parent} ({error.strerror or error}); "
                "nothing was published; free space or set paths.root= to another folder, then run again"
            ) from error
        except BaseException:
            remove_tree(work)
            raise
        return Stage(name, folder, key, seconds, reused=False)

    @contextmanager
    def _lock(self, folder: Path) -> Iterator[None]:
        lock = FileLock(folder.with_name(f".{folder.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info("stage at %s is being made by another process; waiting for it", folder)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()


def _versions() -> dict[str, str]:
    return {name: version(name) for name in VERSIONED}
