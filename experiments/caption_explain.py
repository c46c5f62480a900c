"""Which nodes of its graph each word of a caption hangs on, how often that is the right one, and pictures of it."""

import numpy as np
import pandas as pd

from aaca.data.images import read_image
from aaca.data.scenegraph.store import PackedGraphs
from aaca.data.scenegraph.vocabulary import EOS
from aaca.discover.captions.attribution import METHODS, method_of
from aaca.discover.captions.ratings import Mention, caption_ids, mentions_of
from aaca.evaluate.graph_picture import draw_graph
from aaca.models.captioner.captioner import GraphCaptioner
from aaca.runtime.errors import AacaError
from aaca.runtime.files import atomic_path
from aaca.runtime.seeding import purpose_seed

from .caption_edits import picture_path
from .caption_run import CaptionRun

WORDS, POINTING = "words.csv", "pointing.csv"


def explain(run: CaptionRun) -> float:
    """Score nodes for words by every method; returns the pointing accuracy of the chosen one."""
    options, stages = run.options, run.stages
    name = options.graphs.test
    _, test = stages.packed(name)
    _, model = stages.captioner()
    model.eval()
    rng = np.random.default_rng(purpose_seed(options.seed, "explain") % 2**32)
    rows = np.sort(rng.permutation(len(test))[: options.explain.samples]).tolist()
    rows = [row for row in rows if len(test.item(row).nodes.types)]
    table = pd.DataFrame([word for row in rows for word in _words(run, model, test, row)])
    if table.empty:
        raise AacaError(f"explain: no sample of {name} names one of two or more objects; expected more explain.samples")
    pointing = (
        table.groupby("method", sort=False)
        .agg(words=("right", "size"), right=("right", "mean"), by_chance=("chance", "mean"))
        .reset_index()
    )
    if run.first:
        for file, frame in ((WORDS, table), (POINTING, pointing)):
            with atomic_path(run.folder / file) as temporary:
                frame.to_csv(temporary, index=False)
        _pictures(run, test, rows[: options.explain.pictures])
        run.table("words whose node scores highest: is it the one they name?", pointing)
        print(f"every word: {run.folder / WORDS}")
    return float(pointing.loc[pointing["method"] == options.explain.by, "right"].iloc[0])


def _words(run: CaptionRun, model: GraphCaptioner, test: PackedGraphs, row: int) -> list[dict[str, object]]:
    # objects that the sample's own caption names, by every method
    item = test.item(row)
    ids = caption_ids(item)
    objects = np.flatnonzero(item.nodes.types == 0)
    named = [one for one in mentions_of(item, test.words) if item.nodes.types[one.node] == 0]
    found: list[dict[str, object]] = []
    if not ids or not named or len(objects) < 2:
        return found
    for method in METHODS:
        scores = method_of(method, run.options.explain.steps)(model, item, [*ids, EOS]).cpu().numpy()
        found += [
            {
                "method": method,
                "sample": test.name(row),
                "word": item.nodes.names[one.node],
                "best": item.nodes.names[_best(scores, one, objects)],
                "right": _best(scores, one, objects) == one.node,
                "chance": 1 / len(objects),
            }
            for one in named
        ]
    return found


def _best(scores: np.ndarray, one: Mention, objects: np.ndarray) -> int:
    return int(objects[scores[one.start : one.end].sum(axis=0)[objects].argmax()])


def _pictures(run: CaptionRun, test: PackedGraphs, rows: list[int]) -> None:
    folder = run.stages.graphs()[0].folder
    if not run.options.graphs.drawn:
        return
    for row in rows:
        name = test.name(row)
        image = picture_path(folder, name.rpartition("_")[0])
        with atomic_path(run.folder / "graphs" / f"{name.replace('/', '_')}.png") as temporary:
            draw_graph(read_image(image), test.graph(row)).save(temporary, format="PNG")
