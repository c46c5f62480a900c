"""Which nodes of its graph each word of a caption hangs on, how often that is the right one, and pictures of it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from aaca.data.images import read_image
from aaca.data.scenegraph.batch import GraphItem
from aaca.data.scenegraph.store import KINDS, PackedGraphs
from aaca.data.scenegraph.vocabulary import EOS
from aaca.discover.captions.attribution import METHODS, method_of
from aaca.discover.captions.ratings import Mention, caption_ids, mentions_of
from aaca.evaluate.attribution_picture import draw_attribution
from aaca.models.captioner.captioner import GraphCaptioner
from aaca.runtime.errors import AacaError
from aaca.runtime.files import atomic_path
from aaca.runtime.seeding import purpose_seed

from .caption_edits import picture_path
from .caption_run import CaptionRun

WORDS, POINTING = "words.csv", "pointing.csv"


def explain(run: CaptionRun) -> float:
    """Score nodes for words by every method; returns how often the chosen one takes the object that a word names."""
    options, stages = run.options, run.stages
    name = options.graphs.test
    _, test = stages.packed(name)
    _, model = stages.captioner()
    model.eval()
    rng = np.random.default_rng(purpose_seed(options.seed, "explain") % 2**32)
    rows = np.sort(rng.permutation(len(test))[: options.explain.samples]).tolist()
    table = pd.DataFrame([word for row in rows for word in _words(run, model, test, row)])
    if table.empty or not (table["kind"] == KINDS[0]).any():
        raise AacaError(f"explain: no sample of {name} names one of two or more objects; expected more explain.samples")
    pointing = _pointing(table)
    if run.first:
        for file, frame in ((WORDS, table), (POINTING, pointing)):
            with atomic_path(run.folder / file) as temporary:
                frame.to_csv(temporary, index=False)
        scored = set(table["sample"])
        drawn = [row for row in rows if test.name(row) in scored][: options.explain.pictures]
        pictures = _pictures(run, model, test, drawn)
        run.table("words: is the highest node of its kind the one they name?", pointing)
        right = {f"{one.kind} {one.method}": one.right for one in pointing.itertuples(index=False)}
        options.logger.record("caption explain", right, {"pointing": pointing, "words": table}, pictures)
        print(f"every word: {run.folder / WORDS}")
    own = (pointing["method"] == options.explain.by) & (pointing["kind"] == KINDS[0])
    return float(pointing.loc[own, "right"].iloc[0])


def _words(run: CaptionRun, model: GraphCaptioner, test: PackedGraphs, row: int) -> list[dict[str, object]]:
    # nodes that the sample's own caption names, each among two or more of its kind, by every method
    item = test.item(row)
    of_kind = [np.flatnonzero(item.nodes.types == kind) for kind in range(len(KINDS))]
    named = [one for one in mentions_of(item, test.words) if len(of_kind[item.nodes.types[one.node]]) > 1]
    found: list[dict[str, object]] = []
    for method in METHODS if named else ():
        scores = _scores(run, model, item, method)
        for one in named:
            kind = int(item.nodes.types[one.node])
            best = _best(scores, one, of_kind[kind])
            found.append(
                {
                    "method": method,
                    "sample": test.name(row),
                    "kind": KINDS[kind],
                    "word": item.nodes.names[one.node],
                    "best": item.nodes.names[best],
                    "right": best == one.node,
                    "chance": 1 / len(of_kind[kind]),
                }
            )
    return found


def _scores(run: CaptionRun, model: GraphCaptioner, item: GraphItem, method: str) -> np.ndarray:
    # [T, N] of the words of the sample's own caption
    words = caption_ids(item)
    return method_of(method, run.options.explain.steps)(model, item, [*words, EOS]).cpu().numpy()[: len(words)]


def _best(scores: np.ndarray, one: Mention, nodes: np.ndarray) -> int:
    return int(nodes[scores[one.start : one.end].sum(axis=0)[nodes].argmax()])


def _pointing(table: pd.DataFrame) -> pd.DataFrame:
    # one row a kind and method, objects first
    ranked = table.assign(kind=pd.Categorical(table["kind"], KINDS))
    found = ranked.groupby(["kind", "method"], sort=False, observed=True).agg(
        words=("right", "size"), right=("right", "mean"), by_chance=("chance", "mean")
    )
    order = [(kind, method) for kind in KINDS for method in METHODS if (kind, method) in found.index]
    return found.loc[order].reset_index()[["method", "kind", "words", "right", "by_chance"]]


def _pictures(run: CaptionRun, model: GraphCaptioner, test: PackedGraphs, rows: Sequence[int]) -> dict[str, Path]:
    options, folder, written = run.options, run.stages.graphs()[0].folder, {}
    for row in rows:
        name, item = test.name(row), test.item(row)
        image = read_image(picture_path(folder, name.rpartition("_")[0])) if options.graphs.drawn else None
        words = [test.words.words[word] for word in caption_ids(item)]
        named = [(one.node, one.start, one.end) for one in mentions_of(item, test.words)]
        scores = _scores(run, model, item, options.explain.by)
        picture = draw_attribution(image, test.graph(row), item.nodes, words, scores, named, options.explain.by)
        written[name] = run.folder / "attribution" / f"{name.replace('/', '_')}.png"
        with atomic_path(written[name]) as temporary:
            picture.save(temporary, format="PNG")
    return written
