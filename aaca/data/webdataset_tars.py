"""Images of tars in the layout of img2dataset (`00000.tar` with `000000001.jpg`, `.txt`, `.json`), read as a stream."""

import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image, UnidentifiedImageError

from aaca.data.images import FORMATS, IMAGE_SUFFIXES, MAX_PIXELS, open_header, to_rgb8
from aaca.data.listing import is_utf8, printable
from aaca.runtime.errors import DataError

SIDECARS = frozenset({".txt", ".json", ".cls"})
"""What lies beside an image of the same key: passed over, not refused."""

MAX_BYTES = 256 * 2**20
"""Larger members are refused unread: a header may claim any size."""

Refused = list[dict[str, str]]
"""Members that were left out, {path: "<tar>/<member>", reason}: what `Benchmark.refused` holds too."""


def list_tars(where: Path) -> list[Path]:
    """The `.tar` files of a folder, or those that a pattern (`cc3m/000[0-9]*.tar`) or a path names, by name.

    Raises `DataError` where there is none.
    """
    if where.is_dir():
        tars = sorted(where.glob("*.tar"), key=lambda path: path.name)
    else:
        tars = [where] if where.is_file() else sorted(where.parent.glob(where.name), key=lambda path: path.name)
    if not tars:
        raise DataError(f"{where}: no .tar file; expected a folder of them, one of them, or a pattern")
    return tars


def tar_images(
    where: Path,
    refused: Refused,
    after: str | None = None,
    rank: int = 0,
    world: int = 1,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[tuple[str, Image.Image]]:
    """Key ("<tar's stem>/<sample's key>") and upright RGB image of every sample, tar by tar, by name.

    A rank reads every world-th tar. What cannot or must not be decoded is appended to `refused`, and so is a tar that
    is damaged (what comes before the damage is read). Nothing is unpacked to disk, so names cannot lead anywhere.

    `after` is the key of the last sample that is done: all up to it are passed over undecoded, and not listed again.
    Raises `DataError` where it is not among this rank's samples.
    """
    tars = list_tars(where)[rank::world]
    if after is not None:
        stems = [tar.stem for tar in tars]
        stem = after.split("/", 1)[0]
        if stem not in stems:
            raise DataError(f"{where}: no tar of rank {rank} of {world} holds the sample {after!r} to go on after")
        tars = tars[stems.index(stem) :]
    for tar in tars:
        yield from _images_of(tar, refused, after if after and after.startswith(f"{tar.stem}/") else None, max_pixels)


def _images_of(path: Path, refused: Refused, after: str | None, max_pixels: int) -> Iterator[tuple[str, Image.Image]]:
    seen: set[str] = set()
    waiting = after is not None
    try:
        with path.open("rb") as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                key, suffix = _name(path, member.name)
                if member.isdir() or suffix in SIDECARS:
                    continue
                if waiting:
                    seen.add(key)
                    waiting = key != after
                    continue
                try:
                    image = _image(tar, member, key, suffix, seen, max_pixels)
                except DataError as error:
                    refused.append({"path": f"{path}/{printable(member.name[:200])}", "reason": str(error)})
                    continue
                seen.add(key)
                yield key, image
            _check_end(path, tar.offset)
    except (tarfile.TarError, EOFError) as error:
        refused.append({"path": str(path), "reason": f"a damaged tar: {error}"})
    if waiting:
        raise DataError(f"{path}: no sample {after!r} to go on after")


def _name(path: Path, member: str) -> tuple[str, str]:
    """Key of a sample, and the suffix (lower case) from the first dot of the member's last part."""
    name = PurePosixPath(member)
    base, dot, rest = name.name.partition(".")
    return f"{path.stem}/{PurePosixPath(name.parent, base).as_posix()}", (dot + rest).lower()


def _image(
    tar: tarfile.TarFile, member: tarfile.TarInfo, key: str, suffix: str, seen: set[str], max_pixels: int
) -> Image.Image:
    """The decoded image of a member. Raises `DataError` (no name) where it must not or cannot be read."""
    if not member.isfile():
        raise DataError("not_a_file: a link or a device; expected files alone")
    if not is_utf8(member.name):
        raise DataError("not_an_image: its name is not UTF-8")
    if suffix not in IMAGE_SUFFIXES:
        raise DataError(f"not_an_image: of suffix {suffix[:20]!r}; expected an image, or {', '.join(sorted(SIDECARS))}")
    if key in seen:
        raise DataError("repeated: the tar holds another image of this key")
    if not 0 < member.size <= MAX_BYTES:
        raise DataError(f"{'bomb' if member.size else 'empty'}: {member.size} bytes; expected 1…{MAX_BYTES}")
    stream = tar.extractfile(member)
    assert stream is not None  # a regular file
    return _decode(stream.read(), max_pixels)


def _decode(content: bytes, max_pixels: int) -> Image.Image:
    try:
        with open_header(BytesIO(content), len(content), max_pixels) as image:
            image.load()
            return to_rgb8(image)
    except MemoryError:
        raise
    except DataError as error:
        raise DataError(f"bomb: {error}") from error
    except UnidentifiedImageError as error:
        raise DataError(f"not_an_image: starts with {content[:12]!r}; expected one of {', '.join(FORMATS)}") from error
    except Exception as error:  # decoders fail on hostile bytes with whatever type they like
        kind = "truncated" if "truncated" in str(error).lower() else "undecodable"
        raise DataError(f"{kind}: {' '.join(str(error).split()) or type(error).__name__}") from error


def _check_end(path: Path, offset: int) -> None:
    # `tarfile` takes a broken header after the first member for the end: samples behind it would be lost unsaid
    with path.open("rb") as stream:
        stream.seek(offset)
        if stream.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise tarfile.ReadError(f"no valid header at byte {offset}")


class Tars:
    """`dataset=cc3m`: unlabelled images of tars, to learn concepts from.

    Args:
        root: a folder of tars, or a pattern.

    """

    def __init__(self, root: str) -> None:
        self.root = root

    def fingerprint(self) -> dict[str, Any]:
        """Names and sizes of the tars. Raises `DataError` where there is none."""
        return {"dataset": "tars", "files": [[tar.name, tar.stat().st_size] for tar in list_tars(Path(self.root))]}
