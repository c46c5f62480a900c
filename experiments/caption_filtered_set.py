"""The easy part of the test set (EGA's val_sub_opt): what a trained captioner scores on it, beside random parts."""

import os
from dataclasses import replace
from pathlib import Path

import pandas as pd

from aaca.discover.captions.filter import write_filtered
from aaca.runtime.files import atomic_path, remove_tree

from .caption_intervals import effects, in_words, over_images, table_of
from .caption_ratings import Rated, rate, report
from .caption_run import CaptionRun

PARTS = ("annotation", "regions", "split", "globals")
"""Folders of a layout that hold files of single sets."""


def filter_test(run: CaptionRun) -> float:
    """Score one captioner on all of test, on what the filter keeps and on random parts of that size.

    CIDEr-D has the document frequencies of the whole set everywhere. What is kept is written as a set of its own into
    the run's folder. Returns CIDEr-D of what is kept.
    """
    rated = rate(run)
    name = run.options.graphs.test
    fitted, model = run.stages.captioner()
    frame = rated.stages.captions(fitted, model, name)
    said = dict(zip(frame["name"], frame["caption"], strict=True))
    kept = rated.found.kept
    found = effects(run, table_of(run, rated.stages.packed(name)[1], said), kept)
    if run.first:
        with atomic_path(run.folder / "filter_effect.csv") as temporary:
            found.to_csv(temporary, index=False)
        title = f"{len(kept)} of {len(said)} captions of {name} kept ({over_images(run)}; of random parts)"
        run.table(title, _shown(found))
        gains = {f"{one.figure} {part}": getattr(one, part) for one in found.itertuples() for part in ("all", "kept")}
        run.options.logger.record("caption filter test", gains, {"filter effect": found}, {})
        folder, root = _write(run, rated)
        usable = f"{name}_opt" in rated.source.layout.sets
        print(f"{name}_opt: {folder}" + f"; copied into {root} it is graphs.test={name}_opt" * usable)
    report(run, rated)
    return float(found.loc[found["figure"] == "CIDEr-D", "kept"].iloc[0])


def _write(run: CaptionRun, rated: Rated) -> tuple[Path, Path]:
    # (where the set's files are, the folder of the data below which they lie alike)
    layout = rated.source.layout
    folders = {part: getattr(layout, part).absolute() for part in PARTS}
    root = Path(os.path.commonpath(folders.values()))
    place = run.folder / f"{rated.source.set_name}_opt"
    remove_tree(place)  # what an earlier run with these options left
    moved = {part: place / folder.relative_to(root) for part, folder in folders.items()}
    write_filtered(rated.source, rated.found, rated.ease, place=replace(layout, **moved))
    return place, root


def _shown(found: pd.DataFrame) -> pd.DataFrame:
    rows = [
        {
            "figure": one.figure,
            "all": one.all,
            "kept": one.kept,
            "kept - all": in_words(one.gain_value, one.gain_low, one.gain_high),
            "as many at random": in_words(one.random_value, one.random_low, one.random_high, ""),
            "p": f"{one.p:.3f}",
        }
        for one in found.itertuples(index=False)
    ]
    return pd.DataFrame(rows)
