"""What the jobs `features`, `sae`, `name`, `bottleneck`, `explain` and `intervene` make and print."""

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from aaca.concepts.naming import best_words
from aaca.concepts.naming_check import agreement, judge_names, purity
from aaca.data.benchmark import Benchmark, BenchmarkSource
from aaca.data.synthetic_sparse import SyntheticSparse
from aaca.data.webdataset_tars import Tars
from aaca.evaluate.bottleneck import anec, coverage, group_outcome, ncc, nec, zero_counts
from aaca.evaluate.sparse import mcc, mmcs, recovered_share, uniqueness
from aaca.models.sae import exchange
from aaca.runtime.config import load_config
from aaca.runtime.files import atomic_path, ensure_writable, read_json, write_json
from aaca.runtime.ranks import current
from aaca.runtime.run_folder import claim
from aaca.runtime.stages import Stage, StageCache
from aaca.runtime.trial import Trial

from .debug_config import without_size_presets
from .sae_config import SaeConfig
from .sae_files import CHECK, CSV, DUPLICATES, NAMES, ROUNDS, STABILITY, load_metrics, load_names, load_probe, load_sae
from .sae_names import names_of
from .sae_stages import SaeStages

log = logging.getLogger(__name__)
TARGETS = (5, 10, 15, 20, 25, 30)
SHOWN = ("explained_variance", "l0_mean", "l0_median", "dead_share", "cosine", "shrinkage")


