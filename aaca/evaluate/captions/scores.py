"""All figures of a set of captions, from one table with a row a caption whose sums are all that the figures need.

BLEU, ROUGE-L, CIDEr, node recall, structure and direction accuracy are ×100 as in the papers: 100 is a perfect BLEU,
ROUGE-L, recall or accuracy, 1000 a perfect CIDEr-D. G (numbers of nodes, lower is better), length (words) and
vocabulary (distinct words) are as they are. With one reference a caption, CIDEr near 200 is normal.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from aaca.data.scenegraph.graph import SceneGraph
from aaca.evaluate.captions.bleu import COUNTS, bleu_counts, bleu_of
from aaca.evaluate.captions.cider import CiderIndex
from aaca.evaluate.captions.rouge import rouge_l
from aaca.evaluate.captions.structure import ERRORS, Parse, node_recall, relation_directions, structure_error
from aaca.evaluate.captions.texts import Candidates, References, paired
from aaca.runtime.errors import DataError, nearest

_RATIOS: dict[str, tuple[str, str, float]] = {  # figure: sum of a column, over the sum of another, scale
    "rouge_l": ("rouge_l", "captions", 100.0),
    "cider": ("cider", "captions", 100.0),
    **{error: (error, "captions", 1.0) for error in ERRORS},
    "structure": ("structure", "captions", 100.0),
    "node_recall": ("nodes_found", "nodes", 100.0),
    "direction_accuracy": ("relations_right", "relations_judged", 100.0),
    "direction_judged": ("relations_judged", "relations", 100.0),
    "length": ("words", "captions", 1.0),
}


def score_captions(
    candidates: Candidates,
    references: References,
    graphs: Mapping[str, SceneGraph] | None = None,
    index: CiderIndex | None = None,
    parse: Parse | None = None,
) -> dict[str, float]:
    """Every figure of the set (see `figures_of`) and `vocabulary`, the number of distinct words in all captions.

    Arguments and errors as `caption_table`.
    """
    table = caption_table(candidates, references, graphs, index, parse)
    vocabulary = {word for caption in candidates.values() for word in caption.split()}
    return {**figures_of(table), "vocabulary": float(len(vocabulary))}


def caption_table(
    candidates: Candidates,
    references: References,
    graphs: Mapping[str, SceneGraph] | None = None,
    index: CiderIndex | None = None,
    parse: Parse | None = None,
) -> pd.DataFrame:
    """One row a name: the caption, BLEU's counts, ROUGE-L (0 to 1), CIDEr-D (0 to 10), what it says of its graph.

    `graphs` adds node recall; with `parse` as well, structure errors and directions. `index` holds the document
    frequencies of CIDEr: fit it on the full set wherever subsets are compared; without it they come from `references`
    (the COCO evaluation). Raises `DataError` as `paired` does, and where a name has no graph or `parse` has no graphs.
    """
    names = paired(candidates, references)
    if parse is not None and graphs is None:
        raise DataError("parse: given without graphs; expected the graphs to hold the captions against")
    fitted = index or CiderIndex.fit(references)
    rows = []
    for name in names:
        caption, texts = candidates[name], references[name]
        row: dict[str, float | str] = {"caption": caption, "captions": 1.0}
        row.update(zip(COUNTS, bleu_counts(caption, texts).tolist(), strict=True))
        row["rouge_l"], row["cider"] = rouge_l(caption, texts), fitted.score(caption, texts)
        if graphs is not None:
            if name not in graphs:
                raise DataError(f"graphs: none for {name!r}; {nearest(name, graphs)}")
            row.update(_graph_columns(caption, graphs[name], parse))
        rows.append(row)
    return pd.DataFrame(rows, index=pd.Index(names, name="name"))


def figures_of(table: pd.DataFrame) -> dict[str, float]:
    """The figures of the rows of a `caption_table` together.

    `bleu1` to `bleu4`, `rouge_l`, `cider`, `length`; with graphs `node_recall`; with a parser `g_objects`,
    `g_attributes`, `g_relationships` (the papers' Go, Ga, Gr), `g_sum`, `g_total`, `structure` (captions with as many
    of each as their graph), `direction_accuracy` and `direction_judged`, the share of relationships it rests on. NaN
    where nothing was there to judge.
    """
    columns = sum_columns(table)
    totals = table[columns].to_numpy(np.float64).sum(axis=0)
    return {name: float(value) for name, value in figures_of_sums(totals, columns).items()}


def sum_columns(table: pd.DataFrame) -> list[str]:
    """The columns of a table that add up over captions."""
    return [column for column in table.columns if column != "caption"]


def figures_of_sums(sums: np.ndarray, columns: Sequence[str]) -> dict[str, np.ndarray]:
    """Figures, each `[...]`, of column sums `[..., C]`; NaN where a figure's own count is 0."""
    at = {column: sums[..., i] for i, column in enumerate(columns)}
    bleus = 100 * bleu_of(np.stack([at[column] for column in COUNTS], axis=-1))
    found = {f"bleu{n}": bleus[..., n - 1] for n in range(1, bleus.shape[-1] + 1)}
    with np.errstate(invalid="ignore"):
        for name, (over, under, scale) in _RATIOS.items():
            if over in at and under in at:
                found[name] = np.where(at[under] > 0, scale * at[over] / at[under], np.nan)
    return found


def _graph_columns(caption: str, graph: SceneGraph, parse: Parse | None) -> dict[str, float]:
    row: dict[str, float] = dict(zip(("nodes_found", "nodes"), node_recall(caption, graph), strict=True))
    if parse is not None:
        said = parse(caption)
        row.update(zip(ERRORS, structure_error(said, graph).tolist(), strict=True))
        row["structure"] = float(row["g_sum"] == 0)
        row["relations_right"], row["relations_judged"] = relation_directions(said, graph)
        row["relations"] = len(graph.relationships)
    return row
