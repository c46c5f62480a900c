"""Neurons in one picture: a row each, the label on the left, images with a spotlight where the neuron fires."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from aaca.evaluate.examples import GAP, SIZE, contact_sheet
from aaca.evaluate.neuron_view import Tile
from aaca.evaluate.story import spotlight
from aaca.evaluate.style import LIGHT
from aaca.runtime.errors import DataError

ACROSS = 3  # tiles a side of an annotation task's picture
TASK_TILE = 128  # pixels of a side of them
LINES = 3  # of a label
PADDING = 10  # pixels between labels and tiles


def neuron_sheet(rows: Sequence[tuple[str, Sequence[Tile]]], size: int = SIZE) -> Image.Image:
    """One row a neuron: its label, then its tiles of `size` pixels; a shorter row ends in white.

    Raises `DataError` where there is no tile at all.
    """
    columns = max((len(tiles) for _, tiles in rows), default=0)
    if columns == 0:
        raise DataError("neuron sheet: no tile given; expected at least one")
    pictures = contact_sheet([[lit(tile) for tile in tiles] + _blank(columns - len(tiles)) for _, tiles in rows], size)
    font = _font(max(9, round(size / 7)))
    labels = [_wrap(label, font, 2 * size) for label, _ in rows]
    left = PADDING + max(round(font.getlength(line)) for lines in labels for line in lines)
    sheet = Image.new("RGB", (left + pictures.width, pictures.height), "white")
    sheet.paste(pictures, (left, 0))
    draw = ImageDraw.Draw(sheet)
    for row, lines in enumerate(labels):
        middle = row * (size + GAP) + size / 2
        draw.multiline_text(
            (left - PADDING, middle), "\n".join(lines), fill=LIGHT.ink, font=font, anchor="rm", align="right"
        )
    return sheet


def neuron_task_picture(tiles: Sequence[Tile]) -> np.ndarray:
    """The first nine tiles, three a row, uint8 `[H, H, 3]`: what a person is shown to name a neuron by.

    Fewer tiles leave white places. Raises `DataError` where there is none.
    """
    if not tiles:
        raise DataError("neuron task: no tile given; expected at least one")
    shown = [lit(tile) for tile in tiles[: ACROSS**2]]
    shown += _blank(ACROSS**2 - len(shown))
    rows = [shown[start : start + ACROSS] for start in range(0, ACROSS**2, ACROSS)]
    return np.asarray(contact_sheet(rows, TASK_TILE))


def lit(tile: Tile) -> np.ndarray:
    """The tile's image uint8 `[S, S, 3]`, dark where the neuron is silent; as it is where that is not known."""
    return tile.image if tile.mask is None else spotlight(tile.image, tile.mask)


def _blank(count: int) -> list[np.ndarray]:
    return [np.full((8, 8, 3), 255, dtype=np.uint8)] * count


def _font(size: int) -> ImageFont.FreeTypeFont:
    import matplotlib  # for its font, which has more alphabets than Pillow's own

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def _wrap(label: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    # words into at most `LINES` lines of `width` pixels; what is too long is cut and marked
    lines = [""]
    for word in "".join(sign if sign.isprintable() else " " for sign in label).split():
        longer = f"{lines[-1]} {word}".strip()
        if not lines[-1] or font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > LINES:
        lines = [*lines[: LINES - 1], " ".join(lines[LINES - 1 :])]
    return [_cut(line, font, width) for line in lines]


def _cut(line: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    if font.getlength(line) <= width:
        return line
    while line and font.getlength(line + "…") > width:
        line = line[:-1]
    return line + "…"
