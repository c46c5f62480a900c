"""From finished stages to the run's folder: predictions, costs, `outcome.json`, tables and pictures."""

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from aaca import __version__
from aaca.concepts.concept_sets import ConceptSets
from aaca.data.benchmark import Benchmark
from aaca.data.features import Scored
from aaca.data.table import ImageTable
from aaca.debugset.debug_set import DebugSet
from aaca.discover.truth import recovery
from aaca.evaluate.dashboard import Dashboard
from aaca.evaluate.debugset_page import write_page
from aaca.evaluate.examples import write_examples
from aaca.evaluate.outcome import PREDICTIONS, Outcome, groups_of, summarise
from aaca.repair.concept_report import REPORT
from aaca.repair.edit import REPORT as EDIT
from aaca.runtime.files import atomic_path, digest
from aaca.runtime.memory import peak_memory_mb
from aaca.runtime.stages import Stage

from .debug_config import DebugConfig
from .debug_examples import run_examples

RECOVERY = "recovery.csv"  # how well the concept sets name a planted bug, where there is one
CANDIDATES = "candidates.parquet"
"""All images that a generator made, with their scores and the reason why one was dropped."""


@dataclass(frozen=True)
class Finished:
    """What the stages of one run have made."""

    benchmark: Benchmark
    audit: Scored  # f0 on audit
    debug_stage: Stage | None
    debug: DebugSet | None
    f0: Stage
    repaired: Stage
    predictions: pd.DataFrame
    discovered: dict[str, Path]  # name → file, where it was found out why f0 fails
    sets: ConceptSets | None  # the verdict of that
    history: list[Stage]  # all stages in the order they were touched; the last is the repaired classifier on the tests


def predictions_of(tests: ImageTable, before: Scored, after: Scored) -> pd.DataFrame:
    """One row a test image: what it is, what f0 and the repaired classifier say, and their belief in the true class."""
    frame = tests.frame[["id", "label", "group", "slice", "split", "source"]].copy()
    rows = np.arange(len(frame))
    for name, scored in (("before", before), ("after", after)):
        probabilities = scored.probabilities
        frame[name] = probabilities.argmax(axis=1)
        frame[f"p_{name}"] = probabilities[rows, tests.labels]
    return frame


def outcome_of(
    finished: Finished, options: DebugConfig, choices: Mapping[str, str], overrides: list[str], started: str
) -> Outcome:
    """All numbers of the run, with what determined them."""
    benchmark, debug = finished.benchmark, finished.debug
    train_groups = groups_of(benchmark.split("train").frame, benchmark.classes)
    refit = finished.repaired.key
    return Outcome(
        key=digest(
            {
                "method": options.method.name,
                "refit": refit,
                "debugset": finished.debug_stage.key if finished.debug_stage else "",
            }
        ),
        method=options.method.name,
        seed=options.seed,
        dataset=choices["dataset"],
        model=choices["model"],
        size=options.size,
        recipe=choices["recipe"],
        selection_rule=options.selection_rule,
        init=str(options.repair.fingerprint().get("init", "")),
        per_class=options.debugset.per_class,
        annotator=str(finished.sets.meta["annotator"]) if finished.sets else "",
        asks_for=options.repair.asks_for,
        overrides=overrides,
        classes=list(benchmark.classes),
        headline_slice=benchmark.headline_slice,
        description=benchmark.description,
        confounders=benchmark.confounders,
        n_train=len(train_groups),
        n_debug=len(debug.table) if debug else 0,
        n_debug_unique=debug.table.frame["origin_id"].nunique() if debug else 0,
        shortfalls=debug.shortfalls if debug else {},
        split_sizes=benchmark.table.frame["split"].value_counts().to_dict(),
        started=started,
        finished=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        aaca_version=__version__,
        peak_memory_mb=peak_memory_mb(),
        **_costs(finished),
        **summarise(finished.predictions, train_groups, benchmark.classes, benchmark.headline_slice),
    )


def _costs(finished: Finished) -> dict[str, Any]:
    """Seconds by stage; the method's own are its selection, its refit and the refit's test pass."""
    history = list({stage.key: stage for stage in reversed(finished.history)}.values())[::-1]  # each once
    last = finished.history[-1].key
    shared = {stage.key for stage in history[: history.index(finished.f0) + 1]}
    shared |= {stage.key for stage in history if stage.name == "features"} - {last}
    names = [f"{stage.name}-{number}" for number, stage in enumerate(history, start=1)]
    fit = json.loads((finished.repaired.folder / "fit.json").read_text(encoding="utf-8"))
    return {
        "stage_seconds": {name: stage.seconds for name, stage in zip(names, history, strict=True)},
        "stage_reused": {name: stage.reused for name, stage in zip(names, history, strict=True)},
        "seconds": sum(stage.seconds for stage in history if stage.key not in shared),
        "seconds_total": sum(stage.seconds for stage in history),
        "updates": fit["updates"],
    }


def write_run(run_dir: Path, outcome: Outcome, finished: Finished, dashboard: Dashboard) -> None:
    """The run's folder: tables and pictures first, `outcome.json` last, so that a run with one is complete."""
    with atomic_path(run_dir / PREDICTIONS) as temporary:
        finished.predictions.to_parquet(temporary, index=False)
    if finished.debug is not None:
        finished.debug.table.save(run_dir / "debugset.parquet")
        if finished.debug.funnel and finished.debug_stage is not None:
            candidates = pd.read_parquet(finished.debug_stage.folder / CANDIDATES)
            table = ImageTable.build(candidates, finished.benchmark.classes)
            settings = {"seed": outcome.seed, "dataset": outcome.dataset, "images a class": outcome.per_class}
            write_page(run_dir, outcome.method, table, finished.debug.funnel, finished.debug.quality, settings)
    reports = {name: finished.repaired.folder / name for name in (REPORT, EDIT)}
    kept = {name: file for name, file in reports.items() if file.is_file()}
    for name, file in {**finished.discovered, **kept}.items():
        with atomic_path(run_dir / name) as temporary:
            shutil.copyfile(file, temporary)
    if finished.sets is not None and outcome.confounders:
        with atomic_path(run_dir / RECOVERY) as temporary:
            recovery(finished.sets, outcome.confounders).to_csv(temporary, index=False)
    write_examples(run_dir, run_examples(finished.benchmark, finished.audit, finished.debug))
    outcome.save(run_dir)
    numbers = {name: value for name, value in outcome.to_json().items() if isinstance(value, int | float | str)}
    sheets = {path.stem: path for path in sorted((run_dir / "examples").glob("*.png"))}
    dashboard.record("outcome", numbers, {"groups": pd.DataFrame(outcome.groups)}, sheets)
