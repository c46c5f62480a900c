"""Pictures of neurons for a page: small photos, and over them a shade that is open where the neuron fires."""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from aaca.evaluate.explain_figures import plain
from aaca.evaluate.neuron_view import Tile
from aaca.evaluate.story import DARKEST

SIDE = 96  # pixels of a tile's side on the page
FINEST = 16  # cells of a shade's side: browsers smooth it, and a page holds hundreds
QUALITY = 80  # of WEBP
LONGEST = 44  # letters of a caption


def tile_context(tile: Tile) -> dict[str, Any]:
    """What the template needs of a tile: photo and shade apart, so that the shade can be switched off."""
    return {
        "uri": photo_uri(tile.image),
        "shade": "" if tile.mask is None else shade_uri(tile.mask),
        "caption": plain(tile.caption, LONGEST),
    }


def photo_uri(image: np.ndarray) -> str:
    """WEBP of an image uint8 `[S, S, 3]`, at most `SIDE` pixels a side; smaller ones are enlarged by the browser."""
    picture = Image.fromarray(image)
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, format="WEBP", quality=QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()


def shade_uri(mask: np.ndarray) -> str:
    """PNG of black, clear where the map `[h, w]` is highest: over the photo it shows what `story.spotlight` draws."""
    values = Image.fromarray(np.asarray(mask, dtype=np.float32).clip(min=0))
    size = (min(values.width, FINEST), min(values.height, FINEST))
    cells = np.asarray(values.resize(size, Image.Resampling.BOX))
    strength = cells / cells.max() if cells.max() > 0 else cells
    pixels = np.zeros((*cells.shape, 2), dtype=np.uint8)
    pixels[..., 1] = (255 * (1 - DARKEST) * (1 - strength)).round()
    stream = io.BytesIO()
    Image.fromarray(pixels, "LA").save(stream, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
