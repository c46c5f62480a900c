"""`compare`: any set of finished runs, side by side, with intervals against choosing at random."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from aaca.evaluate.figures import write_figures
from aaca.evaluate.report import render
from aaca.evaluate.runs import Run, by_setting, find_runs
from aaca.evaluate.setting import Setting, build_setting
from aaca.evaluate.statistics import RESAMPLES
from aaca.evaluate.terminal import setting_table
from aaca.runtime.errors import AacaError
from aaca.runtime.failures import Failure
from aaca.runtime.files import atomic_path, write_json, write_text


@dataclass
class Comparison:
    """All settings found, with what was left out and why."""

    settings: list[Setting]
    notes: list[str]
    failed: list[Failure] = field(default_factory=list)  # trials without an outcome; no number of theirs is counted

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One flat row a run."""
        return [_row(setting, run) for setting in self.settings for run in setting.runs]

    @property
    def summary(self) -> list[dict[str, Any]]:
        """One flat row a method and setting."""
        return [{**method.to_json(), "setting": part.title} for part in self.settings for method in part.methods]

    def table(self) -> Table:
        """The terminal's table; with several settings, their tables one below the other."""
        tables = [setting_table(part) for part in self.settings]
        if len(tables) == 1:
            return tables[0]
        stack = Table.grid(padding=(0, 0, 1, 0))
        for table in tables:
            stack.add_row(table)
        return stack

    def write(self, folder: Path) -> Path:
        """Write comparison.json, .parquet, .csv, figures/*.png and report.html into `folder`; return the report."""
        rows = pd.DataFrame(self.rows)
        settings = [{**part.key, "title": part.title, "before": part.before.to_json()} for part in self.settings]
        notes = self.notes + [note for part in self.settings for note in part.notes]
        write_json(
            folder / "comparison.json",
            {
                "schema": 1,
                "rows": self.rows,
                "summary": self.summary,
                "settings": settings,
                "failed": [asdict(failure) for failure in self.failed],
                "notes": notes,
            },
        )
        with atomic_path(folder / "comparison.parquet") as temporary:
            rows.to_parquet(temporary, index=False)
        write_text(folder / "comparison.csv", rows.to_csv(index=False))
        write_figures(self.settings, folder / "figures")
        write_text(folder / "report.html", render(self.settings, self.notes, self.failed))
        return folder / "report.html"


def compare(
    where: Path | Sequence[Path], resamples: int = RESAMPLES, seed: int = 0, size: str | None = None
) -> Comparison:
    """Compare the runs below `<root>/runs/`, or in these run folders.

    Runs of different settings (see `Setting`) are never mixed: each setting has its own table. Unreadable and
    unfinished runs are left out with a note; `size` keeps runs of that size only. Raises `AacaError` when there is no
    finished run.
    """
    runs, failed, notes = find_runs(where)
    if size is not None:
        runs = [run for run in runs if run.outcome.size == size]
        if not runs:
            raise AacaError(f"size: no finished run of size {size!r} in {where}")
    settings = [build_setting(key, members, left_out, resamples, seed) for key, members, left_out in by_setting(runs)]
    return Comparison(settings, notes, failed)


def _row(setting: Setting, run: Run) -> dict[str, Any]:
    outcome = run.outcome
    about = ("method", "seed", "dataset", "model", "size", "recipe", "selection_rule", "init", "per_class")
    numbers = ("repaired", "newly_broken", "wrong_before", "repair_rate", "n_train", "n_debug", "n_debug_unique")
    costs = ("seconds", "seconds_total", "peak_memory_mb", "updates", "finished")
    fields = {name: getattr(outcome, name) for name in (*about, "worst_group", "worst_group_n", *numbers, *costs)}
    before = {f"{name}_before": value for name, value in run.metrics_before.items()}
    return {**fields, "name": run.name, "setting": setting.title, **run.metrics, **before, "run": run.folder.name}
