"""What is wrong with one image file: read once, decoded fully, with the same rules as training."""

import hashlib
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

from PIL import ExifTags, Image, UnidentifiedImageError

from aaca.data.images import FORMATS, MAX_PIXELS, open_header, to_rgb8
from aaca.runtime.errors import DataError

Severity = Literal["refused", "warning"]

KINDS: dict[str, tuple[Severity, str]] = {
    "missing": ("refused", "the file is not there or may not be read"),
    "not_a_file": ("refused", "a folder, pipe or device"),
    "empty": ("refused", "zero bytes"),
    "not_an_image": ("refused", "no image format that is read"),
    "bomb": ("refused", "unpacks to far more than an image should"),
    "truncated": ("refused", "the end of the file is missing"),
    "undecodable": ("refused", "an image whose content is broken"),
    "cmyk": ("warning", "CMYK: converted without a colour profile"),
    "deep": ("warning", "more than 8 bits a channel: reduced to 8"),
    "exif_rotated": ("warning", "turned upright by its EXIF orientation"),
    "wrong_suffix": ("warning", "the content is of another format than the suffix says"),
    "animated": ("warning", "several frames: only the first is used"),
}
"""Kinds of findings about one file."""


@dataclass
class Inspected:
    """The findings about one file, {kind: detail}, and the SHA-256 of its bytes where it was asked for."""

    problems: dict[str, str] = field(default_factory=dict)
    sha256: bytes = b""


def inspect_file(path: Path, want_hash: bool, max_pixels: int = MAX_PIXELS) -> Inspected:
    """Decode one file and list what is unusual about it. Never raises for what a file holds."""
    found = Inspected()
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            found.problems["not_a_file"] = KINDS["not_a_file"][1]
        elif facts.st_size == 0:
            found.problems["empty"] = KINDS["empty"][1]
        else:
            with path.open("rb") as stream:
                found.problems.update(_inspect(stream, path.suffix.lower(), facts.st_size, max_pixels))
                if want_hash:
                    stream.seek(0)
                    found.sha256 = hashlib.file_digest(stream, "sha256").digest()
    except OSError as error:
        found.problems["missing"] = error.strerror or str(error)
    return found


def _inspect(stream: BinaryIO, suffix: str, size: int, max_pixels: int) -> dict[str, str]:
    try:
        # The image is left open on purpose: closing it would close the stream.
        image = open_header(stream, size, max_pixels)
    except UnidentifiedImageError:
        stream.seek(0)
        return {"not_an_image": f"starts with {stream.read(12)!r}; expected one of {', '.join(FORMATS)}"}
    except DataError as error:
        return {"bomb": str(error)}
    except MemoryError:
        raise
    except Exception as error:  # decoders fail on hostile bytes with whatever type they like
        return {"undecodable": _clause(error)}
    try:
        unusual = dict(_unusual(image, stream, suffix))
        image.load()
        to_rgb8(image)
    except MemoryError:
        raise
    except Exception as error:
        kind = "truncated" if "truncated" in str(error).lower() else "undecodable"
        return {kind: _clause(error)}
    return unusual


def _unusual(image: Image.Image, stream: BinaryIO, suffix: str) -> Iterator[tuple[str, str]]:
    """What the header shows that training will change or ignore."""
    kind = image.format or ""
    if suffix not in FORMATS[kind]:
        yield "wrong_suffix", f"{kind} named {suffix or 'without suffix'}"
    if image.mode == "CMYK":
        yield "cmyk", KINDS["cmyk"][1]
    depth = _depth(image, stream)
    if depth > 8:
        yield "deep", f"{depth} bits a channel"
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    if orientation in range(2, 9):
        yield "exif_rotated", f"orientation {orientation}"
    if kind != "MPO" and getattr(image, "is_animated", False):
        yield "animated", KINDS["animated"][1]


def _depth(image: Image.Image, stream: BinaryIO) -> int:
    """Bits a channel as stored: Pillow reads 16-bit RGB as 8-bit without saying so."""
    if image.format == "PNG":
        at = stream.tell()
        stream.seek(24)
        depth = stream.read(1)[0]
        stream.seek(at)
        return depth
    if image.format == "TIFF":
        return max(image.tag_v2.get(258, (8,)))  # type: ignore[attr-defined]
    return {"I": 32, "F": 32}.get(image.mode, 16 if image.mode.startswith("I;16") else 8)


def _clause(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
