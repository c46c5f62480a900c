"""What the jobs `inspect`, `illusion` and `edit` make and print."""

import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from aaca.annotate.aggregate import VoteRules
from aaca.annotate.neuron_tasks import names_from_answers, neuron_tasks, sets_from_answers, write_neuron_pack
from aaca.concepts.concept_sets import ConceptKind, ConceptSets
from aaca.discover.concepts.vocabulary import Vocabulary
from aaca.discover.neurons.inspect import REPORT as INSPECTION
from aaca.discover.neurons.inspect import TABLE, Inspection, check_names
from aaca.evaluate.neuron_page import write_neurons
from aaca.evaluate.neuron_sheet import neuron_sheet, neuron_task_picture
from aaca.models.head import Head
from aaca.repair.base import RepairContext
from aaca.repair.edit import REPORT, listed
from aaca.runtime.config import identity, load_config
from aaca.runtime.errors import ConfigError, nearest
from aaca.runtime.files import atomic_path, ensure_writable, file_sha256, read_json, write_json
from aaca.runtime.ranks import current
from aaca.runtime.run_folder import claim
from aaca.runtime.stages import Stage, StageCache
from aaca.runtime.trial import Trial
from aaca.training.fit import WEIGHTS

from .classifier_stages import ClassifierStages
from .debug_discover import SETS
from .debug_run import TESTS
from .neuron_change import Edit
from .neuron_config import NeuronsConfig, without_debug_sets
from .neuron_stages import ASKED_OF, EditParts, NeuronStages
from .neuron_truth import found_table
from .neuron_view import PageParts, activation_maps, illusion_tile, tiles_of, top_rows, view_of

log = logging.getLogger(__name__)
METRICS, CSV, SHEET, FOUND, CHANGE = "metrics.json", "neurons.csv", "illusions.png", "found.csv", "change.csv"
NAMING_TILES = 9  # images that a person names a neuron by


