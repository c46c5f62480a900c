"""The comparison as a Rich table for the terminal, readable from 120 columns on."""

from rich import box
from rich.table import Table
from rich.text import Text

from aaca.evaluate.setting import REFERENCE, Setting
from aaca.evaluate.statistics import Interval
from aaca.evaluate.summary import Estimate, Summary

SPLITS = {"test": "new sources", "test_seen": "seen sources"}
"""What the splits of the table mean: whether the photos and objects in them occur in `train`."""


def percent(fraction: float | None) -> str:
    """A fraction as per cent with one decimal; – where unknown."""
    return "–" if fraction is None else f"{100 * fraction:.1f}"


def points(fraction: float) -> str:
    """A difference of fractions as signed percentage points with one decimal and a true minus."""
    return f"{100 * fraction:+.1f}".replace("-", "−")


def spread(estimate: Estimate) -> str:
    """Mean ± sd in per cent; the mean alone for one seed."""
    return percent(estimate.mean) + (f" ±{100 * estimate.sd:.1f}" if estimate.sd is not None else "")


def difference(interval: Interval | None) -> str:
    """Difference in points with its interval; empty where there is none."""
    if interval is None:
        return ""
    return f"{points(interval.value)} [{points(interval.low)}, {points(interval.high)}]"


def slice_groups(setting: Setting) -> list[tuple[str, list[str], list[str]]]:
    """Slices by split: (split, metric names, slice names)."""
    pairs = sorted(
        {tuple(name.split("/", 1)) for run in setting.runs for name in run.outcome.slices},
        key=lambda pair: setting.slices.index("_".join(pair)),
    )
    splits = dict.fromkeys(split for split, _ in pairs)
    return [
        (split, [f"{split}_{name}" for part, name in pairs if part == split], [n for part, n in pairs if part == split])
        for split in splits
    ]


def _counts(summary: Summary, *names: str) -> str:
    return " / ".join(f"{summary.counts[name].mean:.0f}" if name in summary.counts else "–" for name in names)


def _cells(summary: Summary, groups: list[tuple[str, list[str], list[str]]], is_before: bool) -> list[Text]:
    metrics = summary.metrics
    slices = [
        " ".join(percent(metrics[name].mean if name in metrics else None).rjust(4) for name in names)
        for _, names, _ in groups
    ]
    change = "reference" if summary.method == REFERENCE and not summary.differences else ""
    own = [""] * 3 if is_before else [_counts(summary, "repaired", "newly_broken"), _counts(summary, "n_debug")]
    if not is_before:
        own.append(_counts(summary, "seconds"))
    cells = [
        summary.name,
        str(len(summary.seeds)),
        spread(metrics["accuracy"]),
        difference(summary.differences.get("accuracy")) or change,
        *slices,
        percent(metrics["worst_group_accuracy"].mean),
        *own,
    ]
    return [Text(cell, style="dim" if is_before else "") for cell in cells]


def setting_table(setting: Setting) -> Table:
    """One setting's table: f0 first, then the controls, then the methods by accuracy. All accuracies in per cent."""
    groups = slice_groups(setting)
    headline = setting.key["headline_slice"]
    caption = (
        f"accuracy: plain mean over {'all' if headline == 'all' else headline} test images, ± sd over seeds; "
        f"Δ: points against {REFERENCE}, 95 % bootstrap interval over test sources; worst: lowest group of test; "
        f"repaired / broken: test images, against f0; s: this method's own seconds; "
        f"weights evaluated: {setting.key['selection_rule']}"
    )
    table = Table(title=Text(setting.title), caption=Text(caption), box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("method", overflow="fold", min_width=12)
    table.add_column("seeds", justify="right")
    table.add_column("accuracy", justify="right", no_wrap=True)
    table.add_column(f"Δ {REFERENCE}\n[95 %]", justify="right", no_wrap=True)
    for split, _, names in groups:
        header = "\n".join([SPLITS.get(split, split) if len(groups) > 1 else split, *names])
        table.add_column(Text(header), no_wrap=True)
    table.add_column("worst", justify="right", no_wrap=True)
    table.add_column("repaired\n/ broken", justify="right", no_wrap=True)
    table.add_column("images", justify="right", no_wrap=True)
    table.add_column("s", justify="right", no_wrap=True)
    table.add_row(*_cells(setting.before, groups, is_before=True), end_section=True)
    for summary in setting.methods:
        table.add_row(*_cells(summary, groups, is_before=False))
    return table
