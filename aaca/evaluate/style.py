"""How the figures look: two colour schemes, bare axes, rows with names."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes


@dataclass(frozen=True)
class Theme:
    """Colours of one scheme; blue against vermilion is safe for colour-blind readers (Okabe & Ito 2008)."""

    ink: str
    muted: str
    grid: str
    paper: str
    good: str
    bad: str


LIGHT = Theme(ink="#1c1f24", muted="#656b76", grid="#dfe2e7", paper="#ffffff", good="#0072b2", bad="#d55e00")
DARK = Theme(ink="#e8eaee", muted="#9aa2b1", grid="#343a46", paper="#171a20", good="#56b4e9", bad="#f0803c")


def shorten(text: str, limit: int = 28) -> str:
    """At most `limit` characters, the cut marked by an ellipsis."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def dress(axes: Axes, theme: Theme) -> None:
    """Take away all of the frame but the base line; a light grid for reading values along x."""
    axes.set_facecolor("none")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(theme.grid)
    axes.tick_params(colors=theme.muted, labelsize=8, length=0)
    axes.grid(axis="x", color=theme.grid, linewidth=0.7)
    axes.set_axisbelow(True)


def label_rows(axes: Axes, names: Sequence[str], theme: Theme) -> None:
    """One row a name, first on top. Names come from users and are never read as mathematics."""
    axes.set_yticks(range(len(names)), [shorten(name) for name in names], parse_math=False)
    axes.tick_params(axis="y", labelcolor=theme.ink, labelsize=9)
    axes.set_ylim(len(names) - 0.5, -0.5)
