"""The comparison in pictures (matplotlib, object-oriented: no global state, no display)."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from aaca.evaluate.setting import Setting
from aaca.evaluate.style import LIGHT, Theme, dress, label_rows, shorten
from aaca.evaluate.summary import Summary
from aaca.evaluate.terminal import SPLITS, slice_groups
from aaca.runtime.files import atomic_path

WIDTH = 9.6  # inches, all figures
MAX_GROUPS = 40


def _colour(summary: Summary, theme: Theme) -> str:
    return theme.muted if summary.method in {"none", "duplicate"} else theme.good


def _seed_values(setting: Setting, summary: Summary, metric: str) -> list[float]:
    return [100 * run.metrics[metric] for run in setting.runs if run.name == summary.name and metric in run.metrics]


def slices(setting: Setting, theme: Theme = LIGHT) -> Figure:
    """Accuracy on every slice: f0 (dashed) against each method (mean, seeds as rings, 95 % interval over sources)."""
    groups = slice_groups(setting)
    columns = max(len(metrics) for _, metrics, _ in groups)
    height = (0.27 * len(setting.methods) + 0.95) * len(groups) + 0.3
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    grid = figure.subplots(len(groups), columns, squeeze=False, sharex=True)
    for row, (split, metrics, names) in zip(grid, groups, strict=True):
        for column, axes in enumerate(row):
            if column >= len(metrics):
                axes.set_visible(False)
                continue
            _slice_panel(axes, setting, metrics[column], theme)
            place = SPLITS.get(split, split) if len(groups) > 1 else "test"
            axes.set_title(
                shorten(f"{names[column]}, {place}"), fontsize=9.5, color=theme.ink, loc="left", parse_math=False
            )
            if column:
                axes.tick_params(labelleft=False)
    for axes in grid[-1]:
        axes.set_xlabel("accuracy, %", fontsize=8, color=theme.muted)
    return figure


def _slice_panel(axes: Axes, setting: Setting, metric: str, theme: Theme) -> None:
    dress(axes, theme)
    label_rows(axes, [summary.name for summary in setting.methods], theme)
    axes.set_xlim(0, 100)
    before = setting.before.metrics.get(metric)
    if before is not None:
        axes.axvline(100 * before.mean, color=theme.bad, linestyle=(0, (4, 2)), linewidth=1.4)
        right = before.mean < 0.8
        axes.annotate(
            f"f0 {100 * before.mean:.0f}",
            (100 * before.mean, -0.5),
            xytext=(3 if right else -3, -1),
            textcoords="offset points",
            ha="left" if right else "right",
            va="top",
            fontsize=7.5,
            color=theme.bad,
        )
    for y, summary in enumerate(setting.methods):
        estimate = summary.metrics.get(metric)
        if estimate is None:
            continue
        colour = _colour(summary, theme)
        if estimate.low is not None and estimate.high is not None:
            axes.plot([100 * estimate.low, 100 * estimate.high], [y, y], color=colour, linewidth=2, alpha=0.45)
        seeds = _seed_values(setting, summary, metric)
        axes.plot(seeds, [y] * len(seeds), "o", markersize=4, markerfacecolor="none", markeredgecolor=colour, alpha=0.8)
        axes.plot(100 * estimate.mean, y, "o", markersize=6.5, color=colour)


def group_matrix(setting: Setting) -> tuple[list[str], list[str], np.ndarray]:
    """(groups of `test`, columns f0 and methods, accuracy `[G, 1 + M]` in [0, 1]); groups f0 fails most come first."""
    columns = [setting.before, *setting.methods]
    groups = sorted({group for summary in columns for group in summary.groups})
    values = np.array([[summary.groups.get(group, np.nan) for summary in columns] for group in groups])
    order = np.argsort(values[:, 0], kind="stable")
    return [groups[i] for i in order], [summary.name for summary in columns], values[order]


def heat_map(setting: Setting, theme: Theme = LIGHT) -> Figure:
    """Accuracy by group of `test` and method, f0 first; the strongest colour is the lowest accuracy."""
    groups, names, values = group_matrix(setting)
    groups, values = groups[:MAX_GROUPS], values[:MAX_GROUPS]
    figure = Figure(figsize=(WIDTH, 0.26 * len(groups) + 1.5), layout="constrained")
    axes = figure.subplots()
    colours = LinearSegmentedColormap.from_list("failure", [theme.bad, theme.paper])
    axes.imshow(100 * values, cmap=colours, vmin=0, vmax=100, aspect="auto")
    axes.set_xticks(range(len(names)), [shorten(name, 18) for name in names], parse_math=False)
    axes.set_yticks(range(len(groups)), [shorten(group, 34) for group in groups], parse_math=False)
    axes.tick_params(
        top=True, labeltop=True, bottom=False, labelbottom=False, length=0, labelsize=8.5, colors=theme.ink
    )
    for label in axes.get_xticklabels():
        label.set(rotation=28, ha="left", rotation_mode="anchor")
    for spine in axes.spines.values():
        spine.set_visible(False)
    for (y, x), value in np.ndenumerate(values):
        text = "" if np.isnan(value) else f"{100 * value:.0f}"
        axes.text(x, y, text, ha="center", va="center", fontsize=8, color=theme.ink)
    axes.set_xlabel("accuracy, %", fontsize=8.5, color=theme.muted)
    return figure


def repairs(setting: Setting, theme: Theme = LIGHT) -> Figure:
    """Test images that each method repaired (right) and newly broke (left), mean over seeds, seeds as rings."""
    figure = Figure(figsize=(WIDTH, 0.34 * len(setting.methods) + 0.9), layout="constrained")
    axes = figure.subplots()
    dress(axes, theme)
    label_rows(axes, [summary.name for summary in setting.methods], theme)
    for y, summary in enumerate(setting.methods):
        own = [run.outcome for run in setting.runs if run.name == summary.name]
        for sign, name, colour in ((1, "repaired", theme.good), (-1, "newly_broken", theme.bad)):
            mean = sign * summary.counts[name].mean
            axes.barh(y, mean, height=0.62, color=colour, alpha=0.85)
            seeds = [sign * getattr(outcome, name) for outcome in own]
            axes.plot(seeds, [y] * len(seeds), "o", markersize=3.5, markerfacecolor="none", markeredgecolor=theme.ink)
            edge = max([abs(mean), *map(abs, seeds)]) * sign
            side = "left" if sign > 0 else "right"
            axes.annotate(
                f"{abs(mean):.0f}",
                (edge, y),
                xytext=(5 * sign, 0),
                textcoords="offset points",
                va="center",
                ha=side,
                fontsize=8.5,
                color=theme.ink,
            )
    axes.axvline(0, color=theme.ink, linewidth=0.8)
    reach = 1.18 * max(1.0, *(abs(limit) for limit in axes.get_xlim()))
    axes.set_xlim(-reach, reach)
    axes.xaxis.set_major_formatter(lambda value, _: f"{abs(value):.0f}")
    axes.set_xlabel("← newly broken        test images        repaired →", fontsize=8.5, color=theme.muted)
    return figure


def cost(setting: Setting, theme: Theme = LIGHT) -> Figure:
    """A method's own seconds against the accuracy of its worst group; bars are ± one standard deviation over seeds."""
    figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
    axes = figure.subplots()
    dress(axes, theme)
    axes.grid(axis="y", color=theme.grid, linewidth=0.7)
    spots = []
    for summary in setting.methods:
        x, worst = summary.counts["seconds"], summary.metrics["worst_group_accuracy"]
        colour = _colour(summary, theme)
        axes.errorbar(x.mean, 100 * worst.mean, 100 * (worst.sd or 0), x.sd or 0, fmt="none", ecolor=colour, alpha=0.5)
        axes.plot(x.mean, 100 * worst.mean, "o", markersize=7, color=colour)
        spots.append((100 * worst.mean, x.mean, summary.name, colour))
    top = max(1.0, *(x.counts["seconds"].mean + (x.counts["seconds"].sd or 0) for x in setting.methods))
    axes.set_xlim(0, 1.4 * top)
    axes.set_ylim(*_limits(setting))
    low, high = axes.get_ylim()
    _labels(axes, spots, 1.1 * top, (high - low) / 13)
    before = 100 * setting.before.metrics["worst_group_accuracy"].mean
    axes.axhline(before, color=theme.bad, linestyle=(0, (4, 2)), linewidth=1.2)
    axes.annotate("f0", (0, before), xytext=(4, 3), textcoords="offset points", fontsize=8, color=theme.bad)
    axes.set_xlabel("seconds of the method itself (selection, refit, test)", fontsize=8.5, color=theme.muted)
    axes.set_ylabel("accuracy in the worst group, %", fontsize=8.5, color=theme.muted)
    return figure


