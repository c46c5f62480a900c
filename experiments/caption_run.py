"""What the job `caption` makes and prints: captions and their scores, explanations, a filter, your own image."""

import logging
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from aaca.data.scenegraph.store import PackedGraphs
from aaca.evaluate.captions.cider import CiderIndex
from aaca.evaluate.captions.scores import caption_table, score_captions
from aaca.evaluate.captions.structure import Parse
from aaca.runtime.config import load_config
from aaca.runtime.files import atomic_path, ensure_writable, file_sha256, write_json
from aaca.runtime.ranks import current
from aaca.runtime.run_folder import claim
from aaca.runtime.stages import StageCache
from aaca.runtime.trial import Trial

from .caption_config import CaptionConfig
from .caption_diversity import diverse_captions
from .caption_edits import EditedCaptions, by_edit, edit_figures, edited_captions
from .caption_given import given_captions
from .caption_metrics import check_metrics, extra_scores
from .caption_sets import check_sets, check_shared
from .caption_stages import CaptionStages
from .debug_config import without_size_presets

log = logging.getLogger(__name__)
SCORES, CAPTIONS = "scores.json", "captions.csv"
SHOWN = {
    "bleu4": "BLEU-4",
    "rouge_l": "ROUGE-L",
    "cider": "CIDEr-D",
    "meteor": "METEOR",
    "spice": "SPICE",
    "clip_score": "CLIPScore",
    "g_objects": "Go",
    "g_attributes": "Ga",
    "g_relationships": "Gr",
    "node_recall": "node recall",
    "direction_accuracy": "direction",
    "structure": "structure",
    "exact": "exact",
    "div1": "Div-1",
    "div2": "Div-2",
    "self_cider": "SelfCIDEr",
}


class CaptionRun:
    """One run: the stages it needs, and its folder."""

    def __init__(self, trial: Trial) -> None:
        self.options = options = load_config(without_presets(trial.config), CaptionConfig)
        self.folder = trial.path
        cache = StageCache(Path(options.paths.root).absolute(), resume=options.resume.mode == "auto")
        ensure_writable(self.folder, "paths.root")
        graphs = options.graphs
        described, sets = graphs.fingerprint(), check_sets(options)
        check_shared(options)
        if options.action == "score":
            check_metrics(options)
        given = {
            "graphs": described,
            "sets": sets,
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
        if self.options.action == "regraph":
            from .caption_regraph import regraph

            return regraph(self)
        if self.options.action == "image":
            from .caption_image import caption_image

            return caption_image(self)
        return self.score()

    def score(self) -> float:
        """Captions of the test set and every figure of them."""
        options = self.options
        name = options.graphs.test
        _, test = self.stages.packed(name)
        index, parse = self.index(), self.stages.parse()
        edits: list[EditedCaptions] = []
        more: dict[str, float] = {}
        if options.captions is not None:
            said = given_captions(Path(options.captions), test)
        else:
            fitted, model = self.stages.captioner()
            frame = self.stages.captions(fitted, model, name)
            said = dict(zip(frame["name"], frame["caption"], strict=True))
            edits = edited_captions(self.stages, fitted, model, test, said)
            more = edit_figures(edits)
            if options.score.diversity:
                frequencies = index or CiderIndex.fit(test.references())
                more |= diverse_captions(self.stages, fitted, model, test, frequencies)
        found = self.figures(test, said) | extra_scores(self.stages, said, test.references()) | more
        if options.rationale.test:
            from .caption_rationale import foreign_figures

            found |= foreign_figures(self, fitted, model, test)
        if self.first:
            self._write(test, said, found, index, parse)
            self.table("captions of " + name, pd.DataFrame([named(found)]))
            if edits:
                self.table("edited graphs: do captions follow, and only there?", by_edit(edits))
            options.logger.record("caption", {key: value for key, value in found.items()}, {}, {})
            print(f"captions: {self.folder / CAPTIONS}")
        if edits and options.score.examples and options.graphs.drawn:
            from .caption_examples import example_page

            example_page(self, test, said, edits, found)
        return found["cider"]

    def index(self) -> CiderIndex | None:
        """Document frequencies of another set's references, where the config names one."""
        if self.options.reference_index is None:
            return None
        return CiderIndex.fit(self.stages.packed(self.options.reference_index)[1].references())

    def figures(self, test: PackedGraphs, said: dict[str, str]) -> dict[str, float]:
        """All scores of captions by name; `exact`: per cent that are the reference's own words."""
        references = {name: kept for name, kept in test.references().items() if name in said}
        graphs = {test.name(row): test.graph(row) for row in range(len(test)) if test.name(row) in said}
        found = score_captions(said, references, graphs, self.index(), self.stages.parse())
        found["exact"] = 100 * sum(said[name] in references[name] for name in said) / len(said)
        return found

    def _write(
        self,
        test: PackedGraphs,
        said: dict[str, str],
        found: dict[str, float],
        index: CiderIndex | None,
        parse: Parse | None,
    ) -> None:
        graphs = {test.name(row): test.graph(row) for row in range(len(test))}
        references = test.references()
        table = caption_table(said, references, graphs, index, parse)
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


def without_presets(config: dict[str, Any]) -> dict[str, Any]:
    """The config without what belongs to other jobs."""
    return {name: value for name, value in without_size_presets(config).items() if name not in ("preset", "hyper")}