class SaeRun:
    """One job: the stages it needs, and its folder.

    What it cannot do without is looked at before any work: `labels`, `text` (an image-text model and its words), a
    `choice` of what to switch off.
    """

    def __init__(self, trial: Trial, labels: bool = False, text: bool = False, choice: bool = False) -> None:
        self.options = load_config(without_size_presets(trial.config), SaeConfig)
        if labels:
            self.options.benchmark()
        if text:
            self.options.text()
            self.options.naming.words(())
        if choice:
            self.options.intervene.chosen()
        self.folder = trial.path
        options = self.options
        self.cache = StageCache(Path(options.paths.root).absolute(), resume=options.resume.mode == "auto")
        ensure_writable(self.folder, "paths.root")
        dataset: Any = options.dataset
        claim(trial, dataset.fingerprint(), options.resume.force)
        options.logger.begin(self.cache.root, trial.job, trial.overrides, trial.config)
        source, key = self._source()
        self.stages = SaeStages(
            cache=self.cache,
            source_key=key,
            source=source,
            encoder=options.model if options.features.of == "model" else options.clip,
            recipe=options.sae,
            trainer=options.trainer,
            resume=options.resume,
            seed=options.seed,
            splits=options.features.splits,
            dtype=options.features.dtype,
            batch_size=options.features.batch_size,
            shard_rows=options.features.shard_rows,
            trained=options.trained,
            loggers=options.logger.loop,
        )
        self.console = Console(width=None if sys.stdout.isatty() else 160)

    def _source(self) -> tuple[Benchmark | SyntheticSparse | Tars, str]:
        dataset: Any = self.options.dataset
        if not isinstance(dataset, BenchmarkSource):
            fingerprint = dataset.fingerprint()
            return dataset, str(fingerprint)
        stage = self.cache.stage("benchmark", dataset.fingerprint(), lambda folder: _build(dataset, folder))
        return Benchmark.load(stage.folder), stage.key

    @property
    def first(self) -> bool:
        """Whether this process writes."""
        return current().rank == 0

    def features(self) -> None:
        """Job `features`: every split's vectors."""
        source = self.stages.source
        splits = list(dict.fromkeys(source.table.frame["split"])) if isinstance(source, Benchmark) else ["all"]
        rows = []
        for split in splits:
            _, store = self.stages.store(split)
            rows.append(
                {"split": split, "vectors": store.n, "size": store.dim, "kind": store.dtype}
                | {"mean norm": round(store.mean_norm, 3), "content": store.content[:12]}
                | {"folder": str(store.folder)}
            )
        self._table("features", pd.DataFrame(rows))

    def sae(self) -> Stage:
        """Job `sae`: the autoencoders and what they are worth; on planted vectors also what they found again."""
        stage = self.stages.saes(self.options.naming)
        worth = load_metrics(stage)
        planted = self.stages.source.dictionary().T if isinstance(self.stages.source, SyntheticSparse) else None
        rows = []
        for number, metrics in enumerate(worth):
            sae, _ = load_sae(stage.folder, number)
            atoms = sae.atoms.detach().numpy().T
            row = {"seed": self.options.seed + number, "latents": sae.latents}
            row |= {name: metrics[name] for name in SHOWN} | {"uniqueness": uniqueness(atoms)}
            if planted is not None:
                row |= {"mmcs": mmcs(planted, atoms), "mcc": mcc(planted, atoms)}
                row |= {"recovered": recovered_share(planted, atoms)}
            rows.append(row)
        self._table("sae", pd.DataFrame(rows))
        if self.first:
            write_json(self.folder / ROUNDS, read_json(stage.folder / ROUNDS))
            if self.options.export != "none":
                self._export(stage)
            print(f"autoencoders: {stage.folder}")
        return stage

    def _export(self, stage: Stage) -> None:
        kind = self.options.export
        for number in range(len(load_metrics(stage))):
            sae, scaling = load_sae(stage.folder, number)
            place = self.folder / f"{kind}_{number}"
            if kind == "dncbm":
                exchange.write_dncbm(sae, place.with_suffix(".pt"), scaling)
            elif kind == "saelens":
                exchange.write_saelens(sae, place, scaling)
            else:
                exchange.write_dictionary_learning(sae, place, scaling)
            print(f"exported: {place}")

    def name(self) -> tuple[Stage, Stage]:
        """Job `name`: the latents' names; where ground truth is known, whether they are right."""
        stage = self.stages.saes(self.options.naming)
        source = self.stages.source
        classes = source.classes if isinstance(source, Benchmark) else ()
        names = names_of(self.stages, stage, self.options.naming, self.options.text(), classes)
        truth = ground_truth(source) if isinstance(source, Benchmark) else None
        pure = None
        if truth is not None:
            _, codes = self.stages.codes(stage, "audit")
            best = best_words(load_names(names)[0])
            pure = judge_names(purity(codes, truth.to_numpy(), list(truth.columns)), best)
        if not self.first:
            return stage, names
        for file in (NAMES, CSV, DUPLICATES, STABILITY, CHECK):
            if (names.folder / file).is_file():
                with atomic_path(self.folder / file) as temporary:
                    temporary.write_bytes((names.folder / file).read_bytes())
        table, _ = load_names(names)
        live = table[(table["rank"] == 1) & ~table["dead"].fillna(False)]
        summary: dict[str, Any] = {"latents": int((table["rank"] == 1).sum()), "live": len(live)}
        summary |= {"named": int(live["named"].sum()), "words": int(live["word"].nunique())}
        summary |= {"mean_cosine": float(live["cosine"].mean())}
        if (names.folder / CHECK).is_file():
            summary["second_judge_agrees"] = float(agreement(pd.read_parquet(names.folder / CHECK)))
        against = read_json(names.folder / STABILITY)["against"]
        if against:
            summary["cosine_between_seeds"] = float(np.mean([entry["cosine"] for entry in against]))
            summary["same_name_between_seeds"] = float(np.mean([entry["same_name"] for entry in against]))
        if pure is not None:
            clear = pure[pure["average_precision"] >= 0.5]
            summary |= {"right": float(pure["right"].mean()), "clear": len(clear)}
            summary |= {"right_of_clear": float(clear["right"].mean()) if len(clear) else float("nan")}
            summary |= {"concepts_found": int(clear["concept"].nunique())}
            pure.sort_values("average_precision", ascending=False).to_csv(self.folder / "purity.csv", index=False)
        self._table("names", pd.DataFrame([summary]))
        shown = live[live["named"]].sort_values("cosine", ascending=False)[
            ["latent", "word", "cosine", "margin", "z", "density"]
        ]
        self._print("the surest names", shown.head(12))
        return stage, names

    def bottleneck(self) -> tuple[Stage, Stage]:
        """Job `bottleneck`: the probe, its accuracy, how sparse it is, and accuracy by sparsity; also of a control.

        The control reads as many random directions, as many of them on: what it can do is not the concepts' merit.
        """
        saes = self.stages.saes(self.options.naming)
        probe_stage = self.stages.probe(saes, self.options.probe)
        found: dict[str, Any] = {}
        weight, bias = load_probe(probe_stage).raw()
        for split in ("audit", "test"):
            codes = self.stages.codes(saes, split)[1]
            found |= {f"{split}_{name}": value for name, value in self.outcome(split, codes, weight, bias).items()}
        test, at = self.stages.codes(saes, "test")[1], self.stages.at_nec(saes, TARGETS)
        control = self.stages.at_nec(saes, TARGETS, at_random=True)
        if self.first:
            found |= {"nec": nec(weight), "ncc_95": ncc(test, weight), "anec": _anec(at), "anec_random": _anec(control)}
            found |= {"coverage_95": coverage(test, weight, 0.95, "absolute", "predicted", bias)}
            found |= {f"accuracy_at_{target}": value for target, value in at.items()}
            found |= {f"random_at_{target}": value for target, value in control.items()}
            write_json(self.folder / "bottleneck.json", {**found, "zeros": _texts(zero_counts(weight))})
        self._table("bottleneck", pd.DataFrame([found]))
        return saes, probe_stage

    def outcome(self, split: str, codes: Any, weight: np.ndarray, bias: np.ndarray | None) -> dict[str, float]:
        """Accuracy and worst group of a split."""
        table = self._benchmark().split(split)
        groups = pd.factorize(table.frame["group"], sort=True)[0]
        whole = group_outcome(codes, weight, bias, table.labels, groups)
        return {name: float(whole[name]) for name in ("accuracy", "worst_group_accuracy", "balanced_accuracy")}

    def _benchmark(self) -> Benchmark:
        assert isinstance(self.stages.source, Benchmark)
        return self.stages.source

    def explain(self) -> None:
        """Job `explain`: figures, tables and a page that say what the bottleneck looks at."""
        from .sae_explain import SHOWN as SHOWN_SPLITS
        from .sae_explain import explain

        saes, names = self.name()
        probe = self.stages.probe(saes, self.options.probe)
        codes = {split: self.stages.codes(saes, split)[1] for split in SHOWN_SPLITS}
        if self.first:
            explain(self.options, self.folder, self._benchmark(), codes, load_probe(probe), *load_names(names))

    def intervene(self) -> None:
        """Job `intervene`: accuracy and worst group with concepts switched off, beside as many random ones."""
        from .sae_intervene import intervene

        saes, names = self.name()
        probe = self.stages.probe(saes, self.options.probe)
        table = intervene(self, saes, names, probe)
        self._table("interventions", table)

    def _table(self, name: str, frame: pd.DataFrame) -> None:
        if self.first:
            with atomic_path(self.folder / f"{name}.csv") as temporary:
                frame.to_csv(temporary, index=False)
            self._print(name, frame)
            print(f"table: {self.folder / f'{name}.csv'}")

    def _print(self, title: str, frame: pd.DataFrame) -> None:
        upright = len(frame) == 1 and len(frame.columns) > 9
        table = Table(title=title)
        if upright:
            table.add_column("what")
            table.add_column("value", justify="right")
            for name in frame.columns:
                table.add_row(str(name), _text(frame[name].iloc[0]))
        else:
            for name in frame.columns:
                table.add_column(str(name), justify="right" if frame[name].dtype.kind in "fi" else "left")
            for row in frame.itertuples(index=False):
                table.add_row(*(_text(value) for value in row))
        self.console.print(table, markup=False)


def ground_truth(benchmark: Benchmark) -> pd.DataFrame | None:
    """What the audit images are known to show, a column a concept (classes, scenes, stamps); None where unknown."""
    table = benchmark.split("audit")
    columns = [name for name in ("scene", "concept") if name in table.frame]
    if not columns:
        return None
    found: dict[str, np.ndarray] = {name: table.labels == label for label, name in enumerate(benchmark.classes)}
    for column in columns:
        values = table.frame[column].fillna("")
        found |= {str(name): (values == name).to_numpy() for name in sorted(set(values)) if name}
    return pd.DataFrame({name: seen for name, seen in found.items() if 0 < seen.sum() < len(seen)})


def _anec(accuracies: dict[float, float]) -> float:
    # published over 5 … 30: a mean over fewer is another number
    return anec(accuracies) if len(accuracies) == len(TARGETS) else float("nan")


def _build(dataset: BenchmarkSource, folder: Path) -> None:
    from .classifier_stages import build_benchmark

    build_benchmark(dataset, folder)


def _text(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _texts(counts: Mapping[float, int]) -> dict[str, int]:
    return {f"{threshold:g}": count for threshold, count in counts.items()}
