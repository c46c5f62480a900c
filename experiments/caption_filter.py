"""Wrong annotations of train: found by ratings of their words, left out, and whether that helps (EGA's filtering)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from aaca.data.planted_noise import plant_noise
from aaca.data.scenegraph.batch import GraphItem
from aaca.data.scenegraph.graph import SceneGraph
from aaca.data.scenegraph.samples import GraphSet
from aaca.data.scenegraph.store import PackedGraphs
from aaca.data.scenegraph.vocabulary import Words
from aaca.discover.captions.attribution import occlusion
from aaca.discover.captions.ease import ease_of, ease_of_samples, relation_aware_ease_of
from aaca.discover.captions.filter import (
    Filtered,
    against_truth,
    filter_by_ease,
    filter_top,
    planted_names,
    random_filter,
)
from aaca.discover.captions.ratings import choice, features_of, hold, names_of_kinds, records_of, swap
from aaca.discover.captions.records import Records, read_records, write_records
from aaca.models.captioner.captioner import GraphCaptioner
from aaca.runtime.errors import ConfigError
from aaca.runtime.files import atomic_path, digest, write_json
from aaca.runtime.seeding import purpose_seed

from .caption_run import CaptionRun, named
from .caption_stages import CaptionStages

RECORDS, TRUTH = "records.csv", "planted.json"
OTHERS = 32  # nodes of other images that a word's own node is held against


@dataclass
class Part:
    """Some samples of a packed set, as a captioner is trained on them."""

    packed: PackedGraphs
    rows: list[int]

    @property
    def words(self) -> Words:
        """The vocabulary of the whole set."""
        return self.packed.words

    def __len__(self) -> int:
        return len(self.rows)

    def item(self, i: int) -> GraphItem:
        """Sample `i` of the part."""
        return self.packed.item(self.rows[i])

    def name(self, i: int) -> str:
        """Its name."""
        return self.packed.name(self.rows[i])

    def phrase(self, i: int) -> str:
        """Its caption."""
        return self.packed.phrase(self.rows[i])

    def graph(self, i: int) -> SceneGraph:
        """Its graph."""
        return self.packed.graph(self.rows[i])

    def references(self) -> dict[str, list[str]]:
        """Of the samples of the part."""
        known = self.packed.references()
        return {self.name(i): known[self.name(i)] for i in range(len(self))}


def filter_annotations(run: CaptionRun) -> float:
    """Train on all, on what the filter keeps, on as many at random, and without what was planted; score on test."""
    options, config = run.options, run.options.filter
    train = options.graphs.train
    stages = _noisy(run)
    folder = stages.graphs()[0].folder
    packed = stages.packed(train)[1]
    names = [packed.name(row) for row in range(len(packed))]
    records = _records(run, stages, folder)
    by_sample = records.by_sample()
    rated = ease_of(by_sample) if config.rule == "released" else relation_aware_ease_of(by_sample, config.pool)
    source = GraphSet.open(stages.graphs()[1], train, options.training.nodes, options.training.length)
    known = ease_of_samples(source.samples, rated)
    if config.keep is None:
        found = filter_by_ease(names, known, config.threshold)
    else:
        found = filter_top(names, known, config.keep)
    if not found.kept:
        limit = f"threshold: {config.threshold}" if config.keep is None else f"keep: {config.keep}"
        raise ConfigError(f"filter.{limit} leaves none of {len(names)} annotations; expected one that keeps some")
    control = random_filter(names, len(found.kept), purpose_seed(options.seed, "random filter") % 2**31)
    parts: dict[str, list[str]] = {"all": names, "filtered": list(found.kept), "random": list(control.kept)}
    truth: dict[str, float] = {}
    if config.noise:
        planted = planted_names(folder / "annotation" / f"{train}_{TRUTH}")
        truth = against_truth(found, planted)
        if clean := [name for name in names if name not in planted]:
            parts["without the planted"] = clean
    rows = [{"trained on": kind, "captions": len(kept), **_scored(run, stages, kept)} for kind, kept in parts.items()]
    frame = pd.DataFrame(rows)
    if run.first:
        with atomic_path(run.folder / "filter.csv") as temporary:
            frame.to_csv(temporary, index=False)
        said = {key: None if value != value else value for key, value in truth.items()}
        answers = {"records": records.summary(), "captions_unrated": len(found.unrated)}
        write_json(run.folder / "filter.json", {**said, **answers})
        _write_ease(run.folder / "ease.csv", found, known)
        run.table("captions of test, by what they were learnt from", frame)
        if truth:
            print(f"planted annotations: precision {truth['precision']:.3f}, recall {truth['recall']:.3f}")
        print(f"ease of every annotation: {run.folder / 'ease.csv'}")
    return float(frame.loc[frame["trained on"] == "filtered", "CIDEr-D"].iloc[0])


def _noisy(run: CaptionRun) -> CaptionStages:
    # the stages of graphs with planted noise, where some is asked for
    options, config = run.options, run.options.filter
    if not config.noise:
        return run.stages
    seed = purpose_seed(options.seed, "noise") % 2**31

    def change(folder: Path) -> None:
        plant_noise(folder, options.graphs.train, config.noise, seed, config.rating_noise, unit="region")

    changed = {"noise": config.noise, "rating_noise": config.rating_noise, "seed": seed}
    return CaptionStages(options, run.stages.cache, change, changed)


def _records(run: CaptionRun, stages: CaptionStages, folder: Path) -> Records:
    config, train = run.options.filter, run.options.graphs.train
    if config.by == "records":
        given = Path(config.records) if config.records else folder / "annotation" / f"{train}_{RECORDS}"
        return read_records(given)
    fitted, model = stages.captioner()

    def make(place: Path) -> None:
        write_records(place / RECORDS, _own_ratings(run, stages, model.eval()))

    inputs = {"captioner": fitted.key, "by": config.by, "seed": run.options.seed}
    return read_records(stages.cache.stage("ratings", inputs, make).folder / RECORDS)


def _own_ratings(run: CaptionRun, stages: CaptionStages, model: GraphCaptioner) -> list[Any]:
    options = run.options
    packed = stages.packed(options.graphs.train)[1]
    source = GraphSet.open(
        stages.graphs()[1],
        options.graphs.train,
        options.training.nodes,
        options.training.length,
        options.on_missing_box,
    )
    items = [packed.item(row) for row in range(len(packed))]
    others = features_of(items, OTHERS, purpose_seed(options.seed, "others") % 2**31)
    kinds = names_of_kinds(items)
    rows = []
    for row, item in enumerate(items):
        if options.filter.by == "swap":
            ratings = swap(model, item, packed.words, others)
        elif options.filter.by == "choice":
            ratings = choice(model, item, packed.words, kinds)
        else:
            ratings = hold(model, item, packed.words, occlusion)
        image, region = source.samples[row].tolist()
        rows += list(records_of(ratings, item, image, region))
    return rows


def _scored(run: CaptionRun, stages: CaptionStages, kept: list[str]) -> dict[str, float]:
    # a captioner trained on these samples, on the clean test set
    packed = stages.packed(run.options.graphs.train)[1]
    rows = {packed.name(row): row for row in range(len(packed))}
    whole = len(kept) == len(packed)
    part = None if whole else Part(packed, [rows[name] for name in kept])
    fitted, model = stages.captioner(part, None if whole else {"samples": digest(sorted(kept))})
    frame = stages.captions(fitted, model, run.options.graphs.test)
    said = dict(zip(frame["name"], frame["caption"], strict=True))
    return named(run.figures(stages.packed(run.options.graphs.test)[1], said))


def _write_ease(path: Path, found: Filtered, known: dict[str, float]) -> None:
    kept = set(found.kept)
    rows = [(name, known.get(name), name in kept) for name in (*found.kept, *found.dropped)]
    with atomic_path(path) as temporary:
        pd.DataFrame(rows, columns=["name", "ease", "kept"]).to_csv(temporary, index=False)
