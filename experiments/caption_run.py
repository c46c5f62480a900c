"""What the job `caption` makes and prints: captions and their scores, explanations, a filter, your own image."""

import logging
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from aaca.data.scenegraph.arrays import json_object
from aaca.data.scenegraph.store import PackedGraphs
from aaca.evaluate.captions.cider import CiderIndex
from aaca.evaluate.captions.scores import caption_table, score_captions
from aaca.evaluate.captions.structure import structure_error
from aaca.runtime.config import load_config
from aaca.runtime.errors import DataError
from aaca.runtime.files import atomic_path, ensure_writable, file_sha256, write_json
from aaca.runtime.ranks import current
from aaca.runtime.run_folder import claim
from aaca.runtime.stages import StageCache
from aaca.runtime.trial import Trial

from .caption_config import CaptionConfig
from .caption_edits import edited_captions
from .caption_stages import CaptionStages
from .debug_config import without_size_presets

log = logging.getLogger(__name__)
SCORES, CAPTIONS = "scores.json", "captions.csv"
SHOWN = {
    "bleu4": "BLEU-4",
    "rouge_l": "ROUGE-L",
    "cider": "CIDEr-D",
    "g_objects": "Go",
    "g_attributes": "Ga",
    "g_relationships": "Gr",
    "node_recall": "node recall",
    "direction_accuracy": "direction",
    "structure": "structure",
    "exact": "exact",
}


class CaptionRun:
    """One run: the stages it needs, and its folder."""

    def __init__(self, trial: Trial) -> None:
        self.options = options = load_config(without_presets(trial.config), CaptionConfig)
        self.folder = trial.path
        cache = StageCache(Path(options.paths.root).absolute(), resume=options.resume.mode == "auto")
        ensure_writable(self.folder, "paths.root")
        graphs = options.graphs
        given = {
            "graphs": graphs.fingerprint(),
            "sets": {name: graphs.set_fingerprint(name) for name in (graphs.train, graphs.val, graphs.test)},
            "files": {key: file_sha256(Path(file)) for key, file in options.files().items()},
        }
        claim(trial, given, options.resume.force)
        options.logger.begin(cache.root, trial.job, trial.overrides, trial.config)
        self.stages = CaptionStages(options, cache)
        self.console = Console(width=None if sys.stdout.isatty() else 160)

    @property
    def first(self) -> bool:
        """Whether this process writes."""
        return current().rank == 0

    def run(self) -> float:
        """Do what `action` says; the CIDEr-D of the captions, where there is one."""
        if self.options.action == "explain":
            from .caption_explain import explain

            return explain(self)
        if self.options.action == "filter":
            from .caption_filter import filter_annotations

            return filter_annotations(self)
        if self.options.action == "image":
            from .caption_image import caption_image

            return caption_image(self)
        return self.score()

    def score(self) -> float:
        """Captions of the test set and every figure of them."""
        options = self.options
        name = options.graphs.test
        _, test = self.stages.packed(name)
        edits: dict[str, float] = {}
        if options.captions is not None:
            said = given_captions(Path(options.captions), test)
        else:
            fitted, model = self.stages.captioner()
            frame = self.stages.captions(fitted, model, name)
            said = dict(zip(frame["name"], frame["caption"], strict=True))
            edits = edited_captions(self.stages, fitted, model, test, said)
        found = self.figures(test, said) | edits
        if self.first:
            self._write(test, said, found)
            self.table("captions of " + name, pd.DataFrame([named(found)]))
            if edits:
                self.table("edited graphs: captions that change, untouched words that stay", by_edit(edits))
            options.logger.record("caption", {key: value for key, value in found.items()}, {}, {})
            print(f"captions: {self.folder / CAPTIONS}")
        return found["cider"]

    def index(self) -> CiderIndex | None:
        """Document frequencies of another set's references, where the config names one."""
        if self.options.reference_index is None:
            return None
        return CiderIndex.fit(self.stages.packed(self.options.reference_index)[1].references())

    def figures(self, test: PackedGraphs, said: dict[str, str]) -> dict[str, float]:
        """All scores of captions by name.

        `exact`: per cent that are the reference's own words; `structure`: per cent with as many objects, attributes and
        relationships as their graph.
        """
        references = {name: kept for name, kept in test.references().items() if name in said}
        graphs = {test.name(row): test.graph(row) for row in range(len(test)) if test.name(row) in said}
        parse = self.stages.parse()
        found = score_captions(said, references, graphs, self.index(), parse)
        found["exact"] = 100 * sum(said[name] in references[name] for name in said) / len(said)
        if parse is not None:
            right = [structure_error(parse(caption), graphs[name])[:3].sum() == 0 for name, caption in said.items()]
            found["structure"] = 100 * sum(right) / len(right)
        return found

    def _write(self, test: PackedGraphs, said: dict[str, str], found: dict[str, float]) -> None:
        graphs = {test.name(row): test.graph(row) for row in range(len(test))}
        references = test.references()
        table = caption_table(said, references, graphs, self.index(), self.stages.parse())
        table["reference"] = [references[name][0] for name in table.index]
        with atomic_path(self.folder / CAPTIONS) as temporary:
            table.rename_axis("name").reset_index().to_csv(temporary, index=False)
        write_json(self.folder / SCORES, {key: None if value != value else value for key, value in found.items()})
        with atomic_path(self.folder / "table.csv") as temporary:
            pd.DataFrame([found]).to_csv(temporary, index=False)

    def table(self, title: str, frame: pd.DataFrame) -> None:
        """Print a table."""
        if not self.first:
            return
        table = Table(title=title)
        for column in frame.columns:
            table.add_column(str(column), overflow="fold")
        for row in frame.itertuples(index=False):
            table.add_row(*(f"{value:.2f}" if isinstance(value, float) else str(value) for value in row))
        self.console.print(table)


