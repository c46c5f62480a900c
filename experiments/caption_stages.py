"""The stages of the job `caption`: graphs laid out, sets packed, a captioner fitted, captions."""

import logging
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from aaca.data.graph_writer import ABOUT
from aaca.data.scenegraph.layout import Layout
from aaca.data.scenegraph.packing import pack
from aaca.data.scenegraph.samples import GraphSet
from aaca.data.scenegraph.store import PackedGraphs
from aaca.data.scenegraph.united import UnitedGraphs, rationale_of
from aaca.evaluate.captions.structure import Parse, grammar_parser
from aaca.models.captioner.captioner import GraphCaptioner
from aaca.models.region_embedder import RegionEmbedder
from aaca.runtime.config import identity
from aaca.runtime.errors import ConfigError
from aaca.runtime.files import read_json
from aaca.runtime.ranks import current
from aaca.runtime.seeding import purpose_seed
from aaca.runtime.stages import Stage, StageCache
from aaca.training.caption_data import CaptionSource
from aaca.training.fit_captioner import CAPTIONS, CaptionJob, caption_set, fit_captioner, load_captioner
from aaca.world.phrases import Grammar

from .caption_config import CaptionConfig

log = logging.getLogger(__name__)
SET = "set"


@dataclass
class CaptionStages:
    """Each method makes or finds one stage, `graphs` and `packed` once.

    `change`: what is done to the laid out files before anything reads them.
    """

    options: CaptionConfig
    cache: StageCache
    change: Callable[[Path], None] | None = None
    changed: dict[str, Any] = field(default_factory=dict)  # what tells the change from others, for keys
    _packed: dict[tuple[str, int], tuple[str, PackedGraphs]] = field(default_factory=dict, init=False, repr=False)

    def embedder(self) -> RegionEmbedder:
        """What describes regions, where that is done here."""
        device = {"gpu": "cuda", "mps": "mps", "cpu": "cpu"}[self.options.trainer.device_kind]
        return RegionEmbedder(self.options.model.build(2), device=device)

    def graphs(self) -> tuple[Stage, Layout]:
        """All sets in a released layout."""
        return self._graphs

    @cached_property
    def _graphs(self) -> tuple[Stage, Layout]:
        options = self.options
        source, model = options.graphs, options.model
        described = {"class": identity(model)["class"], **model.fingerprint()} if source.embeds else {}

        def make(folder: Path) -> None:
            embed = self.embedder() if source.embeds else None
            source.lay_out(folder, embed, model.image_size, described)
            if self.change is not None:
                self.change(folder)

        inputs = {"graphs": source.fingerprint(), "features": described, "changed": self.changed}
        stage = self.cache.stage("graphs", inputs, make)
        return stage, source.layout(stage.folder)

    def packed(self, name: str, foreign: int = 0) -> tuple[str, PackedGraphs]:
        """(key, one set in one folder), each graph with up to `foreign` objects that it has not (`UnitedGraphs`)."""
        if (name, foreign) not in self._packed:
            _, packed = self._packed[name, foreign] = self._pack(name, foreign)
            if lost := losses(packed):
                log.info("lost in reading %s, of %d samples: %s", name, len(packed), lost)
        return self._packed[name, foreign]

    def _pack(self, name: str, foreign: int) -> tuple[str, PackedGraphs]:
        options, (graphs, layout) = self.options, self.graphs()
        recipe = options.training

        def make(folder: Path) -> None:
            found = GraphSet.open(layout, name, recipe.nodes, recipe.length, options.on_missing_box)
            if foreign:
                found = UnitedGraphs.of(found, foreign, options.seed)
            packed = pack(found, folder / SET, options.feature_dtype)
            if foreign:
                self._check_foreign(packed, name)

        inputs = {
            "graphs": graphs.key,
            "set": name,
            "files": options.graphs.set_fingerprint(name),
            "nodes": recipe.nodes,
            "length": recipe.length,
            "missing": options.on_missing_box,
            "dtype": options.feature_dtype,
            **({"foreign": foreign, "seed": options.seed} if foreign else {}),
        }
        stage = self.cache.stage("packed", inputs, make, f"{name}+{foreign}" if foreign else name)
        return stage.key, PackedGraphs.open(stage.folder / SET)

    def _check_foreign(self, packed: PackedGraphs, name: str) -> None:
        count = sum(not rationale.all() for rationale in rationale_by_row(packed).values())
        if not count:
            raise ConfigError(
                f"rationale.foreign: {self.options.rationale.foreign}, but no graph of {name} takes a foreign object; "
                f"expected images with several graphs, and room for more nodes (training.nodes={packed.about['limit']})"
            )
        log.info("foreign objects in %d of %d graphs of %s", count, len(packed), name)

    def parse(self) -> Parse | None:
        """What reads captions of these graphs, where their grammar is known."""
        return self._parse

    @cached_property
    def _parse(self) -> Parse | None:
        about = self.graphs()[0].folder / ABOUT
        if about.is_file():
            return grammar_parser(Grammar.from_json(read_json(about)["grammar"]))
        log.info("no grammar is known of these graphs: Go, Ga, Gr, structure and direction are not scored")
        return None

    def captioner(
        self, train: Any = None, settings: dict[str, Any] | None = None, epochs: int | None = None
    ) -> tuple[Stage, GraphCaptioner]:
        """A captioner fitted on train, or on the part `train` of the packed set for `epochs` (`settings` say which).

        Graphs have up to `rationale.foreign` foreign objects: the part gets them as its `packed`; val has none.
        """
        options = self.options
        recipe = replace(options.training, epochs=epochs or options.training.epochs)
        foreign = options.rationale.foreign
        train_key, whole = self.packed(options.graphs.train, foreign)
        val_key, val = self.packed(options.graphs.val)
        used = whole if train is None else replace(train, packed=whole)
        spec = options.captioner.spec(len(whole.words), whole.feature_size, whole.global_size)
        parse = self.parse()

        def make(folder: Path) -> None:
            job = CaptionJob(
                train=used,
                val=val,
                words=whole.words,
                spec=spec,
                recipe=recipe,
                trainer=options.trainer,
                seed=purpose_seed(options.seed, "captioner") % 2**31,
                label="captioner",
                resume=options.resume,
                settings={"train": train_key, "val": val_key, **(settings or {})},
                rationale=rationale_by_row(used) if foreign else {},
                parse=parse,
            )
            with self._loggers(folder) as loggers:
                fit_captioner(replace(job, loggers=loggers), folder)

        inputs = {
            "train": train_key,
            "val": val_key,
            "spec": asdict(spec),
            "recipe": recipe.fingerprint(),
            "seed": options.seed,
            "devices": options.trainer.world,
            "precision": options.trainer.precision,
            "accelerator": options.trainer.device_kind,
            **(settings or {}),
        }
        stage = self.cache.stage("captioner", inputs, make, together=True)
        return stage, load_captioner(stage.folder, whole.words)

    def _loggers(self, folder: Path) -> Any:
        return self.options.logger.loop("captioner", folder) if current().rank == 0 else nullcontext([])

    def captions(
        self, fitted: Stage, model: GraphCaptioner, name: str, graphs: Any = None, what: str = ""
    ) -> pd.DataFrame:
        """What a captioner says of a set, or of `graphs` in its place (`what` names them): name, caption, log_prob."""
        options = self.options
        key, packed = self.packed(name)
        recipe = options.training

        def make(folder: Path) -> None:
            caption_set(
                model,
                packed if graphs is None else graphs,
                options.trainer,
                recipe.batch_size,
                recipe.length,
                recipe.decode,
                recipe.width,
                folder,
                f"captions {name}",
            )

        inputs = {"captioner": fitted.key, "set": key, "what": what, "decode": recipe.decode, "width": recipe.width}
        stage = self.cache.stage("captions", inputs, make, name, together=True)
        return pd.read_parquet(stage.folder / CAPTIONS)


def losses(packed: PackedGraphs) -> str:
    """What was lost of a packed set's graphs and captions when they were read, in words; empty where nothing was."""
    about = packed.about
    beyond = f"beyond training.nodes={about['limit']}"
    words = {
        "missing_boxes": f"boxes without features (on_missing_box={about['on_missing_box']})",
        "dropped_objects": f"objects {beyond}",
        "dropped_attributes": f"attributes {beyond}",
        "dropped_relationships": f"relationships {beyond}, or of objects beyond it",
        "empty_graphs": "graphs without a node",
        "unknown_words": "words that are not in the vocabulary",
        "cut_words": f"words beyond training.length={about['length']}",
    }
    report = about["report"]
    return ", ".join(
        f"{report[key]['total']} {what} in {report[key]['samples']}" for key, what in words.items() if key in report
    )


def rationale_by_row(source: CaptionSource) -> dict[int, np.ndarray]:
    """bool `[n]` of each sample (`rationale_of`), by the row that its item names."""
    items = ((source.item(i), source.graph(i)) for i in range(len(source)))
    return {item.row: rationale_of(item.nodes, graph) for item, graph in items}
