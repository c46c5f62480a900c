"""Runs that may be compared, put side by side: f0, every method, and each method's difference to the reference."""

from dataclasses import dataclass

import numpy as np

from aaca.evaluate.runs import Run
from aaca.evaluate.summary import Bootstrap, Summary, compare_with, summary_of

REFERENCE = "s_random"
CONTROLS = ("none", "duplicate", REFERENCE)
BEFORE = "f0"


@dataclass
class Setting:
    """Runs that stand in one table: same dataset, model, size, recipe, selection rule, headline slice and classes."""

    key: dict[str, str]
    runs: list[Run]
    before: Summary  # f0
    methods: list[Summary]  # none, duplicate, s_random, then by accuracy
    notes: list[str]

    @property
    def title(self) -> str:
        """What the runs share, in words."""
        key = self.key
        parts = [
            key["dataset"],
            key["model"],
            key["size"],
            f"recipe {key['recipe']}",
            f"weights: {key['selection_rule']}",
        ]
        return " · ".join(parts + [key["changes"]] * bool(key["changes"]))

    @property
    def slices(self) -> list[str]:
        """Metric names of the slices: those of `test` first, aligned, conflicting, balanced first within a split."""
        order = {"aligned": 0, "conflicting": 1, "balanced": 2}
        names = {tuple(name.split("/", 1)) for run in self.runs for name in run.outcome.slices}
        return ["_".join(name) for name in sorted(names, key=lambda name: (name[0], order.get(name[1], 3), name[1]))]


def _reference_for(runs: list[Run], candidates: dict[str, list[Run]]) -> list[Run] | None:
    # With several variants of s_random, the one of the same K and the same start.
    same = [
        other
        for other in candidates.values()
        if (other[0].outcome.per_class, other[0].outcome.init) == (runs[0].outcome.per_class, runs[0].outcome.init)
    ]
    found = same if len(candidates) > 1 else list(candidates.values())
    return found[0] if len(found) == 1 else None


def build_setting(key: dict[str, str], runs: list[Run], notes: list[str], resamples: int, seed: int) -> Setting:
    """Summaries of all methods of one setting, in table order, with `resamples` draws of the sources."""
    bootstrap = Bootstrap(runs, resamples, seed)
    by_name: dict[str, list[Run]] = {}
    for run in runs:
        by_name.setdefault(run.name, []).append(run)
    first_of_seed = {run.outcome.seed: run for run in reversed(runs)}
    before = summary_of(f"{BEFORE} (before)", BEFORE, list(first_of_seed.values()), bootstrap, "before")
    notes = notes + _differing_f0(runs, first_of_seed)
    references = {name: part for name, part in by_name.items() if part[0].outcome.method == REFERENCE}
    if not references:
        notes.append(f"no run of {REFERENCE}: no intervals of differences and no tests")
    deciders = {(run.name, run.outcome.annotator) for run in runs if run.outcome.annotator}
    for name, annotator in sorted(deciders):
        asked = "no person was asked; " if annotator.startswith("simulated") else ""
        notes.append(f"{name}: {asked}which concepts confound and which are valid was decided by {annotator}")
    uses = {(run.outcome.asks_for, run.name) for run in runs if run.outcome.asks_for}
    for what in sorted({what for what, _ in uses}):
        names = ", ".join(sorted(name for asked, name in uses if asked == what))
        notes.append(f"beyond labels and what its debug set is made from, the repair of {names} uses: {what}")
    methods = []
    for name, part in by_name.items():
        summary = summary_of(name, part[0].outcome.method, part, bootstrap, "after")
        reference = _reference_for(part, references)
        if reference is not None and reference is not part:
            notes += compare_with(summary, part, reference, bootstrap)
        elif reference is None and references and name not in references:
            notes.append(f"{name}: no {REFERENCE} with the same K and start of the refit; no interval")
        methods.append(summary)
    methods.sort(key=_order)
    return Setting(key, runs, before, methods, notes)


def _order(summary: Summary) -> tuple[int, float, str]:
    rank = CONTROLS.index(summary.method) if summary.method in CONTROLS else len(CONTROLS)
    return rank, -summary.metrics["accuracy"].mean, summary.name


def _differing_f0(runs: list[Run], first_of_seed: dict[int, Run]) -> list[str]:
    odd = [
        run.folder.name
        for run in runs
        if run.cells.images != first_of_seed[run.outcome.seed].cells.images
        or not np.array_equal(run.cells.before, first_of_seed[run.outcome.seed].cells.before)
    ]
    return [f"f0 or the test images differ from other runs of the same seed in: {', '.join(odd)}"] if odd else []
