"""Does a caption say what its graph holds: structure error G, node recall, direction of relationships.

G is the measure of ASG2Caption (Chen et al., CVPR 2020), for which no code was released; definitions are given here.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from aaca.data.scenegraph.graph import GraphObject, Relationship, SceneGraph
from aaca.world.phrases import Grammar

Parse = Callable[[str], SceneGraph]
"""What a caption says as a graph; without objects where nothing can be made out. Boxes do not matter."""

ERRORS = ("g_objects", "g_attributes", "g_relationships", "g_sum", "g_total")


def grammar_parser(grammar: Grammar) -> Parse:
    """The parser of a grammar of captions: exact for its captions, words that fit nowhere are passed over."""

    def parse(caption: str) -> SceneGraph:
        said = grammar.read(caption).said
        things = (GraphObject(i, thing.name, thing.attributes, (0, 0, 1, 1)) for i, thing in enumerate(said.things))
        related = (Relationship(k, one, two, name) for k, (one, name, two) in enumerate(said.relations))
        return SceneGraph(tuple(things), tuple(related), caption)

    return parse


def structure_error(said: SceneGraph, graph: SceneGraph) -> np.ndarray:
    """`[5]` differences in number between a parsed caption and a graph, in the order of `ERRORS`; 0 is best.

    |Δ| of objects, of (object, attribute) pairs and of (subject, relationship, object) triples, each occurrence counted
    (the paper's Go, Ga, Gr once averaged); `g_sum` adds the three, `g_total` is |Δ| of all nodes, where a missing
    attribute and a superfluous object cancel. To hold a caption against its reference instead of its graph, give the
    parsed reference as `graph`.
    """
    own, asked = said.counts(), graph.counts()
    parts = np.array(
        [
            own.objects - asked.objects,
            own.attributes - asked.attributes,
            own.relationships - asked.relationships,
        ],
        dtype=np.float64,
    )
    return np.concatenate([np.abs(parts), [np.abs(parts).sum(), abs(parts.sum())]])


def names_of(graph: SceneGraph) -> list[str]:
    """Names of the graph's nodes, once a node: objects with their attributes, then relationships.

    An attribute without a word (an abstract node) is left out.
    """
    things = [name for thing in graph.objects for name in (thing.name, *thing.attributes)]
    return [name for name in (*things, *(it.name for it in graph.relationships)) if name.split()]


def claim(caption: str, names: Iterable[str]) -> tuple[int, list[str]]:
    """How many of the names the caption holds, and the words that no name took, in order.

    A name of several words must stand in one piece. A word serves one name only: two nodes called `circle` need the
    word twice. Longer names choose first, so that `left of` is not spoilt by `left`.
    """
    words = caption.split()
    taken = [False] * len(words)
    found = 0
    for span in sorted((name.split() for name in names), key=lambda span: (-len(span), span)):
        start = _free(words, taken, span)
        if start is not None:
            taken[start : start + len(span)] = [True] * len(span)
            found += 1
    return found, [word for word, used in zip(words, taken, strict=True) if not used]


def node_recall(caption: str, graph: SceneGraph) -> tuple[int, int]:
    """Nodes of the graph that the caption names, and nodes in all; their ratio over a set is its node recall.

    Words must agree exactly: where graphs hold lemmas ("fly") and captions do not ("flying") this is a lower bound.
    """
    names = names_of(graph)
    return claim(caption, names)[0], len(names)


def relation_directions(said: SceneGraph, graph: SceneGraph) -> tuple[int, int]:
    """Relationships that the caption tells the right way round, and relationships it tells in either direction.

    A relationship is judged where the parsed caption has one of its name between objects of the same two names. Not
    judged: objects of one name (no direction can be seen), a pair that the graph relates both ways but the caption only
    once, a caption that says the same by the converse word ("right of" for "left of").
    """
    told, asked = _triples(said), _triples(graph)
    right = judged = 0
    for subject, name, thing in asked:
        forward, backward = (subject, name, thing), (thing, name, subject)
        if subject != thing and (forward in told or (backward in told and backward not in asked)):
            judged += 1
            right += forward in told
    return right, judged


def _triples(graph: SceneGraph) -> list[tuple[str, str, str]]:
    names = {thing.id: thing.name for thing in graph.objects}
    known = (it for it in graph.relationships if it.subject in names and it.object in names)
    return [(names[it.subject], it.name, names[it.object]) for it in known]


def _free(words: Sequence[str], taken: Sequence[bool], span: Sequence[str]) -> int | None:
    """The first place where the span stands and no word of it is taken; none for a name without a word."""
    places = range(len(words) - len(span) + 1) if span else range(0)
    return next((i for i in places if words[i : i + len(span)] == span and not any(taken[i : i + len(span)])), None)
