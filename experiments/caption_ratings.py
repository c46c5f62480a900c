"""Annotations of a set, rated word by word by people or by the captioner, and which of them the filter keeps."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from aaca.data.planted_noise import plant_noise
from aaca.data.scenegraph.samples import GraphSet
from aaca.data.scenegraph.store import PackedGraphs
from aaca.discover.captions.attribution import occlusion
from aaca.discover.captions.ease import ease_of, ease_of_samples, relation_aware_ease_of
from aaca.discover.captions.filter import Filtered, against_truth, filter_by_ease, filter_top, planted_names
from aaca.discover.captions.ratings import choice, features_of, hold, names_of_kinds, records_of, swap
from aaca.discover.captions.records import Records, read_records, write_records
from aaca.models.captioner.captioner import GraphCaptioner
from aaca.runtime.errors import ConfigError
from aaca.runtime.files import atomic_path, write_json
from aaca.runtime.seeding import purpose_seed

from .caption_run import CaptionRun
from .caption_stages import CaptionStages

RECORDS, TRUTH = "records.csv", "planted.json"
OTHERS = 32  # nodes of other images that a word's own node is held against


@dataclass(frozen=True)
class Rated:
    """A set of annotations: as they are used, what they were rated, what is kept, and where known what is wrong."""

    stages: CaptionStages  # of the graphs with the noise that was planted in them
    source: GraphSet
    records: Records
    ease: dict[str, float]
    found: Filtered
    planted: frozenset[str]

    @property
    def names(self) -> list[str]:
        """Of all annotations, in the set's order."""
        return [self.source.name(row) for row in range(len(self.source))]


def rate(run: CaptionRun) -> Rated:
    """The ratings of the set that `filter.set` says. Raises `ConfigError` where none of it would be kept."""
    options, config = run.options, run.options.filter
    name = options.graphs.train if config.set == "train" else options.graphs.test
    stages = _noisy(run, name)
    stage, layout = stages.graphs()
    recipe = options.training
    source = GraphSet.open(layout, name, recipe.nodes, recipe.length, options.on_missing_box)
    records = _records(run, stages, source)
    by_sample = records.by_sample()
    rated = ease_of(by_sample) if config.rule == "released" else relation_aware_ease_of(by_sample, config.pool)
    ease = ease_of_samples(source.samples, rated)
    names = [source.name(row) for row in range(len(source))]
    if config.keep is None:
        found = filter_by_ease(names, ease, config.threshold)
    else:
        found = filter_top(names, ease, config.keep)
    if not found.kept:
        limit = f"threshold: {config.threshold}" if config.keep is None else f"keep: {config.keep}"
        raise ConfigError(f"filter.{limit} leaves none of {len(names)} annotations; expected one that keeps some")
    planted = planted_names(stage.folder / "annotation" / f"{name}_{TRUTH}") if config.noise else frozenset[str]()
    return Rated(stages, source, records, ease, found, planted)


def report(run: CaptionRun, rated: Rated) -> None:
    """Write ease.csv and filter.json, and print how much of what was planted was found; on rank 0."""
    if not run.first:
        return
    kept = set(rated.found.kept)
    rows = [(name, rated.ease.get(name), name in kept) for name in (*rated.found.kept, *rated.found.dropped)]
    with atomic_path(run.folder / "ease.csv") as temporary:
        pd.DataFrame(rows, columns=["name", "ease", "kept"]).to_csv(temporary, index=False)
    truth = against_truth(rated.found, rated.planted) if run.options.filter.noise else {}
    said = {key: None if value != value else value for key, value in truth.items()}
    answers = {"records": rated.records.summary(), "captions_unrated": len(rated.found.unrated)}
    write_json(run.folder / "filter.json", {**said, **answers})
    if truth:
        print(f"planted annotations: precision {truth['precision']:.3f}, recall {truth['recall']:.3f}")
    print(f"ease of every annotation: {run.folder / 'ease.csv'}")


def _noisy(run: CaptionRun, name: str) -> CaptionStages:
    # the stages of graphs with planted noise, where some is asked for
    options, config = run.options, run.options.filter
    if not config.noise:
        return run.stages
    seed = purpose_seed(options.seed, "noise") % 2**31

    def change(folder: Path) -> None:
        plant_noise(folder, name, config.noise, seed, config.rating_noise, unit="region")

    changed = {"set": name, "noise": config.noise, "rating_noise": config.rating_noise, "seed": seed}
    return CaptionStages(options, run.stages.cache, change, changed)


def _records(run: CaptionRun, stages: CaptionStages, source: GraphSet) -> Records:
    config, name = run.options.filter, source.set_name
    if config.by == "records":
        own = stages.graphs()[0].folder / "annotation" / f"{name}_{RECORDS}"
        return read_records(Path(config.records) if config.records else own)
    # noise of train is what a captioner of such data is trained on; noise of test it has not seen
    fitted, model = (stages if config.set == "train" else run.stages).captioner()
    key, packed = stages.packed(name)

    def make(place: Path) -> None:
        write_records(place / RECORDS, _own_ratings(run, source, packed, model.eval()))

    inputs = {"captioner": fitted.key, "rated": key, "by": config.by, "seed": run.options.seed}
    return read_records(stages.cache.stage("ratings", inputs, make, name).folder / RECORDS)


def _own_ratings(run: CaptionRun, source: GraphSet, packed: PackedGraphs, model: GraphCaptioner) -> list[Any]:
    options = run.options
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
