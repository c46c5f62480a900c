"""Edits of scene graphs, each a new graph; parts of a graph; what one graph says and another does not.

A node is named by its owner, as in `Nodes.owners`. Ids and order of what stays do not change, nor does the phrase: it
is what was said of the image, not of the edit. Every function raises `DataError` for an owner or id that is not there.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

import numpy as np

from aaca.data.scenegraph.graph import GraphObject, Relationship, SceneGraph
from aaca.data.scenegraph.nodes import Box, Owner
from aaca.runtime.errors import DataError
from aaca.runtime.seeding import purpose_seed

IN_VAIN = 500
"""Draws in a row that bring no new sub-graph, after which the graph counts as having no more of them."""

Fact = tuple[str, ...]
"""What a node says, lower-case: (object), (object, attribute) or (subject, relation, object)."""


def owners_of(graph: SceneGraph) -> tuple[Owner, ...]:
    """All nodes of the graph, none dropped, in the order of `nodes_of`."""
    found: list[Owner] = []
    for thing in graph.objects:
        found += [("object", thing.id, 0), *(("attribute", thing.id, k) for k in range(len(thing.attributes)))]
    return (*found, *(("relationship", it.id, 0) for it in graph.relationships))


def drop_node(graph: SceneGraph, owner: Owner) -> SceneGraph:
    """Without this node; an object takes its attributes and relationships with it."""
    _expect(graph, [owner])
    kind, name, _ = owner
    gone = {owner}
    if kind == "object":
        gone |= {it for it in owners_of(graph) if it[:2] == ("attribute", name)}
        gone |= {("relationship", it.id, 0) for it in graph.relationships if name in (it.subject, it.object)}
    return _only(graph, set(owners_of(graph)) - gone)


def add_attribute(graph: SceneGraph, object_id: int, name: str) -> SceneGraph:
    """With one more attribute, the last of this object."""
    _expect(graph, [("object", object_id, 0)])
    objects = (
        replace(thing, attributes=(*thing.attributes, name)) if thing.id == object_id else thing
        for thing in graph.objects
    )
    return replace(graph, objects=tuple(objects))


def add_object(graph: SceneGraph, name: str, box: Box, attributes: Iterable[str] = ()) -> SceneGraph:
    """With one more object, the last in the list (`graph.objects[-1].id` is its id); `box` is x, y, w, h."""
    new = GraphObject(_free(thing.id for thing in graph.objects), name, tuple(attributes), box)
    return replace(graph, objects=(*graph.objects, new))


def add_relationship(graph: SceneGraph, subject: int, target: int, name: str) -> SceneGraph:
    """With one more relationship, the last in the list, from object `subject` to object `target`."""
    _expect(graph, [("object", subject, 0), ("object", target, 0)])
    new = Relationship(_free(it.id for it in graph.relationships), subject, target, name)
    return replace(graph, relationships=(*graph.relationships, new))


def reverse_relationship(graph: SceneGraph, relationship_id: int) -> SceneGraph:
    """With subject and object of this relationship changed over; its name stays."""
    _expect(graph, [("relationship", relationship_id, 0)])
    turned = (
        replace(it, subject=it.object, object=it.subject) if it.id == relationship_id else it
        for it in graph.relationships
    )
    return replace(graph, relationships=tuple(turned))


def move_first(graph: SceneGraph, object_id: int) -> SceneGraph:
    """With this object first in the list, where a captioner with flow attention starts to tell."""
    _expect(graph, [("object", object_id, 0)])
    return replace(graph, objects=tuple(sorted(graph.objects, key=lambda thing: thing.id != object_id)))


def strip_attributes(graph: SceneGraph) -> SceneGraph:
    """Without any attribute."""
    return replace(graph, objects=tuple(replace(thing, attributes=()) for thing in graph.objects))


def subgraph(graph: SceneGraph, owners: Collection[Owner]) -> SceneGraph:
    """These nodes and the objects that they hang on, and no others."""
    _expect(graph, owners)
    ends = {it.id: (it.subject, it.object) for it in graph.relationships}
    needed = set(owners)
    for kind, name, _ in owners:
        needed |= {("object", end, 0) for end in (ends[name] if kind == "relationship" else (name,))}
    _expect(graph, needed)
    return _only(graph, needed)


def sample_subgraphs(graph: SceneGraph, k: int, seed: int) -> list[SceneGraph]:
    """`k` random connected sub-graphs, distinct unless the graph has fewer of them; then they repeat in turn.

    Each starts at a random object and grows along random relationships to a random number of objects; every attribute
    and every further relationship among them is kept with probability 1/2. Raises `DataError` for a graph without
    objects.
    """
    if not graph.objects:
        raise DataError(f"scene graph {graph.phrase!r}: no object to sample sub-graphs around")
    _expect_ends(graph)
    rng = np.random.default_rng(purpose_seed(seed, "sample_subgraphs"))
    found: dict[SceneGraph, None] = {}
    in_vain = 0
    while len(found) < k and in_vain < IN_VAIN:
        part = _only(graph, _draw(graph, rng))
        in_vain = in_vain + 1 if part in found else 0
        found[part] = None
    distinct = list(found)
    return [distinct[row % len(distinct)] for row in range(k)]


def _draw(graph: SceneGraph, rng: np.random.Generator) -> set[Owner]:
    objects = {graph.objects[int(rng.integers(len(graph.objects)))].id}
    drawn: set[Owner] = set()
    goal = int(rng.integers(1, len(graph.objects) + 1))
    while len(objects) < goal:
        ways = [it for it in graph.relationships if (it.subject in objects) != (it.object in objects)]
        if not ways:
            break
        way = ways[int(rng.integers(len(ways)))]
        objects |= {way.subject, way.object}
        drawn.add(("relationship", way.id, 0))
    drawn |= {("object", name, 0) for name in objects}
    ends = {it.id: {it.subject, it.object} for it in graph.relationships}
    for owner in owners_of(graph):
        held = ends[owner[1]] if owner[0] == "relationship" else {owner[1]}
        if owner[0] != "object" and held <= objects and rng.random() < 0.5:
            drawn.add(owner)
    return drawn


@dataclass(frozen=True)
class GraphDiff:
    """Nodes of two graphs by what they say.

    `missing`: owners in the human graph of what the model's lacks; `irrelevant`: owners in the model's graph of what
    the human one lacks; `supported`: owners in the model's graph of what both say.
    """

    missing: tuple[Owner, ...]
    irrelevant: tuple[Owner, ...]
    supported: tuple[Owner, ...]


def diff(human: SceneGraph, model: SceneGraph) -> GraphDiff:
    """What the graphs do and do not share by `facts_of`: ids and boxes play no part, two of a kind count as one."""
    asked, said = facts_of(human), facts_of(model)
    wanted, told = set(asked.values()), set(said.values())
    return GraphDiff(
        missing=tuple(owner for owner, fact in asked.items() if fact not in told),
        irrelevant=tuple(owner for owner, fact in said.items() if fact not in wanted),
        supported=tuple(owner for owner, fact in said.items() if fact in wanted),
    )


def facts_of(graph: SceneGraph) -> dict[Owner, Fact]:
    """What each node says, in the order of `owners_of`."""
    _expect_ends(graph)
    names = {thing.id: _plain(thing.name) for thing in graph.objects}
    found: dict[Owner, Fact] = {}
    for thing in graph.objects:
        found["object", thing.id, 0] = (names[thing.id],)
        found |= {
            ("attribute", thing.id, k): (names[thing.id], _plain(word)) for k, word in enumerate(thing.attributes)
        }
    for it in graph.relationships:
        found["relationship", it.id, 0] = (names[it.subject], _plain(it.name), names[it.object])
    return found


def _only(graph: SceneGraph, owners: Collection[Owner]) -> SceneGraph:
    objects = []
    for thing in graph.objects:
        if ("object", thing.id, 0) in owners:
            kept = (word for k, word in enumerate(thing.attributes) if ("attribute", thing.id, k) in owners)
            objects.append(replace(thing, attributes=tuple(kept)))
    related = (it for it in graph.relationships if ("relationship", it.id, 0) in owners)
    return replace(graph, objects=tuple(objects), relationships=tuple(related))


def _expect(graph: SceneGraph, owners: Collection[Owner]) -> None:
    known = set(owners_of(graph))
    for owner in owners:
        if owner not in known:
            raise DataError(f"scene graph {graph.phrase!r}: no {owner[0]} with id {owner[1]} and index {owner[2]}")


def _expect_ends(graph: SceneGraph) -> None:
    _expect(graph, [("object", end, 0) for it in graph.relationships for end in (it.subject, it.object)])


def _free(ids: Iterable[int]) -> int:
    return max(ids, default=-1) + 1


def _plain(name: str) -> str:
    return " ".join(name.lower().split())