def _limits(setting: Setting) -> tuple[float, float]:
    found = [setting.before.metrics["worst_group_accuracy"]]
    found += [summary.metrics["worst_group_accuracy"] for summary in setting.methods]
    low = min(100 * (part.mean - (part.sd or 0)) for part in found)
    high = max(100 * (part.mean + (part.sd or 0)) for part in found)
    margin = max(4.0, 0.12 * (high - low))
    return max(-2.0, low - margin), min(102.0, high + margin)


def _labels(axes: Axes, spots: list[tuple[float, float, str, str]], x: float, gap: float) -> None:
    # Names in one column at the right, pushed apart, each tied to its point: points of equal cost lie on one another.
    place = -np.inf
    for value, seconds, name, colour in sorted(spots):
        place = max(value, place + gap)
        axes.plot([seconds, x * 0.99], [value, place], color=colour, linewidth=0.6, alpha=0.5)
        axes.text(x, place, shorten(name, 24), fontsize=8.5, color=colour, va="center", parse_math=False)


FIGURES: dict[str, Callable[[Setting, Theme], Figure]] = {
    "slices": slices,
    "groups": heat_map,
    "repairs": repairs,
    "cost": cost,
}


TITLES: dict[str, tuple[str, str]] = {
    "slices": (
        "Accuracy on each slice, before and after",
        "Dashed: f0, before repair. Disc: mean over seeds; rings: single seeds; bar: 95 % interval over test sources.",
    ),
    "groups": ("Accuracy in each group of the test images", "The strongest colour is the lowest accuracy."),
    "repairs": (
        "Images repaired and images newly broken",
        "Test images that f0 got wrong and the method gets right, against the reverse. Bars: mean over seeds.",
    ),
    "cost": (
        "What it costs",
        "Seconds of the method itself against its worst group; ± one standard deviation over seeds.",
    ),
}
"""Title and caption of each figure."""


def svg(figure: Figure) -> str:
    """The figure as SVG text on a transparent ground: sharp at any zoom, the same bytes for the same figure."""
    stream = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "aaca"}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    return stream.getvalue()


def write_figures(settings: Sequence[Setting], folder: Path) -> list[Path]:
    """Write each figure as `<name>.png` (`<n>-<name>.png` from the second setting on), atomically."""
    paths = []
    for number, setting in enumerate(settings, start=1):
        for name, draw in FIGURES.items():
            path = folder / (f"{name}.png" if number == 1 else f"{number}-{name}.png")
            figure = draw(setting, LIGHT)
            figure.suptitle(TITLES[name][0], x=0.01, ha="left", fontsize=11, fontweight="bold", color=LIGHT.ink)
            with atomic_path(path) as temporary:
                figure.savefig(temporary, format="png", dpi=160, facecolor=LIGHT.paper)
            paths.append(path)
    return paths
