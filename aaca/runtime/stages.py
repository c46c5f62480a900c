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
from aaca.runtime.files import DISK_ERRORS, digest, ensure_writable, remove_tree, sync, write_json, write_text
from aaca.runtime.ranks import current
from aaca.runtime.secrets import redacted

log = logging.getLogger(__name__)
MANIFEST = "manifest.json"
PROGRESS = "resume"
"""Folder inside an unfinished stage with what it can go on from; not part of the published stage."""
VISIBLE = 60.0  # seconds until a file of rank 0 has to be seen on every node
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
    """All stages below `root/stages`. Runs of a sweep, and concurrent sweeps, share it: one makes, the others wait.

    `resume`: whether what an interrupted making left (a folder `PROGRESS` in its work folder) is handed to the next.
    """

    root: Path
    resume: bool = True
    history: list[Stage] = field(default_factory=list)  # the stages this run touched, in order

    def stage(
        self,
        name: str,
        inputs: Mapping[str, Any],
        make: Callable[[Path], None],
        about: str = "",
        together: bool = False,
    ) -> Stage:
        """Return the stage with these inputs, calling `make(folder)` for it where nobody has published it yet.

        `about` says in the log which one it is.
        `inputs` must hold exactly what influences the result (upstream stages enter by their key). If `make` raises or
        the process dies, nothing is published. Then the next call starts the stage afresh, unless `make` kept a folder
        `PROGRESS` inside `folder`: it finds all it left.

        All ranks call this. Rank 0 looks, locks and publishes; `make` runs on rank 0 alone, or, `together`, on all.
        Raises `AacaError` when the ranks come with different keys.
        """
        key = digest({"stage": name, "inputs": inputs, "aaca": __version__})
        folder = self.root / "stages" / name / key[:16]
        ranks = current()
        if ranks.rank == 0:
            found = self._lead(name, folder, key, inputs, make, about, together)
            ranks.share({"key": key, "seconds": found.seconds, "reused": found.reused})
        else:
            found = self._follow(name, folder, key, make)
        log.info(
            "stage %-16s %s  %s %.1f s",
            f"{name} {about}",
            key[:8],
            "ready, made in" if found.reused else "made in",
            found.seconds,
        )
        self.history.append(found)
        return found

    def _lead(
        self,
        name: str,
        folder: Path,
        key: str,
        inputs: Mapping[str, Any],
        make: Callable[[Path], None],
        about: str,
        together: bool,
    ) -> Stage:
        found = self._load(name, folder, key)
        if found is not None:
            return found

        def called(work: Path) -> None:
            if together:
                current().share({"key": key, "make": str(work)})
            make(work)
            if together:
                current().exchange("made")  # nobody is in the folder any more when it is renamed

        ensure_writable(folder.parent, "paths.root")
        with self._lock(folder):
            log.info("stage %-16s %s  …", f"{name} {about}", key[:8])
            return self._load(name, folder, key) or self._publish(name, folder, key, inputs, called)

    def _follow(self, name: str, folder: Path, key: str, make: Callable[[Path], None]) -> Stage:
        ranks = current()
        while True:
            message = ranks.share()
            if message["key"] != key:
                raise AacaError(
                    f"stage {name}: rank 0 has key {message['key'][:16]}…, rank {ranks.rank} {key[:16]}…; "
                    "ranks of one run must do the same"
                )
            if "make" not in message:
                _wait_for(folder / MANIFEST)
                return Stage(name, folder, key, message["seconds"], message["reused"])
            _wait_for(Path(message["make"]))
            make(Path(message["make"]))
            ranks.exchange("made")

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
        if not (self.resume and (work / PROGRESS).is_dir()):
            remove_tree(work)  # what a killed run left; the lock says that nobody is at it now
        work.mkdir(parents=True, exist_ok=True)
        began, started = time.perf_counter() - spent(work), time.strftime("%Y-%m-%dT%H:%M:%S%z")
        try:
            make(work)
            seconds = time.perf_counter() - began
            remove_tree(work / PROGRESS)
            files = sorted(str(path.relative_to(work)) for path in work.rglob("*") if path.is_file())
            manifest = {
                "stage": name,
                "key": key,
                "inputs": redacted(inputs),
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
            _tidy(work)
            if error.errno not in DISK_ERRORS:
                raise
            raise AacaError(
                f"stage {name}: could not be written below {folder.parent} ({error.strerror or error}); "
                "nothing was published; free space or set paths.root= to another folder, then run again"
            ) from error
        except BaseException:
            _tidy(work)
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


def spent(work: Path) -> float:
    """Seconds that earlier attempts have put into what is below `PROGRESS`."""
    file = work / PROGRESS / "seconds"
    return float(file.read_text(encoding="utf-8")) if file.is_file() else 0.0


def note_spent(work: Path, seconds: float) -> None:
    """Note, with what is saved below `PROGRESS`, the seconds that all attempts have put into it."""
    write_text(work / PROGRESS / "seconds", f"{seconds:.3f}")


def _tidy(work: Path) -> None:
    # after a failure: keep what the next attempt can go on from
    if not (work / PROGRESS).is_dir():
        remove_tree(work)


def _wait_for(path: Path) -> None:
    # a network file system may show another machine's files a little later
    began = time.monotonic()
    while not path.exists():
        if time.monotonic() - began > VISIBLE:
            raise AacaError(
                f"paths.root: rank {current().rank} cannot see {path}, which rank 0 has made; expected a folder that "
                "all nodes share"
            )
        time.sleep(0.05)


def _versions() -> dict[str, str]:
    return {name: version(name) for name in VERSIONED}
