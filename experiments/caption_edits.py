"""Captions of edited graphs: does a caption follow its graph, and change only where the graph did?"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from aaca.data.scenegraph.batch import GraphItem
from aaca.data.scenegraph.edits import drop_node, reverse_relationship
from aaca.data.scenegraph.graph import SceneGraph
from aaca.data.scenegraph.layout import Layout
from aaca.data.scenegraph.nodes import nodes_of
from aaca.data.scenegraph.store import PackedGraphs
from aaca.data.scenegraph.vocabulary import Words
from aaca.evaluate.captions.control import CaptionEdit, control_scores, touched_names
from aaca.models.captioner.captioner import GraphCaptioner
from aaca.runtime.seeding import purpose_seed
from aaca.runtime.stages import Stage

from .caption_stages import CaptionStages

Change = Callable[[SceneGraph, np.random.Generator], SceneGraph | None]


@dataclass
class EditedGraphs:
    """Samples of a packed set under other graphs, of the same objects: what a captioner takes as a set."""

    packed: PackedGraphs
    rows: list[int]  # of the packed set
    graphs: list[SceneGraph]
    layout: Layout
    limit: int

    @property
    def words(self) -> Words:
        """The vocabulary."""
        return self.packed.words

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, i: int) -> str:
        """Of the sample that was edited."""
        return self.packed.name(self.rows[i])

    def phrase(self, i: int) -> str:
        """What was said of the sample before the edit."""
        return self.packed.phrase(self.rows[i])

    def graph(self, i: int) -> SceneGraph:
        """The edited graph."""
        return self.graphs[i]

    def references(self) -> dict[str, list[str]]:
        """Those of the samples before the edit."""
        known = self.packed.references()
        return {self.name(i): known[self.name(i)] for i in range(len(self))}

    def item(self, i: int) -> GraphItem:
        """The edited graph with the features of the nodes that stayed."""
        return replace(edited_item(self.packed.item(self.rows[i]), self.graphs[i], self.layout, self.limit), row=i)


def edited_item(item: GraphItem, graph: SceneGraph, layout: Layout, limit: int) -> GraphItem:
    """An item under another graph of the same objects: each node takes the features its owner had."""
    nodes = nodes_of(graph, limit, layout.policy, layout.box_mode)
    known = {owner: row for row, owner in enumerate(item.nodes.owners)}
    rows = [known[("object", owner[1], 0) if owner[0] == "attribute" else owner] for owner in nodes.owners]
    return replace(item, nodes=nodes, features=item.features[np.asarray(rows, dtype=np.int64)])


def without_an_object(graph: SceneGraph, rng: np.random.Generator) -> SceneGraph | None:
    """Without one object, any of two or more."""
    if len(graph.objects) < 2:
        return None
    return drop_node(graph, ("object", graph.objects[int(rng.integers(len(graph.objects)))].id, 0))


def without_an_attribute(graph: SceneGraph, rng: np.random.Generator) -> SceneGraph | None:
    """Without one attribute, any of one or more."""
    owners = [("attribute", thing.id, k) for thing in graph.objects for k in range(len(thing.attributes))]
    return drop_node(graph, owners[int(rng.integers(len(owners)))]) if owners else None


def turned_round(graph: SceneGraph, rng: np.random.Generator) -> SceneGraph | None:
    """With one relationship the other way round, and its two objects in each other's place of the list."""
    ends = [it for it in graph.relationships if it.name != "on"]
    if not ends:
        return None
    chosen = ends[int(rng.integers(len(ends)))]
    places = {thing.id: row for row, thing in enumerate(graph.objects)}
    objects = list(graph.objects)
    a, b = places[chosen.subject], places[chosen.object]
    objects[a], objects[b] = objects[b], objects[a]
    return replace(reverse_relationship(graph, chosen.id), objects=tuple(objects))


CHANGES: dict[str, Change] = {
    "drop_object": without_an_object,
    "drop_attribute": without_an_attribute,
    "reverse": turned_round,
}


def edited_captions(
    stages: CaptionStages, fitted: Stage, model: GraphCaptioner, test: PackedGraphs, said: dict[str, str]
) -> dict[str, float]:
    """Edit sensitivity and locality (×100) of every kind of edit, of the test samples that allow it."""
    options = stages.options
    layout = stages.graphs()[1]
    found: dict[str, float] = {}
    for kind, change in CHANGES.items():
        rows, graphs = [], []
        for row in range(len(test)):
            rng = np.random.default_rng(purpose_seed(options.seed, "edit", kind, test.name(row)) % 2**32)
            graph = change(test.graph(row), rng)
            if graph is not None and not any(vars(test.item(row).nodes.dropped).values()):
                rows.append(row)
                graphs.append(graph)
        if not rows:
            continue
        edited = EditedGraphs(test, rows, graphs, layout, options.training.nodes)
        frame = stages.captions(fitted, model, options.graphs.test, edited, f"{kind}, seed {options.seed}")
        edits = []
        for i, caption in enumerate(frame["caption"]):
            before, after = touched_names(test.graph(rows[i]), graphs[i])
            edits.append(CaptionEdit(said[test.name(rows[i])], str(caption), before, after))
        found |= {f"{kind}_{name}": value for name, value in control_scores(edits).items()}
    return found


def picture_path(folder: Path, image_id: str) -> Path:
    """Where the picture of an image of written graphs lies."""
    return folder / "images" / f"{image_id}.png"
