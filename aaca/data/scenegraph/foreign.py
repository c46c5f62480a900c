"""Foreign objects of a scene graph: what other graphs of the same image hold, and nobody asked for in this one."""

from collections.abc import Sequence

import numpy as np

from aaca.data.scenegraph.edits import add_object
from aaca.data.scenegraph.graph import GraphObject, SceneGraph


def foreign_objects(graph: SceneGraph, others: Sequence[SceneGraph]) -> list[GraphObject]:
    """Objects of the other graphs that this one has not, in their order, without attributes; ids mean nothing here.

    A thing is annotated again in each region, under another id: one box is one thing, and comes once. A thing with the
    name of an object of this graph is left out, too: by what it says it is there already.
    """
    boxes = {thing.box for thing in graph.objects}
    names = {_plain(thing.name) for thing in graph.objects}
    found: list[GraphObject] = []
    for other in others:
        for thing in other.objects:
            if thing.box not in boxes and _plain(thing.name) not in names:
                boxes.add(thing.box)
                found.append(GraphObject(len(found), thing.name, (), thing.box))
    return found


def with_foreign(graph: SceneGraph, others: Sequence[SceneGraph], count: int, rng: np.random.Generator) -> SceneGraph:
    """With up to `count` foreign objects, drawn at random, at the end of its list; no relationship reaches them."""
    foreign = foreign_objects(graph, others)
    for row in rng.permutation(len(foreign))[:count]:
        graph = add_object(graph, foreign[row].name, foreign[row].box)
    return graph


def _plain(name: str) -> str:
    return " ".join(name.lower().split())
