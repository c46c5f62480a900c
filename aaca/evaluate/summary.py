"""One method over its seeds: means, spread, intervals over sources, and its difference to the reference."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from aaca.evaluate.runs import GROUP, Run
from aaca.evaluate.statistics import (
    Interval,
    McNemar,
    mcnemar,
    mean_sd,
    percentile_interval,
    resample_weights,
    resampled_means,
)

_COUNTS = ("repaired", "newly_broken", "repair_rate", "n_debug", "seconds", "seconds_total")


@dataclass(frozen=True)
class Estimate:
    """Mean over seeds, sample standard deviation over seeds, and the 95 % interval over test sources."""

    mean: float
    sd: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass
class Summary:
    """One method over its seeds. `differences` are to the reference, over the seeds both have."""

    name: str
    method: str
    seeds: list[int]
    metrics: dict[str, Estimate]
    groups: dict[str, float]  # accuracy in each group of `test`, mean over seeds
    counts: dict[str, Estimate] = field(default_factory=dict)  # repaired, newly_broken, n_debug, seconds, …
    differences: dict[str, Interval] = field(default_factory=dict)
    mcnemar: McNemar | None = None
    reference: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Flat plain values: `<metric>`, `<metric>_sd`, `_low`, `_high`, `<metric>_difference`, `_low`, `_high`."""
        flat: dict[str, Any] = {"method": self.method, "name": self.name, "seeds": self.seeds}
        flat["n_seeds"] = len(self.seeds)
        for name, estimate in (self.metrics | self.counts).items():
            flat |= {name: estimate.mean, f"{name}_sd": estimate.sd}
            if name in self.metrics:
                flat |= {f"{name}_low": estimate.low, f"{name}_high": estimate.high}
        for name, difference in self.differences.items():
            place = f"{name}_difference"
            flat |= {place: difference.value, f"{place}_low": difference.low, f"{place}_high": difference.high}
        flat |= {"reference": self.reference, "mcnemar_p": self.mcnemar.p if self.mcnemar else None}
        return flat | {"groups": self.groups}


class Bootstrap:
    """One set of drawn sources for all runs of a setting, so that every difference is paired."""

    def __init__(self, runs: list[Run], resamples: int, seed: int) -> None:
        self.sources = np.unique(np.concatenate([run.cells.sources for run in runs]))
        self.weights = resample_weights(len(self.sources), resamples, seed)
        self.cache: dict[tuple[Path, str], dict[str, np.ndarray]] = {}

    def samples(self, run: Run, which: str) -> dict[str, np.ndarray]:
        """Resampled metrics `[R]` of one run by name; `which`: before | after."""
        if (run.folder, which) not in self.cache:
            cells = run.cells
            same = np.array_equal(self.sources, cells.sources)
            weights = self.weights if same else self.weights[:, np.searchsorted(self.sources, cells.sources)]
            means = resampled_means(getattr(cells, which), cells.counts, weights)
            named = {name: means[:, i] for i, name in enumerate(cells.names) if not name.startswith(GROUP)}
            groups = means[:, [name.startswith(GROUP) for name in cells.names]]
            worst = np.where(np.isnan(groups).all(axis=1), np.nan, np.fmin.reduce(groups, axis=1))
            self.cache[run.folder, which] = {**named, "worst_group_accuracy": worst}
        return self.cache[run.folder, which]

    def mean(self, runs: list[Run], which: str, name: str) -> np.ndarray | None:
        """Mean over runs (seeds) of a resampled metric, `[R]`; None where a run lacks it."""
        parts = [self.samples(run, which).get(name) for run in runs]
        return None if any(part is None for part in parts) else np.mean([p for p in parts if p is not None], axis=0)


def summary_of(name: str, method: str, runs: list[Run], bootstrap: Bootstrap, which: str) -> Summary:
    """The summary of these runs (one a seed); `which`: "after" for the method, "before" for f0."""
    values = [run.metrics if which == "after" else run.metrics_before for run in runs]
    metrics = {}
    for metric in dict.fromkeys(key for part in values for key in part):
        mean, sd = mean_sd([part[metric] for part in values if metric in part])
        samples = bootstrap.mean(runs, which, metric)
        low, high = (samples is not None and percentile_interval(samples)) or (None, None)
        metrics[metric] = Estimate(mean, sd, low, high)
    column = "accuracy" if which == "after" else "accuracy_before"
    # A group of several classes has a row for each: weigh by images.
    cells = pd.DataFrame([row for run in runs for row in run.outcome.groups if row["split"] == "test"])
    cells = cells.assign(right=cells[column] * cells["n"]).groupby("group")[["right", "n"]].sum()
    groups = {str(group): float(value) for group, value in (cells["right"] / cells["n"]).items()}
    counts = {}
    for count in _COUNTS if which == "after" else ():
        found = [getattr(run.outcome, count) for run in runs if getattr(run.outcome, count) is not None]
        if found:
            counts[count] = Estimate(*mean_sd(found))
    return Summary(name, method, sorted(run.outcome.seed for run in runs), metrics, groups, counts)


def compare_with(summary: Summary, runs: list[Run], reference: list[Run], bootstrap: Bootstrap) -> list[str]:
    """Fill in the differences to the reference's runs of the same seeds; a note where that is not possible."""
    theirs = {run.outcome.seed: run for run in reference}
    pairs = [(run, theirs[run.outcome.seed]) for run in runs if run.outcome.seed in theirs]
    name = reference[0].name
    if not pairs:
        return [f"{summary.name}: no seed in common with {name}; no interval"]
    if any(mine.cells.images != other.cells.images for mine, other in pairs):
        return [f"{summary.name}: its test images differ from those of {name}; no interval"]
    summary.reference = name
    for metric in summary.metrics:
        first = bootstrap.mean([mine for mine, _ in pairs], "after", metric)
        second = bootstrap.mean([other for _, other in pairs], "after", metric)
        interval = percentile_interval(first - second) if first is not None and second is not None else None
        if interval is not None:
            value = float(np.mean([mine.metrics[metric] - other.metrics[metric] for mine, other in pairs]))
            summary.differences[metric] = Interval(value, *interval)
    summary.mcnemar = mcnemar(
        np.concatenate([mine.cells.headline for mine, _ in pairs]),
        np.concatenate([other.cells.headline for _, other in pairs]),
    )
    short = len(pairs) < max(len(runs), len(reference))
    return [f"{summary.name}: compared with {name} over the {len(pairs)} seed(s) both have"] if short else []
