"""The job `data`: `aaca data verify` looks at every file of a dataset; `aaca data preview` draws its splits."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from aaca.runtime.app import run_job
from aaca.runtime.trial import Trial


def job(trial: Trial) -> None:
    """Do what `action` says. Raises `DataError` (exit status 1) when verifying finds files that must not be used."""
    from aaca.data.benchmark import BenchmarkSource
    from aaca.runtime.config import load_config
    from aaca.runtime.files import ensure_writable

    from .debug_config import without_size_presets
    from .paths_config import PathsConfig

    @dataclass(frozen=True, kw_only=True)
    class DataConfig:
        action: Literal["verify", "preview"]
        dataset: BenchmarkSource
        seed: Annotated[int, Field(ge=0)]
        workers: Annotated[int, Field(ge=0)]
        paths: PathsConfig
        size: Literal["smoke", "demo", "full"]

    options = load_config(without_size_presets(trial.config), DataConfig)
    folder = trial.path
    ensure_writable(folder, "paths.root")
    if options.action == "verify":
        verify(options.dataset, folder, options.workers)
    else:
        preview(options.dataset, folder, options.seed)


def verify(dataset: object, folder: Path, workers: int) -> None:
    """Scan all files, print a summary, keep the findings as CSV and parquet in `folder`."""
    from aaca.data.benchmark import BenchmarkSource
    from aaca.data.scan import verify as scan
    from aaca.runtime.errors import DataError

    assert isinstance(dataset, BenchmarkSource)
    report = scan(dataset, workers)
    report.save(folder)
    print(report.summary())
    print(f"findings: {folder / 'findings.csv'}")
    refused = sum(report.counts("refused").values())
    if refused:
        raise DataError(f"dataset: {refused} of {report.images} images must not be used; see {folder / 'findings.csv'}")


def preview(dataset: object, folder: Path, seed: int) -> None:
    """One picture a split: a row of images for each class."""
    from tempfile import TemporaryDirectory

    import numpy as np

    from aaca.data.benchmark import BenchmarkSource
    from aaca.evaluate.examples import contact_sheet

    assert isinstance(dataset, BenchmarkSource)
    with TemporaryDirectory(prefix="aaca-preview-") as scratch:
        benchmark = dataset.build(Path(scratch))
        for split in benchmark.table.frame["split"].unique():
            for part, frame in benchmark.split(split).frame.groupby("slice", sort=False):
                table = benchmark.split(split)
                table = table.take(table.frame["id"].isin(frame["id"]).to_numpy())
                draw = np.random.default_rng(seed).permutation(len(table))
                rows = [draw[table.labels[draw] == label][:10] for label in range(len(table.classes))]
                sheet = contact_sheet([[table.image(int(row)) for row in line] for line in rows])
                sheet.save(folder / f"{split}-{part}.png")
                print(folder / f"{split}-{part}.png")


def main() -> int:
    """Entry point: `aaca data`, `python -m experiments.data`."""
    return run_job("data")


if __name__ == "__main__":
    sys.exit(main())
