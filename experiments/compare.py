"""The job `compare`: every finished run below `paths.root` in one table, one HTML report, and plain files."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from aaca.runtime.app import run_job
from aaca.runtime.trial import Trial


def job(trial: Trial) -> None:
    """Compare, write, print."""
    import pandas as pd
    from rich.console import Console

    from aaca.evaluate.comparison import compare
    from aaca.evaluate.dashboard import Dashboard
    from aaca.runtime.config import load_config

    from .debug_config import without_size_presets
    from .paths_config import PathsConfig

    @dataclass(frozen=True, kw_only=True)
    class CompareConfig:
        seed: Annotated[int, Field(ge=0)]
        size: Literal["smoke", "demo", "full"] | None = None
        paths: PathsConfig
        logger: Dashboard
        study: Annotated[str, Field(min_length=1, max_length=100)]

    options = load_config(without_size_presets(trial.config), CompareConfig)
    root = Path(options.paths.root).absolute()
    comparison = compare(root, seed=options.seed, size=options.size)
    report = comparison.write(root)
    options.logger.begin(root, options.study, [], {"seed": options.seed, "size": options.size})
    pictures = {path.stem: path for path in sorted((root / "figures").glob("*.png"))}
    tables = {"comparison": pd.DataFrame(comparison.rows), "summary": pd.DataFrame(comparison.summary)}
    options.logger.record("compare", {}, tables, pictures)
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(comparison.table())
    for failure in comparison.failed:
        console.print(f"failed: {failure.name}: {failure.reason}", highlight=False, markup=False, soft_wrap=True)
    for note in [*comparison.notes, *(note for setting in comparison.settings for note in setting.notes)]:
        console.print(f"note: {note}", highlight=False, markup=False)
    print(f"report: {report}")


def main() -> int:
    """Entry point: `aaca compare`, `python -m experiments.compare`."""
    return run_job("compare")


if __name__ == "__main__":
    sys.exit(main())
