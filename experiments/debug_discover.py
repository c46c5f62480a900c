"""The stages that find out why: maps, concepts, effects, evidence, tasks, answers, concept sets."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from aaca.annotate.aggregate import aggregate, counted
from aaca.annotate.annotators.base import Knowledge
from aaca.annotate.make_tasks import Shown, make_tasks
from aaca.annotate.pack import PICTURES, TASKS, write_pack
from aaca.annotate.synonyms import names_said, proposals
from aaca.annotate.task import Answer, Task, load_lines, save_lines
from aaca.concepts.concept_sets import ConceptSets
from aaca.data.benchmark import Benchmark
from aaca.data.features import FeatureStore, Scored
from aaca.data.table import ImageTable
from aaca.discover.attribution.describe import Maps, Without
from aaca.discover.concepts.base import View
from aaca.discover.concepts.table import ConceptTable
from aaca.discover.evidence import Audited, Shares, evidence_of, shares_of
from aaca.discover.reanalysis import Looks, reanalyse
from aaca.models.classifier import Classifier
from aaca.runtime.config import identity
from aaca.runtime.seeding import purpose_seed
from aaca.runtime.stages import Stage, StageCache
from aaca.training.extract import Describe, extract_features
from aaca.world.language import with_article

from .debug_clip import Looking
from .debug_config import DebugConfig, Discovery
from .debug_suspects import (
    BLURRED,
    VERDICTS,
    blurred_pairs,
    concept_masks,
    overlays,
    suspects_of,
    suspicion,
    write_verdicts,
)

log = logging.getLogger(__name__)
EVIDENCE, ANSWERS, SETS = "evidence.parquet", "answered.jsonl", "concept_sets.yaml"
REANALYSIS, SYNONYMS = "reanalysis.csv", "synonyms.csv"
MAP_BATCH = 64


@dataclass
class DiscoverStages:
    """Each method makes or finds one stage. `audit`: f0 on the audit images."""

    options: DebugConfig
    cache: StageCache
    benchmark_key: str
    benchmark: Benchmark
    f0: Stage
    classifier: Classifier
    audit: Scored

    def __post_init__(self) -> None:
        self.parts: Discovery = self.options.asking()
        self.table: ImageTable = self.benchmark.split("audit")
        self.looking = Looking(self.options, self.cache, self.benchmark_key, self.benchmark)
        self.cells = self.parts.attribution.cells(self.classifier)
        self.view = View(self.classifier.image_size, self.cells)
        self.kept: dict[str, Path] = {}  # what a run's folder shows of all this: name → file

    def maps(self, weights: Stage, classifier: Classifier, audit: Scored) -> tuple[str, np.ndarray]:
        """(key, maps `[N, 2, h, w]` float16): where a classifier finds the predicted and the true class of each image.

        `audit`: what it says of the audit images.
        """
        parts = self.parts
        targets = np.stack([audit.predictions, audit.labels], axis=1)

        def make(folder: Path) -> None:
            describe = Maps(classifier, parts.attribution, targets, audit.logits)
            self._extract(classifier, self.table, folder, describe)

        inputs = {"weights": weights.key, "benchmark": self.benchmark_key, "rows": "audit"}
        stage = self.cache.stage("maps", {**inputs, "attribution": identity(parts.attribution)}, make, together=True)
        found = FeatureStore(stage.folder).embeddings
        return stage.key, np.asarray(found).reshape(len(self.table), 2, *self.cells)

    def concepts(self, split: str) -> tuple[str, ConceptTable]:
        """(key, concepts of the images of a split); with places for audit."""
        return concept_stage(self.options, self.cache, self.looking, self.view, split, places=split == "audit")

    def effects(self, keys: Sequence[str], audited: Audited, shares: Shares) -> tuple[str, np.ndarray]:
        """(key, `[N, C]`): fall of the predicted class's probability when a concept is blurred out of a failure."""
        rules, seed = self.parts.evidence, self._seed()
        pairs = blurred_pairs(audited, shares, rules, seed)
        found = np.full((len(self.table), len(shares.names)), np.nan)
        if not len(pairs):
            return "", found
        rows, columns = pairs.T
        frame = self.table.take(rows).frame
        ids = [f"{name}#{shares.names[column]}" for name, column in zip(frame["id"], columns, strict=True)]
        table = ImageTable.build(frame.assign(id=ids), self.benchmark.classes, self.table.root)

        def make(folder: Path) -> None:
            masks = concept_masks(audited.concepts, pairs, shares.names, self.cells)
            self._extract(self.classifier, table, folder, Without(self.classifier, masks))

        inputs = {"made of": list(keys), "rules": vars(rules), "seed": seed, "most": BLURRED}
        stage = self.cache.stage("effects", inputs, make, together=True)
        after = FeatureStore(stage.folder).scored().probabilities[np.arange(len(rows)), audited.predictions[rows]]
        found[rows, columns] = audited.confidence[rows] - after
        return stage.key, found

    def _extract(self, classifier: Classifier, table: ImageTable, folder: Path, describe: Describe) -> None:
        # `classifier` is what `describe` asks: the loop brings it, and so both, to the device
        options = self.options
        label, every = folder.parent.name, options.resume.every
        extract_features(
            classifier, table, folder, options.trainer, MAP_BATCH, label=label, every=every, describe=describe
        )

    def _seed(self) -> int:
        return purpose_seed(self.options.seed, "discover")

    def evidence(self) -> tuple[Stage, pd.DataFrame, Audited, Shares]:
        """(stage, the table of evidence, what it is of)."""
        map_key, maps = self.maps(self.f0, self.classifier, self.audit)
        (audit_key, concepts), (train_key, in_train) = self.concepts("audit"), self.concepts("train")
        probabilities = self.audit.probabilities
        audited = Audited(
            classes=self.benchmark.classes,
            labels=self.audit.labels,
            predictions=self.audit.predictions,
            confidence=probabilities.max(axis=1),
            concepts=concepts,
            maps=maps,
            train=in_train,
            train_labels=self.benchmark.split("train").labels,
        )
        for label, name in enumerate(audited.classes):
            if not ((audited.labels == label) & (audited.predictions == label)).any():
                log.warning(
                    "class %r: f0 gets no audit image of it right, so its failures have nothing to be held against",
                    name,
                )
        rules = self.parts.evidence
        shares = shares_of(audited, rules)
        keys = [map_key, audit_key, train_key]
        effect_key, effects = self.effects(keys, audited, shares)

        def make(folder: Path) -> None:
            evidence_of(audited, rules, self._seed(), effects).to_parquet(folder / EVIDENCE, index=False)

        inputs = {"made of": [*keys, effect_key], "rules": vars(rules), "seed": self._seed()}
        stage = self.cache.stage("evidence", inputs, make)
        return stage, pd.read_parquet(stage.folder / EVIDENCE), audited, shares

    def tasks(self, evidence: Stage, frame: pd.DataFrame, audited: Audited, shares: Shares) -> tuple[Stage, list[Task]]:
        """What annotators are shown."""
        config, kinds = self.parts.tasks, audited.concepts.kinds()

        def make(folder: Path) -> None:
            shown = Shown(
                ids=self.table.ids,
                classes=audited.classes,
                labels=audited.labels,
                predictions=audited.predictions,
                confidence=audited.confidence,
                names=shares.names,
                kinds=[kinds[name] for name in shares.names],
                present=audited.concepts.present(shares.names),
                predicted_share=shares.predicted,
                true_share=shares.true,
                area=shares.area,
                suspicion=suspicion(frame, audited.classes, shares.names),
                suspects=[suspects_of(frame, name) for name in audited.classes],
            )
            listed = make_tasks(shown, config.failures, config.controls, self._seed(), config.suspects)
            rows = {name: row for row, name in enumerate(self.table.ids)}
            write_pack(
                folder,
                listed,
                lambda name: self.view.of(self.table.image(rows[name])),
                lambda name: overlays(audited.maps[rows[name]]),
            )

        inputs = {"evidence": evidence.key, "config": vars(config), "view": vars(self.view), "seed": self._seed()}
        stage = self.cache.stage("tasks", inputs, make)
        return stage, load_lines(stage.folder / TASKS, Task)

    def answers(self, tasks: Stage, listed: list[Task], audited: Audited, shares: Shares) -> tuple[Stage, list[Answer]]:
        """What the annotator says."""
        annotator = self.parts.annotator

        def make(folder: Path) -> None:
            in_train = audited.train.present(shares.names)
            count = len(audited.classes)
            knowledge = Knowledge(
                classes=audited.classes,
                names=tuple(shares.names),
                rates=np.stack([in_train[audited.train_labels == label].mean(axis=0) for label in range(count)]),
                core={name: tuple(core) for name, core in self.benchmark.core.items()} or None,
                clip=self.looking.clip.load() if annotator.needs_clip else None,
            )
            save_lines(folder / ANSWERS, annotator.answer_all(listed, knowledge, self._seed()))
            load_lines(folder / ANSWERS, Answer)

        inputs = {
            "tasks": tasks.key,
            "annotator": {**identity(annotator), **annotator.fingerprint()},
            "clip": self.looking.fingerprint() if annotator.needs_clip else None,
            "seed": self._seed(),
        }
        stage = self.cache.stage("answers", inputs, make)
        return stage, load_lines(stage.folder / ANSWERS, Answer)

    def concept_sets(self) -> tuple[Stage, ConceptSets]:
        """The verdict: what confounds each class and what is valid for it, and who decided."""
        evidence, frame, audited, shares = self.evidence()
        tasks, listed = self.tasks(evidence, frame, audited, shares)
        answers, given = self.answers(tasks, listed, audited, shares)
        annotator, rules = self.parts.annotator, self.parts.votes

        def make(folder: Path) -> None:
            verdicts = aggregate(given, frame, rules, self.benchmark.classes)
            who = f"simulated: {annotator.name}" if annotator.simulated else annotator.name
            found_by = f"{type(self.parts.attribution).__name__} × {type(self.parts.concepts).__name__}"
            meta = {"annotator": who, "discovery": found_by, "seed": self.options.seed, "f0": self.f0.key[:16]}
            ConceptSets(verdicts.classes, meta).save(folder / SETS)
            ConceptSets.load(folder / SETS, self.benchmark.classes)  # published only if it can be read again
            write_verdicts(folder, verdicts)
            if self.options.clip is not None and (said := names_said(given)):
                vectors = self.options.clip.load().text_vectors([with_article(name) for name in said])
                proposals(said, vectors).to_csv(folder / SYNONYMS, index=False)

        inputs = {
            "answers": answers.key,
            "evidence": evidence.key,
            "votes": vars(rules),
            "who": annotator.name,
            "clip": self.options.clip.fingerprint() if self.options.clip is not None else None,
        }
        stage = self.cache.stage("concept_sets", inputs, make)
        made = {
            stage: (SETS, *VERDICTS, SYNONYMS),
            evidence: (EVIDENCE,),
            tasks: (TASKS, PICTURES),
            answers: (ANSWERS,),
        }
        kept = {name: owner.folder / name for owner, names in made.items() for name in names}
        self.kept = {name: file for name, file in kept.items() if name != SYNONYMS or file.is_file()}
        self.found = (audited, shares, ConceptSets.load(stage.folder / SETS, self.benchmark.classes))
        return stage, self.found[2]

    def reanalysis(self, repaired: Stage, classifier: Classifier, after: Scored) -> None:
        """Add to `kept`: the same images and concepts, seen by the repaired classifier (after `concept_sets`)."""
        audited, shares, sets = self.found
        map_key, maps = self.maps(repaired, classifier, after)
        self.maps_after = maps

        def make(folder: Path) -> None:
            seen = audited.concepts.amounts(shares.names, maps[:, 0].astype(np.float32))
            present = audited.concepts.present(shares.names)
            looks = Looks(audited.predictions, shares.predicted), Looks(after.predictions, seen)
            names = [counted(name, self.parts.votes.merge) for name in shares.names]
            table = reanalyse(audited.classes, audited.labels, names, present, sets, *looks)
            table.to_csv(folder / REANALYSIS, index=False)

        inputs = {"maps": map_key, "concept_sets": self.kept[SETS].parent.name}
        self.kept[REANALYSIS] = self.cache.stage("reanalysis", inputs, make).folder / REANALYSIS


def concept_stage(
    options: DebugConfig, cache: StageCache, looking: Looking, view: View, split: str, places: bool
) -> tuple[str, ConceptTable]:
    """(key, concepts of the images of a split by the run's concept source); with `places` also where they are."""
    source, table = options.concepts, looking.benchmark.split(split)
    assert source is not None
    look = looking.at(split, source.needs_images) if source.needs_clip else None

    def make(folder: Path) -> None:
        source.find(table, view, look, places=places).save(folder)

    inputs = {
        "benchmark": looking.benchmark_key,
        "rows": split,
        "source": {**identity(source), **source.fingerprint()},
        "view": vars(view),
        "clip": looking.fingerprint() if source.needs_clip else None,
    }
    if places != (split == "audit"):  # what discovery asks for has the key it always had
        inputs["places"] = places
    stage = cache.stage("concepts", inputs, make, split)
    return stage.key, ConceptTable.load(stage.folder, len(table))