class NeuronRun:
    """One job: the stages it needs, and its folder."""

    def __init__(self, trial: Trial) -> None:
        self.options = options = load_config(without_debug_sets(trial.config), NeuronsConfig)
        options.repair.check(options.model, options.recipe)
        self.folder = trial.path
        cache = StageCache(Path(options.paths.root).absolute(), resume=options.resume.mode == "auto")
        ensure_writable(self.folder, "paths.root")
        dataset = options.dataset.fingerprint()
        given = {} if options.weights is None else {"weights": file_sha256(Path(options.weights))}
        claim(trial, {**dataset, **given}, options.resume.force)
        options.logger.begin(cache.root, trial.job, trial.overrides, trial.config)
        self.base = ClassifierStages(options, cache, dataset)
        stage, self.benchmark = self.base.benchmark()
        self._check()
        f0 = self.base.f0(stage.key, self.benchmark)
        self.stages = NeuronStages(
            self.base, stage.key, self.benchmark, f0, options.inspect, options.neuron_names, options.merge
        )
        self.f0 = f0
        self.console = Console(width=None if sys.stdout.isatty() else 160)

    def _check(self) -> None:
        # what the images show to be impossible, before any training
        options, classes = self.options, self.benchmark.classes
        check_names(options.inspect.classes, classes)
        for name in options.illusion.neurons or {}:
            if name not in classes:
                raise ConfigError(f"illusion.neurons: no class {name!r}; {nearest(name, classes)}")
        if options.concepts is not None:
            options.concepts.check(self.benchmark.split("audit"))
        options.repair.check_images(self.benchmark)
        self._sets()

    @property
    def first(self) -> bool:
        """Whether this process writes."""
        return current().rank == 0

    def inspect(self) -> None:
        """Job `inspect`: report, table, names, page, and tasks for people who name neurons."""
        stage, found = self.stages.inspection()
        names = self.stages.names()[1]
        drawn = self._drawn(found) if self.options.page.illusions else None
        truth = None
        if self.options.neuron_names.by == "masks" and self.benchmark.confounders:
            least = self.options.neuron_names.least_score
            truth = found_table(found, self.stages.responses()[1], self.benchmark.confounders, least)
        parts = self._parts(found, names, drawn)  # a stage: all ranks ask
        if not self.first:
            return
        self._publish(stage, (INSPECTION, TABLE))
        table = found.table().merge(names, on="neuron", how="left", suffixes=("", "_of_name"))
        with atomic_path(self.folder / CSV) as temporary:
            table.to_csv(temporary, index=False)
        if truth is not None:
            with atomic_path(self.folder / FOUND) as temporary:
                truth.to_csv(temporary, index=False)
        page = write_neurons(self.folder, view_of(parts))
        tasks = self._tasks(found, parts)
        self._inspection_table(found, names)
        if truth is not None and len(truth):
            self._table("planted confounders among the first neurons of each list", truth)
        self.options.logger.record("inspect", {}, {"neurons": table}, {})
        if self.options.neuron_names.by == "people":
            self._people(found)
        print(f"page: {page}")
        print(f"{tasks} tasks for people who name these neurons: aaca annotate run={self.folder}")

    def illusion(self) -> None:
        """Job `illusion`: made-up images of neurons, a sheet and a table of them."""
        _, found = self.stages.inspection()
        stage, index = self._drawn(found)
        if not self.first:
            return
        classes = self.benchmark.classes
        table = index.assign(**{"class": [classes[label] for label in index["label"]]})
        with atomic_path(self.folder / "illusions.csv") as temporary:
            table.to_csv(temporary, index=False)
        rows = [
            (
                f"neuron {neuron} for {classes[label]}{' (dead)' if own['dead'].all() else ''}",
                [illusion_tile(stage, entry) for _, entry in own.iterrows()],
            )
            for (label, neuron), own in index[~index["failed"]].groupby(["label", "neuron"], sort=False)
        ]
        with atomic_path(self.folder / SHEET) as temporary:
            neuron_sheet(rows).save(temporary, format="PNG")
        shown = table.groupby(["class", "neuron"], sort=False)[
            ["activation_before", "activation_after", "quantile", "above_quantile", "probability", "similarity", "dead"]
        ].mean()
        self._table("illusions: means over copies", shown.reset_index())
        numbers = {name: float(index[name].mean()) for name in ("above_quantile", "probability", "dead")}
        self.options.logger.record("illusion", numbers, {"illusions": table}, {"illusions": self.folder / SHEET})
        print(f"images: {stage}")
        print(f"sheet: {self.folder / SHEET}")

    def edit(self) -> float:
        """Job `edit`: before and after on test, and the page; returns the lowest class accuracy on audit afterwards."""
        _, found = self.stages.inspection()
        names = self.stages.names()[1]
        stage = self._edited()
        tests = self.benchmark.table.take(self.benchmark.table.frame["split"].isin(TESTS).to_numpy())
        bank = self.stages.bank("tests", tests)
        head = Head.of(self.base.classifier(stage, len(self.benchmark.classes)))
        told = read_json(stage.folder / REPORT)
        named = told["neurons"]
        chosen = {self.benchmark.classes.index(name): ids for name, ids in named.items()}
        edit = Edit(self.benchmark, tests, bank, head, chosen)
        predictions = edit.predictions()
        metrics = edit.metrics(predictions)
        worst = float(told["history"][told["kept_epoch"]]["min_class_accuracy"])  # a search must not see test
        drawn = self._drawn(found) if self.options.page.illusions else None
        parts = self._parts(found, names, drawn)  # a stage: all ranks ask
        if not self.first:
            return worst
        self._publish(stage, (REPORT,))
        with atomic_path(self.folder / "predictions.parquet") as temporary:
            predictions.to_parquet(temporary, index=False)
        write_json(self.folder / METRICS, metrics)
        change = edit.change(predictions, metrics, self.options.repair.method, self.options.page.images)
        page = write_neurons(self.folder, view_of(replace(parts, after=head, chosen=chosen, change=change)))
        frame = pd.DataFrame(change.rows, columns=["on test", "before", "after"])
        with atomic_path(self.folder / CHANGE) as temporary:
            edit.headline(metrics).to_csv(temporary, index=False)
        self._table(f"edit: {self.options.repair.method}", frame)
        self.options.logger.record("edit", {name: after for name, _, after in change.rows}, {"change": frame}, {})
        print(f"page: {page}")
        print(f"weights: {stage.folder / WEIGHTS}")
        return worst

    def _edited(self) -> Stage:
        options, stages = self.options, self.stages
        sets = self._sets()
        key = file_sha256(Path(options.sets)) if sets is not None and options.sets else ""
        parts = EditParts.of(options.repair, stages, key)
        seed = options.seed

        def make(folder: Path) -> None:
            context = RepairContext(
                benchmark=self.benchmark,
                debug=None,
                f0_weights=self.f0.folder / WEIGHTS,
                model=options.model,
                recipe=options.recipe,
                trainer=options.trainer,
                rule=options.selection_rule,
                epoch_size=len(parts.banks["train"]),
                seed=seed,
                resume=options.resume,
                sets=sets,
                banks=parts.banks,
                inspection=parts.inspection,
                responses=parts.responses,
            )
            with self.base.loggers("edit", folder) as loggers:
                options.repair.apply(replace(context, loggers=loggers), folder)

        inputs = {
            "f0": self.f0.key,
            "benchmark": stages.benchmark_key,
            "repair": {**identity(options.repair), **options.repair.fingerprint()},
            **parts.inputs,
            "fit": self.base.fit_inputs() if options.repair.features == "live" else None,
            "seed": seed,
        }
        return self.base.cache.stage("edit", inputs, make, together=True)

    def _sets(self) -> ConceptSets | None:
        if not self.options.repair.needs_sets:
            return None
        assert self.options.sets is not None
        return ConceptSets.load(Path(self.options.sets), self.benchmark.classes)

    def _drawn(self, found: Inspection) -> tuple[Path, pd.DataFrame]:
        config = self.options.illusion
        if config.neurons is not None:
            wanted = listed(config.neurons, self.benchmark.classes, self.stages.head.neurons, "illusion.neurons")
        else:
            wanted = eyes_of(found, self.benchmark.classes, config.top)
        if not wanted:
            raise ConfigError("illusion.neurons: none, and the inspection lists none; expected {class: [ids]}")
        stage, index = self.stages.illusions(wanted, config)
        return stage.folder, index

    def _parts(self, found: Inspection, names: pd.DataFrame, drawn: tuple[Path, pd.DataFrame] | None) -> PageParts:
        classifier = self.base.classifier(self.f0, len(self.benchmark.classes))
        bank = self.stages.bank("audit")
        return PageParts(self.benchmark, found, bank, classifier, self.options.page, names, drawn)

    def _tasks(self, found: Inspection, parts: PageParts) -> int:
        # one task a class, list and neuron that the page shows
        table = found.table()
        table = table[table["rank"] <= self.options.page.cards]
        rows = {neuron: top_rows(parts.bank.features, neuron, NAMING_TILES) for neuron in table["neuron"].unique()}
        pairs = [(neuron, row) for neuron, own in rows.items() for row in own]
        maps = activation_maps(parts.classifier, self.benchmark.split("audit"), pairs)
        table = table[np.array([bool(rows[neuron]) for neuron in table["neuron"]], dtype=bool)]
        classes = self.benchmark.classes
        rivals = {report.name: next(iter(report.rivals)) for report in found.reports if report.rivals}
        words = Vocabulary.load(self.options.neuron_names.vocabulary, "neuron_names.vocabulary")
        others = list(zip(words.names, words.kinds, strict=True))
        tasks = neuron_tasks(table, classes, rivals, self._likely(parts, table["neuron"].tolist()), others)
        write_json(self.folder / ASKED_OF, {"f0": self.f0.key})
        write_neuron_pack(
            self.folder, tasks, lambda neuron, _: neuron_task_picture(tiles_of(parts, neuron, rows[neuron], maps))
        )
        return len(tasks)

    def _people(self, found: Inspection) -> None:
        # what people's answers come to: concept sets, and the neurons that answer to what does not belong
        answers, tasks = self.stages.answered()
        said = names_from_answers(answers, tasks)
        classes = self.benchmark.classes
        verdicts = sets_from_answers(answers, tasks, found.table(), VoteRules(votes=1, people=1), classes)
        who = ", ".join(sorted({answer.annotator for answer in answers}))
        ConceptSets(verdicts.classes, {"annotator": who, "discovery": "neurons"}).save(self.folder / SETS)
        print(f"concept sets: {self.folder / SETS}")
        spurious = said[said["spurious"]]
        if len(spurious):
            listed = {name: own["neuron"].tolist() for name, own in spurious.groupby("class")}
            shown = ",".join(f"{name}:{ids}" for name, ids in listed.items()).replace(" ", "")
            print(f"spurious: aaca edit repair.choose=listed 'repair.neurons={{{shown}}}'")

    def _likely(self, parts: PageParts, neurons: Sequence[int]) -> dict[int, list[tuple[str, ConceptKind]]]:
        # what a person is offered first: the names that were found
        own = parts.names[parts.names["neuron"].isin(neurons) & (parts.names["concept"] != "")]
        return {int(row.neuron): [(str(row.concept), row.kind)] for row in own.itertuples()}

    def _publish(self, stage: Stage, files: Sequence[str]) -> None:
        for name in files:
            with atomic_path(self.folder / name) as temporary:
                temporary.write_bytes((stage.folder / name).read_bytes())

    def _inspection_table(self, found: Inspection, names: pd.DataFrame) -> None:
        called = dict(zip(names["neuron"], names["concept"], strict=True))
        table = found.table()
        table = table[table["rank"] <= 5]
        shown = pd.DataFrame(
            {
                "class": table["name"],
                "list": table["list"],
                "neuron": table["neuron"],
                "votes %": table["prec"].round(1),
                "importance": table["importance"].round(3),
                "in mistakes": table["mistakes"],
                "in right images": table["correct"],
                "responds to": [called.get(neuron, "") for neuron in table["neuron"]],
            }
        )
        self._table("inspect: the first neurons of each list", shown)
        for report in found.reports:
            rivals = ", ".join(f"{name} {count}" for name, count in report.rivals.items())
            print(f"{report.name}: {report.mistakes} of {report.images} audit images are mistakes ({rivals or 'none'})")

    def _table(self, title: str, frame: pd.DataFrame) -> None:
        if not self.first:
            return
        table = Table(title=title)
        for column in frame.columns:
            table.add_column(str(column), overflow="fold")
        for row in frame.itertuples(index=False):
            table.add_row(*(_cell(value) for value in row))
        self.console.print(table)


def eyes_of(found: Inspection, classes: Sequence[str], top: int) -> dict[int, tuple[int, ...]]:
    """Label → neurons to draw with the eyes of that class: the first of each list.

    An excessive neuron speaks for the class that mistakes are taken for, and against their own: it is drawn for that.
    """
    wanted: dict[int, list[int]] = {}
    for report in found.reports:
        wanted.setdefault(report.label, []).extend(row.neuron for row in report.insufficient[:top])
        if report.rivals:
            rival = classes.index(next(iter(report.rivals)))
            wanted.setdefault(rival, []).extend(row.neuron for row in report.excessive[:top])
    return {label: tuple(dict.fromkeys(ids)) for label, ids in wanted.items() if ids}


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)) or value is pd.NA:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
