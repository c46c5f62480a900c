"""The stages of the job `debug`, in order: benchmark, f0, features, debug set, refit, predictions, outcome."""

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from aaca.concepts.concept_sets import ConceptSets
from aaca.data.benchmark import Benchmark
from aaca.data.features import Scored
from aaca.debugset.build import select_debug_set
from aaca.debugset.debug_set import DebugSet
from aaca.evaluate.outcome import FILE, Outcome
from aaca.evaluate.story import write_story
from aaca.models.classifier import Classifier
from aaca.repair.base import RepairContext
from aaca.runtime.config import identity, load_config
from aaca.runtime.files import file_sha256
from aaca.runtime.memory import reset_peak_memory
from aaca.runtime.ranks import current
from aaca.runtime.run_folder import claim
from aaca.runtime.seeding import purpose_seed
from aaca.runtime.stages import Stage, StageCache
from aaca.runtime.trial import Trial
from aaca.training.fit import WEIGHTS

from .classifier_stages import ClassifierStages
from .debug_blamed import ConceptParts
from .debug_checks import check_feasible, check_inputs, check_k
from .debug_codes import concept_model
from .debug_config import DebugConfig
from .debug_discover import DiscoverStages
from .debug_generate import GenerateStages
from .debug_outcome import Finished, outcome_of, predictions_of, write_run
from .debug_rivals import RivalStages
from .debug_story import story_of
from .neuron_stages import EditParts, NeuronStages

log = logging.getLogger(__name__)
TESTS = ("test", "test_seen")


def debug(trial: Trial) -> Outcome:
    """Run the job once and write `outcome.json` and its tables into the run's folder; a finished run is read again."""
    options = load_config(trial.config, DebugConfig)
    check_feasible(options)
    dataset = options.dataset.fingerprint()  # looks at the files: a wrong folder fails before anything is written
    given = {} if options.weights is None else {"weights": file_sha256(Path(options.weights))}
    log.info("method %s, seed %d  →  %s", options.method.name, options.seed, trial.path)
    identity = claim(trial, {**dataset, **given}, options.resume.force)
    found = _finished(trial, identity) if options.resume.mode == "auto" and current().rank == 0 else None
    found = current().share(None if found is None else found.to_json())
    if found is not None:
        log.info("finished before; nothing has changed since")
        return Outcome.from_json(found)
    cache = StageCache(Path(options.paths.root).absolute(), resume=options.resume.mode == "auto")
    return DebugRun(options, cache, dataset, trial, identity).outcome()


def _finished(trial: Trial, identity: str) -> Outcome | None:
    # an outcome of other images, of another config, or of other code does not count; it stays until a new one is there
    if not (trial.path / FILE).is_file():
        return None
    outcome = Outcome.load(trial.path)
    return outcome if outcome.identity == identity else None


