"""Graphs of test made wrong, diagnosed, mended and captioned again (`val_sub_asgopt`, ours), beside a filter."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor, from_numpy

from aaca.data.scenegraph.graph import SceneGraph
from aaca.data.scenegraph.samples import GraphSet
from aaca.data.scenegraph.vocabulary import EOS
from aaca.discover.captions.attribution import method_of
from aaca.discover.captions.diagnosis import (
    Diagnosis,
    add_missing,
    diagnose,
    drop_irrelevant,
    fact_counts,
)
from aaca.evaluate.captions.cider import CiderIndex
from aaca.evaluate.captions.intervals import difference, filter_effect
from aaca.evaluate.captions.scores import caption_table, figures_of
from aaca.evaluate.statistics import Interval
from aaca.runtime.files import atomic_path, digest, write_json
from aaca.runtime.seeding import purpose_seed
from aaca.runtime.stages import Stage

from .caption_intervals import over_images
from .caption_planted import Case, Regraphed, cases_of, number_wrong, planted_and_found, right_ones
from .caption_run import CaptionRun

SCORES = "scores.npz"
FIGURES = {
    "cider": "CIDEr-D",
    "structure": "structure",
    "g_objects": "Go",
    "g_attributes": "Ga",
    "g_relationships": "Gr",
}
INTERVAL = ("Δ", "low", "high")
"""CIDEr-D less that of `none`, and where it lies when images are drawn again (95 %); of random filters, their range.

