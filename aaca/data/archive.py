"""Unpacking an archive that nobody vouches for: regular files below one folder, within bounds, or nothing at all."""

import gzip
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from aaca.runtime.errors import DataError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
MAX_RATIO = 100
"""Unpacked bytes per byte of archive, above `FREE_BYTES`: images are compressed already, so that is a bomb."""
FREE_BYTES = 64 * 2**20
MAX_FILES = 20_000_000
_DAMAGED = (
    *(tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, lzma.LZMAError, zlib.error),
    *(EOFError, NotImplementedError, ValueError, RuntimeError),  # the last: an encrypted zip
)
CHUNK = 2**20


@dataclass(frozen=True)
class _Member:
    name: str
    is_folder: bool
    is_file: bool
    open: Callable[[], IO[bytes]]


def is_archive(path: Path) -> bool:
    """Whether the name says so."""
    return path.name.lower().endswith(SUFFIXES)


def unpack(archive: Path, folder: Path) -> int:
    """Unpack all files into `folder` (made; must not exist) and return their number.

    Raises `DataError` naming the member, and leaves no `folder`, on a link, a device, an absolute path, a path with
    `..`, a name that occurs twice, a damaged member, or more unpacked bytes than `MAX_RATIO` allows (counted while
    unpacking: headers may lie).
    """
    folder.mkdir(parents=True)
    allowed = max(FREE_BYTES, MAX_RATIO * archive.stat().st_size)
    count = files = total = 0
    try:
        with _members(archive) as members:
            for member in members:
                goal = folder / _safe(archive, member)
                if (count := count + 1) > MAX_FILES:
                    raise DataError(f"{archive}: more than {MAX_FILES} files and folders")
                if member.is_folder:
                    goal.mkdir(parents=True, exist_ok=True)
                    continue
                goal.parent.mkdir(parents=True, exist_ok=True)
                with member.open() as source, goal.open("xb") as target:
                    while chunk := source.read(CHUNK):
                        total += len(chunk)
                        if total > allowed:
                            raise DataError(f"{archive}: unpacks to more than {allowed} bytes (an archive bomb?)")
                        target.write(chunk)
                files += 1
    except (FileExistsError, NotADirectoryError) as error:
        shutil.rmtree(folder)
        raise DataError(f"{archive}: {member.name[:200]!r} occurs twice") from error
    except _DAMAGED as error:
        shutil.rmtree(folder)
        raise DataError(f"{archive}: not a readable archive ({error})") from error
    except OSError as error:
        shutil.rmtree(folder)
        if error.errno is not None:
            raise
        raise DataError(f"{archive}: not a readable archive ({error})") from error  # what bz2 says of damage
    except BaseException:
        shutil.rmtree(folder)
        raise
    return files


def _safe(archive: Path, member: _Member) -> PurePosixPath:
    path = PurePosixPath(member.name)
    odd = "\\" in member.name or "\0" in member.name or (path.parts and path.parts[0].endswith(":"))
    if path.is_absolute() or ".." in path.parts or not path.parts or odd:
        raise DataError(f"{archive}: {member.name[:200]!r} leads out of the archive; nothing was unpacked")
    if not (member.is_file or member.is_folder):
        raise DataError(f"{archive}: {member.name[:200]!r} is a link or a device; expected files and folders alone")
    return path


@contextmanager
def _members(archive: Path) -> Iterator[Iterator[_Member]]:
    if archive.name.lower().endswith(".zip"):
        with zipfile.ZipFile(archive) as opened:
            yield map(partial(_zip_member, opened), opened.infolist())
    else:
        with tarfile.open(archive) as tar:
            yield _tar_members(tar)


def _zip_member(opened: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the archive was made on a system without such kinds
    plain = kind in (0, stat.S_IFREG, stat.S_IFDIR)
    return _Member(info.filename, plain and info.is_dir(), plain and not info.is_dir(), partial(opened.open, info))


def _tar_members(tar: tarfile.TarFile) -> Iterator[_Member]:
    yield from map(partial(_tar_member, tar), tar)
    while tar.fileobj is not None and tar.fileobj.read(CHUNK):  # to the end, where the checksum is
        pass


def _tar_member(tar: tarfile.TarFile, info: tarfile.TarInfo) -> _Member:
    def content() -> IO[bytes]:
        stream = tar.extractfile(info)
        assert stream is not None  # asked of regular files alone
        return stream

    return _Member(info.name, info.isdir(), info.isfile(), content)
