"""What the captioner sees of a scene graph: nodes in order, typed edges, the flow of a telling (ASG2Caption)."""

from collections import Counter
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from aaca.data.scenegraph.graph import Counts, GraphObject, SceneGraph
from aaca.runtime.errors import ConfigError, DataError, nearest

OBJECT, ATTRIBUTE, RELATIONSHIP = 0, 1, 2
EDGE_KINDS = ("obj→attr", "attr→obj", "subj→rel", "rel→subj", "rel→obj", "obj→rel")
TOLD = (0, 1, 2, 4)  # of the edge kinds, those that the flow graph has

Owner = tuple[str, int, int]
"""A node's place in its graph: its kind in a word, id of object or relationship, index of an attribute (else 0)."""
Policy = Literal["objects_first", "reserve_relations"]
BoxMode = Literal["inclusive", "exclusive"]
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Nodes:
    """The n nodes of a graph in the model's order: each object with its attributes behind it, then the relationships.

    types `[n]` int64 (0 object, 1 attribute, 2 relationship); order `[n]` int64 (1, 2, … of an object's attributes,
    else 0); boxes `[n, 4]` int32 x1 y1 x2 y2 of the region whose feature a node takes; edges `[E, 3]` int64 (kind of
    `EDGE_KINDS`, target, source); flow `[n, n]` float32 `[target, source]`, columns sum to 1; `dropped`: not shown.
    """

    types: np.ndarray
    order: np.ndarray
    names: tuple[str, ...]
    boxes: np.ndarray
    edges: np.ndarray
    flow: np.ndarray
    owners: tuple[Owner, ...]
    dropped: Counts

    def __len__(self) -> int:
        return len(self.owners)


def nodes_of(
    graph: SceneGraph, limit: int = 10, policy: Policy = "objects_first", box_mode: BoxMode = "inclusive"
) -> Nodes:
    """At most `limit` nodes of the graph; a relationship whose subject or object is dropped is dropped with it.

    `objects_first`, as released: objects and attributes in list order until the limit, then relationships in the room
    that is left, which is none where objects and attributes fill it. `reserve_relations`, ours: the longest beginning
    of the list of objects (one at least) that has room together with all relationships among them, then those
    relationships, then attributes in list order. The order of the nodes is the same for both. `inclusive` boxes end at
    x + w - 1 (COCO), `exclusive` ones at x + w (Visual Genome). Raises `ConfigError` for a setting, `DataError` where
    a relationship does not join known objects or two objects share an id.
    """
    _check(graph, limit, policy, box_mode)
    kept = _objects_first(graph, limit) if policy == "objects_first" else _reserve_relations(graph, limit)
    at: dict[int, int] = {}
    rows: list[tuple[int, int, str, Owner]] = []
    edges: list[tuple[int, int, int]] = []
    boxes: list[Box] = []
    for thing, attributes in kept:
        own = at[thing.id] = len(rows)
        rows.append((OBJECT, 0, thing.name, ("object", thing.id, 0)))
        boxes += [_corners(thing.box, box_mode)] * (1 + attributes)
        for k, name in enumerate(thing.attributes[:attributes]):
            edges += [(0, len(rows), own), (1, own, len(rows))]
            rows.append((ATTRIBUTE, k + 1, name, ("attribute", thing.id, k)))
    joined = [it for it in graph.relationships if it.subject in at and it.object in at][: limit - len(rows)]
    for it in joined:
        own, subject, target = len(rows), at[it.subject], at[it.object]
        edges += [(2, own, subject), (3, subject, own), (4, target, own), (5, own, target)]
        rows.append((RELATIONSHIP, 0, it.name, ("relationship", it.id, 0)))
        boxes.append(_union(boxes[subject], boxes[target]))
    types, order, names, owners = zip(*rows, strict=True) if rows else ((), (), (), ())
    counts, attributes = graph.counts(), sum(number for _, number in kept)
    return Nodes(
        np.array(types, dtype=np.int64),
        np.array(order, dtype=np.int64),
        names,
        np.array(boxes, dtype=np.int32).reshape(-1, 4),
        np.array(edges, dtype=np.int64).reshape(-1, 3),
        _flow(edges, len(rows)),
        owners,
        Counts(counts.objects - len(kept), counts.attributes - attributes, counts.relationships - len(joined)),
    )


def _objects_first(graph: SceneGraph, limit: int) -> list[tuple[GraphObject, int]]:
    # each object that is kept, and how many of its attributes
    kept = []
    for thing in graph.objects:
        if limit < 1:
            break
        kept.append((thing, min(len(thing.attributes), limit - 1)))
        limit -= 1 + kept[-1][1]
    return kept


def _reserve_relations(graph: SceneGraph, limit: int) -> list[tuple[GraphObject, int]]:
    # an object needs a place for itself and for each relationship whose other end came before it
    rank = {thing.id: k for k, thing in enumerate(graph.objects)}
    closed = Counter(max(rank[it.subject], rank[it.object]) for it in graph.relationships)
    needed = np.cumsum([1 + closed[k] for k in range(len(rank))])
    objects = graph.objects[: max(1, int((needed <= limit).sum()))]
    kept = []
    spare = limit - int(needed[len(objects) - 1]) if objects else 0
    for thing in objects:
        kept.append((thing, max(0, min(len(thing.attributes), spare))))
        spare -= kept[-1][1]
    return kept


def _flow(edges: list[tuple[int, int, int]], n: int) -> np.ndarray:
    # from a relationship the telling goes on to its object, never back to its subject
    flow = np.zeros((n, n), dtype=np.float32)
    for kind, target, source in edges:
        if kind in TOLD:
            flow[target, source] = 1
    lost = np.flatnonzero(flow.sum(0) == 0)
    flow[lost, lost] = 1
    return flow / flow.sum(0)


def _corners(box: Box, mode: BoxMode) -> Box:
    (x, y, w, h), last = box, int(mode == "inclusive")
    return x, y, x + w - last, y + h - last


def _union(one: Box, two: Box) -> Box:
    return min(one[0], two[0]), min(one[1], two[1]), max(one[2], two[2]), max(one[3], two[3])


def _check(graph: SceneGraph, limit: int, policy: str, box_mode: str) -> None:
    for name, value, choices in (("policy", policy, get_args(Policy)), ("box_mode", box_mode, get_args(BoxMode))):
        if value not in choices:
            raise ConfigError(f"{name}: {value!r}; {nearest(value, choices)}")
    if limit < 1:
        raise ConfigError(f"limit: {limit}; expected 1 node or more")
    ids = {thing.id for thing in graph.objects}
    if len(ids) < len(graph.objects):
        raise DataError(f"scene graph {graph.phrase!r}: two objects share an id; see its problems()")
    for it in graph.relationships:
        if not {it.subject, it.object} <= ids:
            ends = f"{it.subject} to {it.object}"
            raise DataError(f"scene graph {graph.phrase!r}: relationship {it.id} ({ends}) joins an unknown object")
