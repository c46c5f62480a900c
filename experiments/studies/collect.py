"""`python -m experiments.studies.collect ROOT FOLDER`: the finished runs below a root as the table of a study.

One row a configuration (what varies between the runs, but for the seed): mean and standard deviation over seeds.
"""

import sys
from pathlib import Path
from typing import Any

import pandas as pd

from aaca.evaluate.outcome import FILE, Outcome

RECOVERY = "recovery.csv"
IGNORED = ("seed=", "paths.", "study=", "trainer", "logger")
SLICES = {"conflicting": "test/conflicting", "seen_balanced": "test_seen/balanced"}
SLICES["seen_conflicting"] = "test_seen/conflicting"


def collect(root: Path) -> pd.DataFrame:
    """The table. Raises `SystemExit` where no run has finished."""
    runs = [path.parent for path in sorted(root.glob(f"runs/*/{FILE}"))]
    if not runs:
        raise SystemExit(f"{root}: no finished run; expected folders with {FILE} below {root}/runs")
    rows = [_row(run) for run in runs]
    shared = set.intersection(*(set(row["overrides"]) for row in rows))
    for row in rows:
        row["setting"] = " ".join(sorted(set(row.pop("overrides")) - shared)) or "(as above)"
    table = pd.DataFrame(rows)
    numbers = [name for name in table.columns if name not in ("setting", "seed")]
    found = []
    for setting, own in table.groupby("setting", sort=True):
        entry: dict[str, Any] = {"setting": setting, "seeds": len(own)}
        for name in numbers:
            entry[name] = own[name].mean()
            if name in ("balanced", "conflicting", "seen_balanced", "seen_conflicting"):
                entry[f"{name}_sd"] = own[name].std()
        found.append(entry)
    return pd.DataFrame(found).round(3)


def _row(run: Path) -> dict[str, Any]:
    outcome = Outcome.load(run)
    row: dict[str, Any] = {
        "overrides": [entry for entry in outcome.overrides if not entry.startswith(IGNORED)],
        "seed": outcome.seed,
        "balanced": 100 * outcome.accuracy,
        **{name: 100 * outcome.slices[place]["accuracy"] for name, place in SLICES.items() if place in outcome.slices},
        "worst_group": 100 * outcome.worst_group_accuracy,
        "repaired": outcome.repaired,
        "newly_broken": outcome.newly_broken,
        "n_debug": outcome.n_debug,
        "seconds": outcome.seconds,
    }
    if (run / RECOVERY).is_file():
        planted = pd.read_csv(run / RECOVERY)
        row["planted"] = len(planted)
        row["planted_first"] = int((planted["rank"] == 1).sum())
        row["planted_in_top_3"] = int((planted["rank"] <= 3).sum())
        row["blamed"] = planted["blamed"].sum()
    return row


def markdown(table: pd.DataFrame) -> str:
    """The table for a README."""
    lines = ["| " + " | ".join(table.columns) + " |", "|" + "---|" * len(table.columns)]
    lines += ["| " + " | ".join(_cell(value) for value in row) + " |" for row in table.itertuples(index=False)]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if pd.isna(value) else f"{value:.1f}"
    return str(value)


def main(root: Path, folder: Path) -> None:
    """Write `results.csv` into the study's folder, and print the table."""
    table = collect(root)
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / "results.csv", index=False)
    print(markdown(table))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
