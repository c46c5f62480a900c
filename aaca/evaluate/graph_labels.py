"""Letters, arrows and labels that keep clear of one another, for pictures of graphs (Pillow)."""

from collections.abc import Sequence
from functools import cache
from math import cos, hypot, pi, sin
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from aaca.evaluate.explain_figures import plain

FINE = 2  # everything is drawn this much larger and reduced at the end: smooth lines
TEXT = 14 * FINE  # height of letters
HIGH = 22 * FINE  # height of a label and of a node
LINE = 2 * FINE  # width of a line
HEAD = 9 * FINE  # length of an arrow's head

Point = tuple[float, float]
Rect = tuple[float, float, float, float]
"""Left, top, right, bottom."""


class Labels:
    """Texts on a picture: each where it covers none that came before, or where it covers the least of them."""

    def __init__(self, picture: Image.Image) -> None:
        self.draw, self.size = ImageDraw.Draw(picture), picture.size
        self.taken: list[Rect] = []

    def dot(self, middle: Point, colour: str) -> None:
        """A dot that no label is to cover."""
        self.taken.append(rectangle(middle, HEAD, HEAD))
        self.draw.ellipse(self.taken[-1], fill=colour, outline="white", width=LINE // 2)

    def put(self, text: str, fill: str, ink: str, wished: Sequence[Point]) -> None:
        """The text with its middle at the first of the `wished` points that is free, else near to the first."""
        text = cut(text, self.size[0] - TEXT)
        width = font().getlength(text) + TEXT / 2
        rings = (
            (wished[0][0] + radius * cos(turn * pi / 8), wished[0][1] + radius * sin(turn * pi / 8))
            for radius in range(HIGH, max(self.size), HIGH // 2)
            for turn in range(16)
        )
        least, best = float("inf"), (0.0, 0.0, 0.0, 0.0)
        for place in (*wished, *rings):
            here = inside(rectangle(place, width, HIGH), self.size)
            covered = sum(_shared(here, other) for other in self.taken)
            if covered < least:
                least, best = covered, here
            if covered == 0:
                break
        self.taken.append(best)
        self.draw.rounded_rectangle(best, TEXT / 4, fill=fill, outline="white")
        self.draw.text(middle_of(best), text, fill=ink, font=font(), anchor="mm")


def arrow(
    draw: ImageDraw.ImageDraw, start: Point, end: Point, colour: str, halo: bool = False, both: bool = False
) -> None:
    """A line with a head at its end, or at both; the halo is a white rim for lines over a photo."""
    length = hypot(end[0] - start[0], end[1] - start[1])
    if length < HEAD:
        return
    if halo:
        draw.line((start, end), fill="white", width=LINE + 2 * FINE)
    draw.line((start, end), fill=colour, width=LINE)
    for tip, tail in ((end, start), (start, end))[: 1 + both]:
        ux, uy = (tip[0] - tail[0]) / length * HEAD, (tip[1] - tail[1]) / length * HEAD
        x, y = tip[0] - ux, tip[1] - uy
        draw.polygon((tip, (x - uy / 2, y + ux / 2), (x + uy / 2, y - ux / 2)), fill=colour)


def rectangle(middle: Point, width: float, height: float) -> Rect:
    """The rectangle of this size around a point."""
    return middle[0] - width / 2, middle[1] - height / 2, middle[0] + width / 2, middle[1] + height / 2


def middle_of(rect: Rect) -> Point:
    """The point in its middle."""
    return (rect[0] + rect[2]) / 2, (rect[1] + rect[3]) / 2


def _shared(one: Rect, two: Rect) -> float:
    wide, high = min(one[2], two[2]) - max(one[0], two[0]), min(one[3], two[3]) - max(one[1], two[1])
    return max(0.0, wide) * max(0.0, high)


def inside(rect: Rect, size: tuple[int, int]) -> Rect:
    """The rectangle moved into a picture of this size, and cut where it is larger."""
    left = max(0.0, min(rect[0], size[0] - 1 - (rect[2] - rect[0])))
    top = max(0.0, min(rect[1], size[1] - 1 - (rect[3] - rect[1])))
    return left, top, min(left + rect[2] - rect[0], size[0] - 1), min(top + rect[3] - rect[1], size[1] - 1)


@cache
def font() -> ImageFont.FreeTypeFont:
    """The font of all letters."""
    import matplotlib  # for its font, which has more alphabets than Pillow's own

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), TEXT)


def cut(text: str, width: float) -> str:
    """The text as one line of at most `width` pixels, the cut marked by an ellipsis."""
    text = plain(text, 200)
    while font().getlength(text) > width:
        text = text[:-2] + "…"
    return text
