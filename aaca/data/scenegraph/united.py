"""Graphs that also hold what nobody asked for: a set whose graphs get foreign objects, and which nodes people meant."""

from collections import defaultdict
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from aaca.data.scenegraph.foreign import with_foreign
from aaca.data.scenegraph.graph import SceneGraph
from aaca.data.scenegraph.nodes import Nodes
from aaca.data.scenegraph.samples import GraphSet
from aaca.runtime.seeding import purpose_seed

RATIONALE = "rationale"
"""A further field of objects in region records: false where people did not ask for the object."""


@dataclass(eq=False, repr=False)
class UnitedGraphs(GraphSet):
    """A set whose graphs have up to `count` foreign objects of their own image, each of its samples' graphs given.

    They come last in the list of objects, without attributes and relationships, marked `"rationale": false`; no more of
    them than leave all that was annotated its place among `limit` nodes. Drawn by (seed, name of the sample). Nothing
    else of a sample changes, files least of all. Begin with `of`.
    """

    count: int = 0
    seed: int = 0
    _annotated: tuple[str, dict[int, SceneGraph]] | None = field(default=None, init=False)
    _united: tuple[int, dict[str, Any]] | None = field(default=None, init=False)

    @classmethod
    def of(cls, source: GraphSet, count: int, seed: int) -> "UnitedGraphs":
        """The samples of `source`."""
        return cls(
            source.layout,
            source.set_name,
            source.limit,
            source.length,
            source.on_missing_box,
            source.words,
            source.samples,
            source.image_rows,
            count=count,
            seed=seed,
        )

    def region(self, i: int) -> dict[str, Any]:
        """The record of sample `i` with its foreign objects. Raises `DataError` as `GraphSet.graph` does."""
        if self._united is None or self._united[0] != i:
            self._united = (i, self._unite(i).to_region())
        return self._united[1]

    def _unite(self, i: int) -> SceneGraph:
        graphs = self._graphs(self.image_id(i))
        own, others = graphs[i], [graph for row, graph in graphs.items() if row != i]
        room = max(0, self.limit - own.counts().total)
        rng = np.random.default_rng(purpose_seed(self.seed, "foreign", self.name(i)))
        objects = with_foreign(own, others, min(self.count, room), rng).objects
        foreign = (replace(thing, extra={RATIONALE: False}) for thing in objects[len(own.objects) :])
        return replace(own, objects=(*own.objects, *foreign))

    def _graphs(self, image_id: str) -> dict[int, SceneGraph]:
        # of all samples of an image, as annotated
        if self._annotated is None or self._annotated[0] != image_id:
            graphs = {}
            for row in self._rows[image_id]:
                where = f"{self._json_file(image_id)}: region {self.samples[row, 1]}"
                graphs[row] = SceneGraph.from_region(super().region(row), where)
            self._annotated = (image_id, graphs)
        return self._annotated[1]

    @cached_property
    def _rows(self) -> dict[str, list[int]]:
        found: defaultdict[str, list[int]] = defaultdict(list)
        for row, image_id in enumerate(self.samples[:, 0].tolist()):
            found[image_id].append(row)
        return dict(found)


def rationale_of(nodes: Nodes, graph: SceneGraph) -> np.ndarray:
    """bool `[n]`: which nodes of the graph people asked for: all but objects marked `"rationale": false`."""
    foreign = {thing.id for thing in graph.objects if thing.extra.get(RATIONALE) is False}
    return np.array([kind == "relationship" or owner not in foreign for kind, owner, _ in nodes.owners], bool)