@dataclass
class DebugRun(ClassifierStages):
    """One run: each method makes or finds one stage, whose key holds exactly what influences it."""

    options: DebugConfig
    trial: Trial
    identity: str  # of config, dataset and code

    def __post_init__(self) -> None:
        self.discovery: DiscoverStages | RivalStages | None = None
        self.sets: ConceptSets | None = None
        self.sets_key = ""  # of the stage that holds them
        self.options.logger.begin(self.cache.root, self.options.study, self.trial.overrides, self.trial.config)

    def benchmark(self) -> tuple[Stage, Benchmark]:
        """See `ClassifierStages`; refuses a K that the images cannot fill."""
        stage, benchmark = super().benchmark()
        self._check_budget(benchmark)
        return stage, benchmark

    def _check_budget(self, benchmark: Benchmark) -> None:
        source = self.options.debugset.candidates
        if source in ("pool", "train"):
            sizes = np.bincount(benchmark.split(source).labels, minlength=len(benchmark.classes))
            check_k(self.options.debugset, int(sizes.max(initial=0)))

    def classifier(self, weights: Stage, n_classes: int) -> Classifier:
        """The classifier of a stage; what a repair left may be of another architecture."""
        options = self.options
        if weights.name == "refit":
            return options.repair.restored(options.model, n_classes, options.recipe, weights.folder, options.clip)
        return super().classifier(weights, n_classes)

    def debug_set(
        self, benchmark_key: str, benchmark: Benchmark, f0: Stage, audit: Scored
    ) -> tuple[Stage | None, DebugSet | None]:
        """(stage, the images the method adds), picked class by class; None and None for the control without any."""
        options = self.options
        config, selector = options.debugset, options.selector
        if config.candidates == "none":
            return None, None
        if config.candidates == "generated":
            return self.generated_set(benchmark_key, benchmark, f0, audit)
        table = benchmark.split(config.candidates)
        if selector.needs_features:
            candidates = self.features(f0, benchmark_key, table, config.candidates, selector.mc_samples)
        else:
            nothing = np.zeros((len(table), 0), dtype=np.float32)
            candidates = Scored.of(table.ids, table.labels, nothing, nothing)
        train = None
        if selector.needs_train:
            train = self.features(f0, benchmark_key, benchmark.split("train"), "train")

        def make(folder: Path) -> None:
            seed = purpose_seed(options.seed, "select")
            picked = select_debug_set(selector, candidates, table, audit, train, config.per_class, seed, config.fill)
            picked.save(folder)

        inputs = {
            "f0": f0.key,
            "selector": identity(selector),
            "config": vars(config),
            "seed": options.seed,
        }
        stage = self.cache.stage("debugset", inputs, make)
        return stage, DebugSet.load(stage.folder)

    def generated_set(
        self, benchmark_key: str, benchmark: Benchmark, f0: Stage, audit: Scored
    ) -> tuple[Stage, DebugSet]:
        """(stage, what the generator made, less what the filters drop, picked class by class)."""
        options = self.options
        stages = GenerateStages(options, self.cache, benchmark_key, benchmark, self.sets)
        made = stages.images()
        features = self.features(f0, made.key, made.table, "generated", options.selector.mc_samples)
        train = None
        if options.selector.needs_train:
            train = self.features(f0, benchmark_key, benchmark.split("train"), "train")
        stage = stages.debug_set(made, features, audit, train, f0.key)
        return stage, DebugSet.load(stage.folder)

    def discover(
        self, benchmark_key: str, benchmark: Benchmark, f0: Stage, audit: Scored
    ) -> DiscoverStages | RivalStages:
        """The stages that find out why f0 fails: by asking people, or by a rival that asks nobody."""
        if self.options.discovery is not None:
            neurons = self.neurons(benchmark_key, benchmark, f0)
            return RivalStages(self.options, self.cache, benchmark_key, benchmark, f0, audit, neurons)
        classifier = self.classifier(f0, len(benchmark.classes)).eval()
        return DiscoverStages(self.options, self.cache, benchmark_key, benchmark, f0, classifier, audit)

    def neurons(self, benchmark_key: str, benchmark: Benchmark, f0: Stage) -> NeuronStages:
        """The stages about f0's neurons."""
        options = self.options
        return NeuronStages(
            self, benchmark_key, benchmark, f0, options.inspect, options.neuron_names, options.votes.merge
        )

    def refit(
        self, benchmark_key: str, benchmark: Benchmark, f0: Stage, debug_key: str, debug: DebugSet | None
    ) -> Stage:
        """The repaired classifier. Every method of a comparison draws the same number of images an epoch."""
        options = self.options
        epoch_size = len(benchmark.split("train")) + options.debugset.per_class * len(benchmark.classes)
        known = ConceptParts.of(options, self.cache, benchmark_key, benchmark, self.sets, self.sets_key)
        codes_key, taken_apart = "", None
        if options.repair.needs_bottleneck:
            codes_key, taken_apart = concept_model(options, self.cache, benchmark_key, benchmark, self.sets)
        edit = EditParts.of(options.repair, self.neurons(benchmark_key, benchmark, f0), self.sets_key)

        def make(folder: Path) -> None:
            context = RepairContext(
                benchmark=benchmark,
                debug=debug.table if debug else None,
                f0_weights=f0.folder / WEIGHTS,
                model=options.model,
                recipe=options.recipe,
                trainer=options.trainer,
                rule=options.selection_rule,
                epoch_size=epoch_size,
                seed=options.seed,
                resume=options.resume,
                pairs=known.pairs(),
                masks=known.masks,
                teacher=options.teacher if options.repair.takes_teacher else None,
                bottleneck=taken_apart,
                sets=self.sets,
                banks=edit.banks,
                inspection=edit.inspection,
                responses=edit.responses,
            )
            with self.loggers("refit", folder) as loggers:
                options.repair.apply(replace(context, loggers=loggers), folder)

        inputs = {
            "benchmark": benchmark_key,
            "f0": f0.key,
            "debugset": debug_key,
            "epoch_size": epoch_size,
            "repair": {**identity(options.repair), **options.repair.fingerprint()},
            **known.inputs,
            **({"codes": codes_key, "concept_sets": self.sets_key} if codes_key else {}),
            **edit.inputs,
            **self.fit_inputs(),
        }
        return self.cache.stage("refit", inputs, make, together=True)

    def outcome(self) -> Outcome:
        """Run all stages, compare f0 and the repaired classifier on test, and write the run's folder."""
        reset_peak_memory()
        began, started = time.perf_counter(), time.strftime("%Y-%m-%dT%H:%M:%S%z")
        bench_stage, benchmark = self.benchmark()
        key = bench_stage.key
        if self.options.generator is not None:
            self.options.generator.check(benchmark.classes)
        check_inputs(self.options, benchmark)
        f0 = self.f0(key, benchmark)
        audit = self.features(f0, key, benchmark.split("audit"), "audit")
        wrong = int((audit.predictions != audit.labels).sum())
        log.info("f0 fails on %d of %d audit images", wrong, len(audit))
        if self.options.discovers:
            self.discovery = self.discover(key, benchmark, f0, audit)
            stage, self.sets = self.discovery.concept_sets()
            self.sets_key = stage.key
        now: Scored | None = None  # the repaired classifier on audit, where it is looked at
        debug_stage, picked = self.debug_set(key, benchmark, f0, audit)
        repaired = self.refit(key, benchmark, f0, debug_stage.key if debug_stage else "", picked)
        if isinstance(self.discovery, DiscoverStages) and self.options.repair.keeps_model:
            now = self.features(repaired, key, benchmark.split("audit"), "audit")
            self.discovery.reanalysis(repaired, self.classifier(repaired, len(benchmark.classes)).eval(), now)
        tests = benchmark.table.take(benchmark.table.frame["split"].isin(TESTS).to_numpy())
        before = self.features(f0, key, tests, "tests")
        after = self.features(repaired, key, tests, "tests")
        finished = Finished(
            benchmark=benchmark,
            audit=audit,
            debug_stage=debug_stage,
            debug=picked,
            f0=f0,
            repaired=repaired,
            predictions=predictions_of(tests, before, after),
            history=self.cache.history,
            discovered=self.discovery.kept if self.discovery else {},
            sets=self.sets,
        )
        outcome = outcome_of(finished, self.options, self.trial.choices, self.trial.overrides, started)
        outcome.identity = self.identity
        if current().rank == 0:
            if isinstance(self.discovery, DiscoverStages) and self.sets and now:
                write_story(self.trial.path, story_of(self.discovery, self.sets, now, picked, outcome))
            write_run(self.trial.path, outcome, finished, self.options.logger)
        numbers = f"accuracy {outcome.accuracy:.3f}, worst group {outcome.worst_group_accuracy:.3f}"
        log.info("%s: %s (%.1f s)", outcome.label, numbers, time.perf_counter() - began)
        return outcome
