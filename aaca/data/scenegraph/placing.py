"""Which feature row each node of a scene graph takes, and what is done where its box has none."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from aaca.data.scenegraph.graph import SceneGraph
from aaca.data.scenegraph.nodes import ATTRIBUTE, BoxMode, Nodes, Policy, nodes_of
from aaca.data.scenegraph.regions import RegionFeatures
from aaca.runtime.errors import DataError

OnMissingBox = Literal["error", "nearest_iou", "skip"]
"""error: stop; nearest_iou: take the box that overlaps most; skip: leave the node out (an object with all it has)."""


@dataclass(frozen=True)
class Placed:
    """The nodes of a graph, the feature row `[n]` of each, and how many objects and relationships had no box there."""

    nodes: Nodes
    rows: np.ndarray
    missing: int


def place(
    graph: SceneGraph,
    regions: RegionFeatures,
    limit: int,
    policy: Policy,
    box_mode: BoxMode,
    on_missing_box: OnMissingBox,
    where: str,
) -> Placed:
    """Find each node's box among the regions of its image, by its exact four integers.

    With `skip`, an object whose box is missing goes with its attributes and relationships, and what the limit had
    dropped may take its room. Raises `DataError` (file, box, nearest box) for a missing box under `error`, and where no
    box overlaps it under `nearest_iou`. `where` names the sample.
    """
    missing = 0
    while True:
        try:
            nodes = nodes_of(graph, limit, policy, box_mode)
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
        boxes = [(x1, y1, x2, y2) for x1, y1, x2, y2 in nodes.boxes.tolist()]
        lost = [at for at, box in enumerate(boxes) if box not in regions.rows]
        missing += int((nodes.types[lost] != ATTRIBUTE).sum())
        if on_missing_box == "skip" and lost:
            graph = _without(graph, [nodes.owners[at] for at in lost])
            continue
        near = {at: regions.nearest(boxes[at], box_mode) for at in lost}
        for at, (row, overlap) in near.items():
            if on_missing_box == "error" or overlap == 0:
                other: BoxMode = "exclusive" if box_mode == "inclusive" else "inclusive"
                hint = (
                    f"; with box_mode={other} all are found" if _all_found(graph, regions, limit, policy, other) else ""
                )
                raise DataError(
                    f"{regions.file}: no features of box {list(boxes[at])} ({nodes.names[at]!r} of {where}); "
                    f"nearest {regions.boxes[row].tolist()}, overlap {overlap:.2f}{hint}"
                )
        rows = [near[at][0] if at in near else regions.rows[box] for at, box in enumerate(boxes)]
        return Placed(nodes, np.array(rows, dtype=np.int64), missing)


def _all_found(graph: SceneGraph, regions: RegionFeatures, limit: int, policy: Policy, box_mode: BoxMode) -> bool:
    return all(tuple(box) in regions.rows for box in nodes_of(graph, limit, policy, box_mode).boxes.tolist())


def _without(graph: SceneGraph, owners: Sequence[tuple[str, int, int]]) -> SceneGraph:
    objects = {number for kind, number, _ in owners if kind != "relationship"}
    relations = {number for kind, number, _ in owners if kind == "relationship"}
    return replace(
        graph,
        objects=tuple(thing for thing in graph.objects if thing.id not in objects),
        relationships=tuple(
            relation
            for relation in graph.relationships
            if relation.id not in relations and not {relation.subject, relation.object} & objects
        ),
    )
