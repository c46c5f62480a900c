"""A world of coloured shapes in memory, small enough that a captioner learns it by heart in seconds."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations

import numpy as np

from aaca.data.scenegraph.batch import GraphItem
from aaca.data.scenegraph.graph import GraphObject, Relationship, SceneGraph
from aaca.data.scenegraph.nodes import nodes_of
from aaca.data.scenegraph.vocabulary import Words
from aaca.evaluate.captions.structure import grammar_parser
from aaca.models.captioner.spec import CaptionerSpec
from aaca.world.phrases import Grammar

SHAPES, COLOURS = ("circle", "square", "triangle"), ("red", "green", "blue")
WIDTH = 12
parse = grammar_parser(Grammar(SHAPES, COLOURS, (), ("left of",)))


class Shapes:
    """Captions "a red circle left of a blue square" (or the first half) with their graphs."""

    words = Words.from_counts([f"a {colour} {shape} left of" for colour in COLOURS for shape in SHAPES], 1)

    def __init__(self, count: int, seed: int = 0, length: int = 12) -> None:
        rng = np.random.default_rng(seed)
        pairs = [(one, two) for one, two in permutations(range(3), 2)]
        self.graphs: list[SceneGraph] = []
        for at in range(count):
            one, two = pairs[at % len(pairs)]
            colours = rng.integers(0, 3, 2).tolist()
            self.graphs.append(graph((one, colours[0]), (two, colours[1]), single=at % 4 == 3))
        self.length = length

    def __len__(self) -> int:
        return len(self.graphs)

    def item(self, i: int) -> GraphItem:
        return item(self.graphs[i], self.words, self.length, i)

    def name(self, i: int) -> str:
        return f"shapes_{i}"

    def phrase(self, i: int) -> str:
        return self.graphs[i].phrase

    def graph(self, i: int) -> SceneGraph:
        return self.graphs[i]

    def references(self) -> dict[str, list[str]]:
        return {self.name(i): [self.phrase(i)] for i in range(len(self))}


def graph(one: tuple[int, int], two: tuple[int, int], single: bool = False) -> SceneGraph:
    objects = [
        GraphObject(k, SHAPES[shape], (COLOURS[colour],), (20 * k, 5, 10, 10))
        for k, (shape, colour) in enumerate([one, two])
    ]
    said = [f"a {COLOURS[colour]} {SHAPES[shape]}" for shape, colour in (one, two)]
    if single:
        return SceneGraph((objects[0],), (), said[0])
    return SceneGraph(tuple(objects), (Relationship(9, 0, 1, "left of"),), " left of ".join(said))


def item(graph: SceneGraph, words: Words, length: int, row: int) -> GraphItem:
    nodes = nodes_of(graph)
    things = {thing.id: vector(thing) for thing in graph.objects}
    both = sum(things.values(), np.zeros(WIDTH, np.float32)) / len(things)
    features = np.stack([both if kind == "relationship" else things[key] for kind, key, _ in nodes.owners])
    return GraphItem(nodes, np.full(4, 0.5, np.float32), features, words.encode(graph.phrase, length), row)


def vector(thing: GraphObject) -> np.ndarray:
    values = np.full(WIDTH, 0.1, np.float32)
    values[SHAPES.index(thing.name)] = values[3 + COLOURS.index(thing.attributes[0])] = 1.0
    values[6 + thing.id] = 1.0
    return values


def tiny_spec(words: Words, **changes: object) -> CaptionerSpec:
    values: dict[str, object] = {"hidden": 32, "attention": 32, "dropout": 0.0, "global_features": 4}
    return CaptionerSpec(words=len(words), **{**values, "features": WIDTH, **changes})  # type: ignore[arg-type]


class Wrong(Shapes):
    """Captions that nobody says: whoever learns the task gets worse and worse at them."""

    def item(self, i: int) -> GraphItem:
        return replace(super().item(i), words=self.words.encode("of of left left of of", self.length))


class Broken(Shapes):
    """One sample's features are not finite."""

    def __init__(self, count: int, bad: Sequence[int]) -> None:
        super().__init__(count)
        self.bad = bad

    def item(self, i: int) -> GraphItem:
        found = super().item(i)
        if i in self.bad:
            found.features[0] = np.nan
        return found
