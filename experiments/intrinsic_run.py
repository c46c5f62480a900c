"""One run of the job `intrinsic`: all rows for all seeds, then the table, as files and on the terminal."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich.console import Console

from aaca.evaluate.examples import contact_sheet
from aaca.runtime.config import load_config
from aaca.runtime.files import atomic_path, ensure_writable, read_json
from aaca.runtime.ranks import current
from aaca.runtime.trial import Trial

from .debug_config import without_size_presets
from .intrinsic_config import IntrinsicConfig
from .intrinsic_stages import EXAMPLES, ROWS, SCORES, SHOWN, IntrinsicStages
from .intrinsic_table import by_row, changes, terminal_table


def run(trial: Trial) -> None:
    """Make every stage, and write `scores.csv`, `table.csv`, `changes.csv` and `examples.png`."""
    options = load_config(without_size_presets(trial.config), IntrinsicConfig)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    stages = IntrinsicStages(options)
    scenes = stages.scenes()
    made = stages.all_scores(scenes)
    if current().rank != 0:
        return
    scores = pd.DataFrame(
        {"row": row, "seed": seed, **read_json(folder / SCORES)} for (row, seed), folder in made.items()
    )
    folder = trial.path
    ensure_writable(folder, "paths.root")
    tables = {"scores": scores, "table": by_row(scores), "changes": changes(scores)}
    for name, frame in tables.items():
        with atomic_path(folder / f"{name}.csv") as temporary:
            frame.to_csv(temporary, index=False)
    write_sheet(scenes.folder, [made[row, options.seed] for row in ROWS], folder / "examples.png")
    Console(width=None if sys.stdout.isatty() else 160).print(terminal_table(scores))
    print(f"table: {folder / 'table.csv'}")


def write_sheet(scenes: Path, scored: list[Path], file: Path) -> None:
    """Test scenes in rows: the image, R and each row's R, S and each row's S."""
    truth = np.load(scenes / "test.npy", mmap_mode="r")[:SHOWN]
    every = [truth, *(np.load(folder / EXAMPLES) for folder in scored)]
    lines = [
        [
            _pixels(one[:3] * one[3:]),
            *(_pixels(found[place, part]) for part in (slice(3), slice(3, 4)) for found in every),
        ]
        for place, one in enumerate(truth)
    ]
    with atomic_path(file) as temporary:
        contact_sheet(lines).save(temporary, format="png")


def _pixels(values: np.ndarray) -> np.ndarray:
    whole = np.broadcast_to(values, (3, *values.shape[1:])).transpose(1, 2, 0)
    return (whole * 255).round().clip(0, 255).astype(np.uint8)
