"""`python -m experiments.studies.write FOLDER`: put the table of a study's `results.csv` into its README."""

import re
import sys
from pathlib import Path

import pandas as pd

from .collect import markdown

LEFT_OUT = ("seconds", "n_debug", "planted_in_top_3")
"""Columns that `results.csv` has and the README does not show."""


def main(folder: Path) -> None:
    """Between the marks `<!-- table -->` and `<!-- /table -->`."""
    table = pd.read_csv(folder / "results.csv")
    for name in [column for column in table.columns if column.endswith("_sd")]:
        mean, sd = table[name.removesuffix("_sd")], table.pop(name)
        table[name.removesuffix("_sd")] = [
            f"{m:.1f}" if pd.isna(s) else f"{m:.1f} ± {s:.1f}" for m, s in zip(mean, sd, strict=True)
        ]
    shown = table.drop(columns=[name for name in LEFT_OUT if name in table])
    insert(folder / "README.md", markdown(shown))


def insert(file: Path, table: str) -> None:
    """Put a table between the marks of a file. Raises `SystemExit` where there are none."""
    text = file.read_text(encoding="utf-8")
    if "<!-- table -->" not in text:
        raise SystemExit(f"{file}: no marks <!-- table --> and <!-- /table -->")
    found = re.sub(
        r"<!-- table -->.*<!-- /table -->",
        lambda _: f"<!-- table -->\n{table}\n<!-- /table -->",
        text,
        flags=re.DOTALL,
    )
    file.write_text(found, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]))