def named(found: dict[str, float]) -> dict[str, float]:
    """The figures that a table shows, by the names that papers have for them."""
    return {label: found[key] for key, label in SHOWN.items() if key in found}


def by_edit(edits: dict[str, float]) -> pd.DataFrame:
    """Edit sensitivity and locality, one row a kind of edit."""
    kinds = dict.fromkeys(key.removesuffix("_locality") for key in edits if key.endswith("_locality"))
    rows = [(kind, edits[f"{kind}_edit_sensitivity"], edits[f"{kind}_locality"]) for kind in kinds]
    return pd.DataFrame(rows, columns=["edit", "changes", "locality"])


def given_captions(file: Path, test: PackedGraphs) -> dict[str, str]:
    """Captions of somebody else: a CSV with name and caption, or a JSON {name: caption or [caption]}.

    Raises `DataError` where a sample of the set has none or several, and for a file that is neither.
    """
    try:
        found = _captions_json(file) if file.suffix == ".json" else _captions_csv(file)
    except ValueError as error:  # of either reader; text that is no UTF-8, too
        raise DataError(f"{file}: not readable as {file.suffix or '.csv'} ({error})") from error
    names = [test.name(row) for row in range(len(test))]
    missing = [name for name in names if name not in found]
    if missing:
        raise DataError(f"{file}: no caption of {missing[0]} and {len(missing) - 1} more; expected all {len(names)}")
    return {name: found[name] for name in names}


def _captions_json(file: Path) -> dict[str, str]:
    found = {}
    for name, value in json_object(file).items():
        one = value[0] if isinstance(value, list) and len(value) == 1 else value
        if not isinstance(one, str):
            raise DataError(f"{file}: {name}: {value!r}; expected one caption")
        found[name] = one
    return found


def _captions_csv(file: Path) -> dict[str, str]:
    frame = pd.read_csv(file, keep_default_na=False, dtype=str)
    if not {"name", "caption"} <= set(frame.columns):
        raise DataError(f"{file}: columns {', '.join(frame.columns)}; expected name and caption")
    twice = frame["name"][frame["name"].duplicated()]
    if len(twice):
        raise DataError(f"{file}: {twice.iloc[0]!r} comes twice; expected one caption a name")
    return dict(zip(frame["name"], frame["caption"], strict=True))


def without_presets(config: dict[str, Any]) -> dict[str, Any]:
    """The config without what belongs to other jobs."""
    return {name: value for name, value in without_size_presets(config).items() if name not in ("preset", "hyper")}
