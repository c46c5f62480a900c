"""Reading one image file safely: known formats only, size cap, orientation, colour modes; never a truncated one."""

import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps

from aaca.runtime.errors import DataError

MAX_PIXELS = 64_000_000
"""Images with more pixels are refused (a small file that unpacks to gigabytes is an attack or an accident)."""

BOMB_PIXELS = 16_000_000
BOMB_RATIO = 500
"""Above `BOMB_PIXELS`, more unpacked bytes than this per byte of file are refused too: no photograph packs so well."""

FORMATS: dict[str, frozenset[str]] = {
    "JPEG": frozenset({".jpg", ".jpeg", ".jpe", ".jfif"}),
    "MPO": frozenset({".jpg", ".jpeg", ".mpo"}),  # what some cameras write as .jpg
    "PNG": frozenset({".png", ".apng"}),
    "WEBP": frozenset({".webp"}),
    "BMP": frozenset({".bmp"}),
    "GIF": frozenset({".gif"}),
    "TIFF": frozenset({".tif", ".tiff"}),
    "PPM": frozenset({".ppm", ".pgm", ".pbm", ".pnm"}),
}
"""Formats that are read, and their usual suffixes. No other decoder is tried (that of EPS would start a program)."""

OPENERS = tuple(name for name in FORMATS if name != "MPO")  # Pillow opens MPO through JPEG

IMAGE_SUFFIXES = frozenset().union(*FORMATS.values())
"""Suffixes (lower case) under which a file of a folder counts as an image."""

LYING = frozenset({5, 6, 7, 8})
"""EXIF orientations that turn an image by a quarter."""

# `open_header` checks sizes itself, and the scan reports odd files by name, which Pillow's warnings do not. The filters
# are set once, since `warnings.catch_warnings` is not safe in threads.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.TiffImagePlugin")


def open_header(stream: BinaryIO, file_size: int, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The image with its header read, no pixel decoded. Raises `DataError` (no file name) for a decompression bomb."""
    try:
        image = Image.open(stream, formats=OPENERS)
    except Image.DecompressionBombError as error:
        raise DataError(f"more than {max_pixels} pixels (a decompression bomb?)") from error
    pixels = image.width * image.height
    size = f"{image.width}×{image.height} pixels"
    if pixels > max_pixels:
        raise DataError(f"{size}; expected at most {max_pixels} (a decompression bomb?)")
    if pixels > BOMB_PIXELS and pixels * len(image.getbands()) > BOMB_RATIO * file_size:
        raise DataError(f"{size} from {file_size} bytes (a decompression bomb?)")
    return image


def to_rgb8(image: Image.Image) -> Image.Image:
    """Upright 8-bit RGB: applies EXIF orientation, scales deeper grey to 8 bits, composes transparency on white."""
    image = ImageOps.exif_transpose(image)
    if image.mode[0] in "IF":
        values = np.asarray(image, dtype=np.float32)
        image = Image.fromarray(np.clip(values * (255.0 / _white(image.mode, values)), 0, 255).astype(np.uint8))
    if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        image = Image.alpha_composite(white, rgba)
    return image.convert("RGB")


def _white(mode: str, values: np.ndarray) -> float:
    """The value that stands for white: known for 16-bit grey, else the least usual one that no pixel exceeds."""
    if mode.startswith("I;16"):
        return 65535.0
    top = float(values.max(initial=0.0))
    usual = (1.0, 255.0, 65535.0) if mode == "F" else (255.0, 65535.0)
    return next((white for white in usual if top <= white), top)


def open_image(path: Path, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode an image file to 8-bit RGB. Raises `DataError` with the file's name when it cannot or must not be read."""
    with _opened(path, max_pixels) as image:
        image.load()
        return to_rgb8(image)


def upright_size(path: Path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(width, height) of the image as `open_image` shows it, from its header. Raises `DataError` naming the file."""
    with _opened(path, max_pixels) as image:
        if image.format == "TIFF":
            image.load()  # Pillow turns these itself, when it loads them at the latest
        lying = image.getexif().get(ExifTags.Base.Orientation) in LYING
        return (image.height, image.width) if lying else image.size


@contextmanager
def _opened(path: Path, max_pixels: int) -> Iterator[Image.Image]:
    # every failure within is a `DataError` that names the file
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):  # a named pipe would block for ever
            raise DataError("not a regular file")
        with path.open("rb") as stream, open_header(stream, facts.st_size, max_pixels) as image:
            yield image
    except MemoryError:
        raise
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except Exception as error:  # decoders fail on hostile bytes with whatever type they like
        raise DataError(f"{path}: not a readable image ({error})") from error


def read_image(path: Path) -> np.ndarray:
    """The image as `[H, W, 3]` uint8. Raises `DataError` naming the file."""
    return np.asarray(open_image(path))
