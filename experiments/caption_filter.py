"""Wrong annotations, found by ratings of their words and left out, and whether that helps (EGA's filtering)."""

import pandas as pd

from aaca.data.scenegraph.store import PackedGraphs
from aaca.discover.captions.filter import random_filter
from aaca.runtime.files import atomic_path, digest
from aaca.runtime.seeding import purpose_seed

from .caption_filtered_set import filter_test
from .caption_intervals import differences, in_words, over_images, table_of
from .caption_part import Part
from .caption_ratings import Rated, rate, report
from .caption_run import CaptionRun, named


def filter_annotations(run: CaptionRun) -> float:
    """Filter train and train on what is left, or filter test and score what is left; CIDEr-D of that on test."""
    return filter_test(run) if run.options.filter.set == "test" else filter_train(run)


def filter_train(run: CaptionRun) -> float:
    """Train on all, on what the filter keeps, on as many at random, and without what was planted; score on test.

    All see as many captions in training, however many are kept. The differences' intervals are over test images only:
    each of the captioners is trained once, with one seed.
    """
    rated = rate(run)
    names, kept = rated.names, rated.found.kept
    control = random_filter(names, len(kept), purpose_seed(run.options.seed, "random filter") % 2**31)
    parts = {"all": names, "filtered": list(kept), "random": list(control.kept)}
    if clean := [name for name in names if name not in rated.planted] if rated.planted else []:
        parts["without the planted"] = clean
    test, packed = (rated.stages.packed(name)[1] for name in (run.options.graphs.test, run.options.graphs.train))
    said = {kind: _said(run, rated, part) for kind, part in parts.items()}
    rows = [
        {
            "trained on": kind,
            "captions": len(parts[kind]),
            "epochs": _epochs(run, packed, parts[kind]),
            **named(run.figures(test, captions)),
        }
        for kind, captions in said.items()
    ]
    frame = pd.DataFrame(rows)
    tables = {kind: table_of(run, test, said[kind]) for kind in ("all", "filtered", "random")}
    pairs = {f"filtered - {kind}": (tables["filtered"], tables[kind]) for kind in ("random", "all")}
    sure = differences(run, pairs)
    if run.first:
        for file, one in (("filter.csv", frame), ("filter_differences.csv", sure)):
            with atomic_path(run.folder / file) as temporary:
                one.to_csv(temporary, index=False)
        run.table("captions of test, by what they were learnt from", frame)
        run.table(f"differences on test, with {over_images(run)} (not over seeds of training)", _wide(sure))
        numbers = {f"{one.difference} {one.figure}": float(one.value) for one in sure.itertuples()}
        run.options.logger.record("caption filter", numbers, {"filter": frame, "filter differences": sure}, {})
    report(run, rated)
    return float(frame.loc[frame["trained on"] == "filtered", "CIDEr-D"].iloc[0])


def _said(run: CaptionRun, rated: Rated, kept: list[str]) -> dict[str, str]:
    # what a captioner trained on these samples says of the test set
    options, stages = run.options, rated.stages
    packed = stages.packed(options.graphs.train)[1]
    rows = {packed.name(row): row for row in range(len(packed))}
    whole = len(kept) == len(packed)
    part = None if whole else Part(packed, [rows[name] for name in kept])
    settings = None if whole else {"samples": digest(sorted(kept))}
    fitted, model = stages.captioner(part, settings, _epochs(run, packed, kept))
    frame = stages.captions(fitted, model, options.graphs.test)
    return dict(zip(frame["name"], frame["caption"], strict=True))


def _epochs(run: CaptionRun, packed: PackedGraphs, kept: list[str]) -> int:
    # so many that a part is trained on as many captions as all are, but for half an epoch
    return round(run.options.training.epochs * len(packed) / len(kept))


def _wide(sure: pd.DataFrame) -> pd.DataFrame:
    texts = sure.assign(text=[in_words(*one) for one in sure[["value", "low", "high"]].itertuples(index=False)])
    wide = texts.pivot(index="difference", columns="figure", values="text")
    return wide.loc[texts["difference"].unique(), texts["figure"].unique()].reset_index()
