"""Reading one image file safely: size cap, orientation, colour modes; never a truncated one."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from aaca.runtime.errors import DataError

MAX_PIXELS = 64_000_000
"""Images with more pixels are refused (a small file that unpacks to gigabytes is an attack or an accident)."""


def to_rgb8(image: Image.Image) -> Image.Image:
    """Upright 8-bit RGB: applies EXIF orientation, scales 16-bit grey to 8 bits, composes transparency on white."""
    image = ImageOps.exif_transpose(image)
    if image.mode in {"I", "I;16", "I;16B", "I;16L", "F"}:
        values = np.asarray(image, dtype=np.float32)
        top = 65535.0 if values.max(initial=0) > 255 else 255.0
        image = Image.fromarray(np.clip(values * (255.0 / top), 0, 255).astype(np.uint8))
    if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        image = Image.alpha_composite(white, rgba)
    return image.convert("RGB")


def open_image(path: Path, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode an image file to 8-bit RGB. Raises `DataError` with the file's name when it cannot or must not be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if image.width * image.height > max_pixels:
                    size = f"{image.width}×{image.height}"
                    raise DataError(f"{path}: {size} pixels; expected at most {max_pixels} (a decompression bomb?)")
                image.load()
                return to_rgb8(image)
    except DataError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: not a readable image ({error})") from error


def read_image(path: Path) -> np.ndarray:
    """The image as `[H, W, 3]` uint8. Raises `DataError` naming the file."""
    return np.asarray(open_image(path))
