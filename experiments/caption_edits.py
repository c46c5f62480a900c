"""Captions of edited graphs: does a caption follow its graph, and change only where the graph did?"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from aaca.data.scenegraph.batch import GraphItem
from aaca.data.scenegraph.edits import drop_node, reverse_relationship, subgraph
from aaca.data.scenegraph.graph import SceneGraph
from aaca.data.scenegraph.layout import Layout
from aaca.data.scenegraph.nodes import nodes_of
from aaca.data.scenegraph.store import PackedGraphs
from aaca.evaluate.captions.control import CaptionEdit, control_scores
from aaca.models.captioner.captioner import GraphCaptioner
from aaca.runtime.files import digest
from aaca.runtime.seeding import purpose_seed
from aaca.runtime.stages import Stage
from aaca.world.phrases import CONVERSE, ON

from .caption_part import Part
from .caption_stages import CaptionStages

Change = Callable[[SceneGraph, np.random.Generator, Collection[str]], SceneGraph | None]
"""(graph, random numbers, names of relationships to a ground) to the edited graph; None where it allows no such edit.

A caption of the embedded grammar tells a ground with what stands on it, and knows no converse of "on".
"""
COLUMNS = {
    "changes": "edit_sensitivity",
    "follows": "follows",
    "locality": "locality",
    "right words kept": "content_kept",
}


@dataclass
class EditedGraphs(Part):
    """Samples of a packed set under other graphs, of the same objects; captions and references are as they were."""

    graphs: list[SceneGraph]
    layout: Layout
    limit: int

    @property
    def content(self) -> str:
        """Which samples have which graphs, for keys."""
        return digest([(self.name(i), graph.to_region()) for i, graph in enumerate(self.graphs)])

    def graph(self, i: int) -> SceneGraph:
        """The edited graph."""
        return self.graphs[i]

    def item(self, i: int) -> GraphItem:
        """The edited graph with the features of the nodes that stayed."""
        return replace(edited_item(self.packed.item(self.rows[i]), self.graphs[i], self.layout, self.limit), row=i)


def edited_item(item: GraphItem, graph: SceneGraph, layout: Layout, limit: int) -> GraphItem:
    """An item under another graph of the same objects: each node takes the features its owner had."""
    nodes = nodes_of(graph, limit, layout.policy, layout.box_mode)
    known = {owner: row for row, owner in enumerate(item.nodes.owners)}
    rows = [known[("object", owner[1], 0) if owner[0] == "attribute" else owner] for owner in nodes.owners]
    return replace(item, nodes=nodes, features=item.features[np.asarray(rows, dtype=np.int64)])


def without_an_object(graph: SceneGraph, rng: np.random.Generator, to_ground: Collection[str]) -> SceneGraph | None:
    """Without one object, any of two or more that does not leave behind what it alone stood on (a ground by itself)."""
    if len(graph.objects) < 2:
        return None
    grounds = {it.object for it in graph.relationships if it.name in to_ground}
    whole = [drop_node(graph, ("object", thing.id, 0)) for thing in graph.objects]
    fair = [left for left in whole if not (grounds & {thing.id for thing in left.objects}) - _ends(left)]
    return fair[int(rng.integers(len(fair)))] if fair else None


def _ends(graph: SceneGraph) -> set[int]:
    return {end for it in graph.relationships for end in (it.subject, it.object)}


def without_an_attribute(graph: SceneGraph, rng: np.random.Generator, _: Collection[str]) -> SceneGraph | None:
    """Without the last attribute of one object: a captioner knows them by their order, it could not tell another's."""
    owners = [("attribute", thing.id, len(thing.attributes) - 1) for thing in graph.objects if thing.attributes]
    return drop_node(graph, owners[int(rng.integers(len(owners)))]) if owners else None


def turned_round(graph: SceneGraph, rng: np.random.Generator, to_ground: Collection[str]) -> SceneGraph | None:
    """With one relationship, none to a ground, the other way round, and its two objects in each other's place.

    It is called by its converse then ("right of" for "left of"), which holds of the image; captioners see no name.
    """
    ends = [it for it in graph.relationships if it.name not in to_ground]
    if not ends:
        return None
    chosen = ends[int(rng.integers(len(ends)))]
    places = {thing.id: row for row, thing in enumerate(graph.objects)}
    objects = list(graph.objects)
    a, b = places[chosen.subject], places[chosen.object]
    objects[a], objects[b] = objects[b], objects[a]
    turned = reverse_relationship(graph, chosen.id)
    named = (
        replace(it, name=CONVERSE.get(it.name, it.name)) if it.id == chosen.id else it for it in turned.relationships
    )
    return replace(turned, objects=tuple(objects), relationships=tuple(named))


CHANGES: dict[str, Change] = {
    "drop_object": without_an_object,
    "drop_attribute": without_an_attribute,
    "reverse": turned_round,
}


@dataclass(frozen=True)
class EditedCaptions:
    """Edits of one kind: graphs and captions by row of the test set, and `control_scores` of all."""

    kind: str
    graphs: dict[int, SceneGraph]
    edits: dict[int, CaptionEdit]
    figures: dict[str, float]


def edited_captions(
    stages: CaptionStages, fitted: Stage, model: GraphCaptioner, test: PackedGraphs, said: dict[str, str]
) -> list[EditedCaptions]:
    """Every kind of edit that a test sample allows, of all samples that allow it."""
    options, parse = stages.options, stages.parse()
    layout = stages.graphs()[1]
    shown, to_ground = shown_graphs(test), () if parse is None else (ON,)
    found = []
    for kind, change in CHANGES.items():
        graphs = {}
        for row, own in shown.items():
            rng = np.random.default_rng(purpose_seed(options.seed, "edit", kind, test.name(row)) % 2**32)
            graph = change(own, rng, to_ground)
            if graph is not None:
                graphs[row] = graph
        if not graphs:
            continue
        edited = EditedGraphs(test, list(graphs), list(graphs.values()), layout, options.training.nodes)
        frame = stages.captions(fitted, model, options.graphs.test, edited, edited.content)
        edits = {
            row: CaptionEdit.of(said[test.name(row)], str(caption), shown[row], graph)
            for (row, graph), caption in zip(graphs.items(), frame["caption"], strict=True)
        }
        found.append(EditedCaptions(kind, graphs, edits, control_scores(list(edits.values()), parse)))
    return found


def shown_graphs(test: PackedGraphs) -> dict[int, SceneGraph]:
    """What a captioner is shown of each graph, by row, where the limit dropped nothing that an edit makes room for.

    That is all of it, but for nodes whose boxes had no features (on_missing_box=skip).
    """
    nodes = {row: test.item(row).nodes for row in range(len(test))}
    whole = {row: own for row, own in nodes.items() if not any(vars(own.dropped).values())}
    return {row: subgraph(test.graph(row), own.owners) for row, own in whole.items()}


def edit_figures(made: list[EditedCaptions]) -> dict[str, float]:
    """Figures of all kinds, `<kind>_<figure>`."""
    return {f"{one.kind}_{name}": value for one in made for name, value in one.figures.items()}


def by_edit(made: list[EditedCaptions]) -> pd.DataFrame:
    """One row a kind of edit: see `control_scores`."""
    rows = [
        {"edit": one.kind, **{label: one.figures[key] for label, key in COLUMNS.items() if key in one.figures}}
        for one in made
    ]
    return pd.DataFrame(rows)


def picture_path(folder: Path, image_id: str) -> Path:
    """Where the picture of an image of written graphs lies."""
    return folder / "images" / f"{image_id}.png"
