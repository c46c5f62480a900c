"""The first stages of every job about a classifier: the benchmark, the classifier that fails (f0), its features."""

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from pytorch_lightning.loggers import Logger

from aaca.data.benchmark import Benchmark, BenchmarkSource
from aaca.data.features import FeatureStore, Scored
from aaca.data.scan import verify
from aaca.data.table import ImageTable
from aaca.evaluate.dashboard import Dashboard
from aaca.models.classifier import Classifier, ClassifierSource
from aaca.models.given import load_given
from aaca.repair.base import start_classifier
from aaca.runtime.config import identity
from aaca.runtime.files import file_sha256, write_json
from aaca.runtime.log import console
from aaca.runtime.ranks import current
from aaca.runtime.seeding import purpose_seed
from aaca.runtime.stages import Stage, StageCache
from aaca.training.extract import extract_features
from aaca.training.fit import SUMMARY, WEIGHTS, FitJob, SelectionRule, fit_classifier
from aaca.training.recipe import Recipe
from aaca.training.resume import ResumeSpec
from aaca.training.trainer import TrainerSpec

log = logging.getLogger(__name__)
FORWARD_FACTOR = 4  # a forward pass alone needs far less memory than a training step


class ClassifierOptions(Protocol):
    """What of a job's config these stages read."""

    @property
    def dataset(self) -> BenchmarkSource: ...  # noqa: D102
    @property
    def model(self) -> ClassifierSource: ...  # noqa: D102
    @property
    def weights(self) -> str | None: ...  # noqa: D102
    @property
    def recipe(self) -> Recipe: ...  # noqa: D102
    @property
    def trainer(self) -> TrainerSpec: ...  # noqa: D102
    @property
    def resume(self) -> ResumeSpec: ...  # noqa: D102
    @property
    def logger(self) -> Dashboard: ...  # noqa: D102
    @property
    def seed(self) -> int: ...  # noqa: D102
    @property
    def selection_rule(self) -> SelectionRule: ...  # noqa: D102


def build_benchmark(dataset: BenchmarkSource, folder: Path) -> None:
    """The benchmark in `folder`, without the files that cannot be read."""
    benchmark = dataset.build(folder)
    if (benchmark.table.frame["row"] < 0).any():
        report = verify(benchmark, progress=console.is_terminal)
        report.save(folder)
        clean = report.clean(benchmark.table)
        replace(benchmark, table=clean, refused=report.refused).check().save(folder)


@dataclass
class ClassifierStages:
    """Each method makes or finds one stage, whose key holds exactly what influences it. `dataset`: its fingerprint."""

    options: ClassifierOptions
    cache: StageCache
    dataset: Mapping[str, Any]

    def benchmark(self) -> tuple[Stage, Benchmark]:
        """The dataset laid out; files that cannot be read are left out, and said so."""
        dataset = self.options.dataset
        stage = self.cache.stage("benchmark", self.dataset, lambda folder: build_benchmark(dataset, folder))
        benchmark = Benchmark.load(stage.folder)
        if benchmark.refused:
            log.warning(
                "%d files are left out; all are listed in %s", len(benchmark.refused), stage.folder / "findings.csv"
            )
            for file in benchmark.refused[:10]:
                log.warning("  left out: %s (%s)", file["path"], file["reason"])
        return stage, benchmark

    def f0(self, benchmark_key: str, benchmark: Benchmark) -> Stage:
        """The classifier that fails: fitted on train alone, or given (`weights`)."""
        options = self.options
        train = benchmark.split("train")
        if options.weights is not None:
            return self._given(Path(options.weights), len(train.classes))

        def make(folder: Path) -> None:
            classifier = start_classifier(options.model, len(train.classes), options.recipe, options.seed)
            job = FitJob(
                train=train,
                audit=benchmark.split("audit"),
                recipe=options.recipe,
                trainer=options.trainer,
                rule=options.selection_rule,
                epoch_size=len(train),
                seed=purpose_seed(options.seed, "order"),
                label="f0",
                resume=options.resume,
            )
            with self.loggers("f0", folder) as loggers:
                fit_classifier(classifier, replace(job, loggers=loggers), folder)

        return self.cache.stage("f0", {"benchmark": benchmark_key, **self.fit_inputs()}, make, together=True)

    def _given(self, file: Path, classes: int) -> Stage:
        model = self.options.model

        def make(folder: Path) -> None:
            load_given(model, classes, file).save(folder / WEIGHTS)
            write_json(folder / SUMMARY, {"updates": 0, "epochs": 0, "given": str(file)})

        trainer = self.options.trainer
        inputs = {
            "given": file_sha256(file),
            "model": {"class": identity(model)["class"], **model.fingerprint()},
            "classes": classes,
            "precision": trainer.precision,  # of what is computed with it: a fitted one's key holds both, too
            "accelerator": trainer.device_kind,
        }
        return self.cache.stage("f0", inputs, make)

    def loggers(self, stage: str, folder: Path) -> AbstractContextManager[list[Logger]]:
        """One dashboard run a loop, not one a rank."""
        return self.options.logger.loop(stage, folder) if current().rank == 0 else nullcontext([])

    def fit_inputs(self) -> dict[str, Any]:
        """What a fit depends on besides its images."""
        options = self.options
        return {
            "model": {"class": identity(options.model)["class"], **options.model.fingerprint()},
            "recipe": options.recipe.fingerprint(),
            "rule": options.selection_rule,
            "seed": options.seed,
            "devices": options.trainer.world,
            "precision": options.trainer.precision,
            "accelerator": options.trainer.device_kind,
        }

    def features(self, weights: Stage, benchmark_key: str, table: ImageTable, what: str, passes: int = 1) -> Scored:
        """Embeddings and logits of `table` (the rows that `what` names) under the classifier of stage `weights`."""
        options = self.options

        def make(folder: Path) -> None:
            classifier = self.classifier(weights, len(table.classes))
            seed = purpose_seed(options.seed, "passes")
            batch = FORWARD_FACTOR * options.recipe.batch_size
            label, every = f"features {what}", options.resume.every
            extract_features(classifier, table, folder, options.trainer, batch, passes, seed, label, every)

        inputs = {"weights": weights.key, "benchmark": benchmark_key, "rows": what, "passes": passes}
        if passes > 1:
            inputs |= {"seed": options.seed, "devices": options.trainer.world}
        stage = self.cache.stage("features", inputs, make, what, together=True)
        return FeatureStore(stage.folder).scored()

    def classifier(self, weights: Stage, n_classes: int) -> Classifier:
        """The classifier of a stage."""
        options = self.options
        built = options.model.build(n_classes, options.recipe.drop_path, start_weights=False)
        return built.load(weights.folder / WEIGHTS)
