"""The colour a person would call a cut-out by, where it has one."""

import colorsys
from functools import lru_cache

import numpy as np

from aaca.world.pack import Piece

CLEAR = 0.5
"""Share of a cut-out's visible pixels that must agree on a colour for the cut-out to be called by it."""

_HUES = ((20, "red"), (42, "orange"), (70, "yellow"), (165, "green"), (260, "blue"), (300, "purple"), (345, "pink"))


def colour_word(red: float, green: float, blue: float) -> str:
    """The basic colour term of an RGB value in [0, 1]."""
    hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
    if value < 0.2:
        return "black"
    if saturation < 0.18:
        return "white" if value > 0.75 else "grey"
    word = next((name for limit, name in _HUES if hue * 360 < limit), "red")
    return "brown" if word in ("red", "orange", "yellow") and (value < 0.6 or saturation < 0.45) else word


@lru_cache(maxsize=1024)
def colour_of(piece: Piece) -> str | None:
    """The basic colour term of most of the cut-out, or None where no colour has `CLEAR` of it."""
    pixels = piece.pixels()
    seen = pixels[pixels[..., 3] > 128][:, :3] / 255
    seen = seen[:: max(1, len(seen) // 400)]  # a few hundred pixels tell
    words, counts = np.unique([colour_word(*pixel) for pixel in seen.tolist()], return_counts=True)
    best = int(counts.argmax())
    return str(words[best]) if counts[best] >= CLEAR * counts.sum() else None