Scenes of the embedded world share cut-outs; images are drawn again as if they did not."""
EDITS = ("none", "drop irrelevant", "add missing", "both", "drop unused", "human graph")
"""Which graph is captioned: as given; mended by the human graph in three ways; mended without people; the human one."""


def regraph(run: CaptionRun) -> float:
    """Diagnose the captions of graphs that are right or wrong, mend the graphs, caption again; CIDEr-D of `both`.

    A caption is read by the grammar of its graphs. Where none is known (released data), nothing is read in captions:
    then a model graph holds used nodes alone, what only a caption says goes unseen, and structure is not scored.
    """
    options, stages = run.options, run.stages
    name = options.graphs.test
    fitted, model = stages.captioner()
    recipe = options.training
    source = GraphSet.open(stages.graphs()[1], name, recipe.nodes, recipe.length, options.on_missing_box)
    cases = cases_of(source, options.regraph.wrong, options.regraph.samples, options.seed)

    def captions(graphs: Sequence[SceneGraph]) -> list[str]:
        edited = Regraphed(source, cases, graphs, options.feature_dtype)
        return list(stages.captions(fitted, model, name, edited, f"regraph {_digest(cases, graphs)}")["caption"])

    given = Regraphed(source, cases, [case.given for case in cases], options.feature_dtype)
    first = captions(given.graphs)
    scores = _scores(run, fitted, model, given, first)
    informed, alone = (_diagnoses(run, given, first, scores, people) for people in (True, False))
    graphs: dict[str, list[SceneGraph]] = {
        "none": list(given.graphs),
        "drop irrelevant": [drop_irrelevant(one) for one in informed],
        "add missing": [add_missing(one) for one in informed],
        "both": [add_missing(one, drop_irrelevant(one)) for one in informed],
        "drop unused": [drop_irrelevant(one) for one in alone],
        "human graph": [case.human for case in cases],
    }
    said = {edit: captions(graphs[edit]) for edit in EDITS}
    frame = _report(run, cases, informed, said)
    if run.first:
        _write(run, cases, informed, alone, graphs, said, frame)
    return float(frame.set_index("graphs")["CIDEr-D"]["both"])


def _scores(run: CaptionRun, fitted: Stage, model: Any, given: Regraphed, captions: Sequence[str]) -> list[Tensor]:
    # [T, n] of each given graph's nodes, for the words of the captioner's own caption
    options, config = run.options, run.options.regraph
    key, _ = run.stages.packed(options.graphs.test)

    def make(folder: Path) -> None:
        method, found = method_of(config.by, config.steps), {}
        model.eval()
        for i, caption in enumerate(captions):
            item = given.item(i)
            ids = [given.words.ids[word] for word in caption.split()] or [EOS]  # a caption without words has its end
            found[str(i)] = method(model, item, ids)[:, : len(item.nodes)].cpu().numpy()
        np.savez(folder / SCORES, **found)

    inputs = {
        "captioner": fitted.key,
        "set": key,
        "graphs": _digest(given.cases, given.graphs),
        "captions": digest(list(captions)),
        "by": config.by,
        "steps": config.steps if config.by == "integrated_gradients" else None,
    }
    stage = run.stages.cache.stage("node_scores", inputs, make, options.graphs.test)
    with np.load(stage.folder / SCORES) as found:
        return [from_numpy(found[str(i)]) for i in range(len(captions))]


def _diagnoses(
    run: CaptionRun, given: Regraphed, captions: Sequence[str], scores: Sequence[Tensor], people: bool
) -> list[Diagnosis]:
    parse = run.stages.parse() or (lambda caption: SceneGraph((), (), caption))
    return [
        diagnose(
            case.name,
            case.given,
            given.item(i).nodes,
            scores[i],
            captions[i],
            parse,
            case.human if people else None,
            run.options.regraph.least,
        )
        for i, case in enumerate(given.cases)
    ]


def _report(
    run: CaptionRun, cases: Sequence[Case], informed: Sequence[Diagnosis], said: dict[str, list[str]]
) -> pd.DataFrame:
    # a row an edit, then the filters; all captions scored by the document frequencies of the whole set
    _, test = run.stages.packed(run.options.graphs.test)
    whole = test.references()
    index = run.index() or CiderIndex.fit(whole)
    references = {case.name: whole[case.name] for case in cases}
    human, images = {case.name: case.human for case in cases}, {case.name: case.image for case in cases}
    tables = {
        edit: caption_table(dict(zip(references, captions, strict=True)), references, human, index, run.stages.parse())
        for edit, captions in said.items()
    }
    before, seed = tables["none"], purpose_seed(run.options.seed, "regraph", "interval")
    rows: list[dict[str, Any]] = []
    for edit, table in tables.items():
        figures, changed = figures_of(table), 100.0 * (table["caption"] != before["caption"]).mean()
        row = {"graphs": edit, "captions": len(table), "changed": changed, **_shown(figures)}
        if edit != "none":
            row |= _interval(difference(table, before, images, seed=seed)["cider"])
        rows.append(row)
    kept = [case.name for case, right in zip(cases, right_ones(cases, informed), strict=True) if right]
    rows += _filters(before, kept, images, seed)
    frame = pd.DataFrame(rows)
    columns = ("graphs", "captions", "CIDEr-D", *INTERVAL, "structure", "Go", "Ga", "Gr", "changed")
    return frame[[name for name in columns if name in frame]]


def _filters(before: pd.DataFrame, kept: list[str], images: dict[str, str], seed: int) -> list[dict[str, Any]]:
    # the captions of `none` whose graphs were right, and as many at random (mean and central range of many draws)
    named: list[dict[str, Any]] = [{"graphs": name, "captions": len(kept)} for name in ("filter", "random filter")]
    if not kept:
        return named
    effects = filter_effect(before, kept, images, seed=seed)
    whole, drawn = effects["cider"].all, effects["cider"].random
    own = {**_shown({key: one.kept for key, one in effects.items()}), **_interval(effects["cider"].gain)}
    distance = Interval(drawn.value - whole, drawn.low - whole, drawn.high - whole)
    chance = {**_shown({key: one.random.value for key, one in effects.items()}), **_interval(distance)}
    return [row | found for row, found in zip(named, (own, chance), strict=True)]


def _shown(figures: dict[str, float]) -> dict[str, float]:
    return {label: figures[key] for key, label in FIGURES.items() if key in figures}


def _interval(found: Interval) -> dict[str, float]:
    return dict(zip(INTERVAL, (found.value, found.low, found.high), strict=True))


def _write(
    run: CaptionRun,
    cases: Sequence[Case],
    informed: Sequence[Diagnosis],
    alone: Sequence[Diagnosis],
    graphs: dict[str, list[SceneGraph]],
    said: dict[str, list[str]],
    frame: pd.DataFrame,
) -> None:
    for file, table in (("regraph.csv", frame), ("facts.csv", pd.DataFrame(fact_counts(informed)))):
        with atomic_path(run.folder / file) as temporary:
            table.to_csv(temporary, index=False)
    found = planted_and_found(cases, informed, alone)
    changes = {change: sum(case.change == change for case in cases) for change in ("lost", "foreign", "none")}
    asked = number_wrong(run.options.regraph.wrong, len(cases))
    write_json(run.folder / "regraph.json", {"asked": asked, "changes": changes, "facts": found})
    with atomic_path(run.folder / "diagnoses.jsonl") as temporary, temporary.open("w", encoding="utf-8") as stream:
        for i, (case, one, other) in enumerate(zip(cases, informed, alone, strict=True)):
            record = {
                "name": case.name,
                "change": case.change,
                "captions": {edit: captions[i] for edit, captions in said.items()},
                **{
                    key: [" ".join(fact) for fact in getattr(one, key)]
                    for key in ("supported", "irrelevant", "missing")
                },
                "irrelevant_without_people": [" ".join(fact) for fact in other.irrelevant],
                "given": case.given.to_region(),
                "both": graphs["both"][i].to_region(),
            }
            stream.write(json.dumps(record, ensure_ascii=False, default=str) + "\n")
    lost, foreign = changes["lost"], changes["foreign"]
    print(f"graphs made wrong: {lost + foreign} of {asked} asked for ({lost} lost an object, {foreign} got one)")
    title = f"captions of graphs of {run.options.graphs.test}, mended or filtered (Δ: {over_images(run)})"
    run.table(title, _blank(frame))
    facts = pd.DataFrame([{"facts": key, **row} for key, row in found.items()])
    run.table("planted facts, found", _blank(facts))
    numbers = {f"{row['graphs']} {key}": row[key] for row in frame.to_dict("records") for key in ("CIDEr-D", "Δ")}
    told = {key: value for key, value in numbers.items() if pd.notna(value)}
    run.options.logger.record("caption regraph", told, {"regraph": frame, "planted facts": facts}, {})
    print(f"every diagnosis: {run.folder / 'diagnoses.jsonl'}")


def _blank(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.astype(object).where(frame.notna(), "")


def _digest(cases: Sequence[Case], graphs: Sequence[SceneGraph]) -> str:
    return digest([(case.name, graph.to_region()) for case, graph in zip(cases, graphs, strict=True)])
