"""What the nodes of a graph say, and which words of a caption say it."""

from collections.abc import Sequence

from aaca.data.scenegraph.edits import Fact
from aaca.data.scenegraph.nodes import OBJECT, Nodes

KINDS = ("object", "attribute", "relationship")
"""By the number of parts of a fact, less one; by the type of a node."""
OF_SUBJECT, OF_TARGET, OF_OBJECT = 3, 4, 1
"""Kinds of edges (`EDGE_KINDS`) that lead from a relationship to its two ends, from an attribute to its object."""


def plain(name: str) -> str:
    """A name as facts have it: lower case, single spaces."""
    return " ".join(name.lower().split())


def spans(words: Sequence[str], name: str) -> list[range]:
    """Where all words of a name stand side by side in a caption; nowhere for a name without words."""
    span = name.lower().split()
    starts = range(len(words) - len(span) + 1) if span else ()
    return [range(at, at + len(span)) for at in starts if list(words[at : at + len(span)]) == span]


def mentions(words: Sequence[str], names: Sequence[str]) -> list[frozenset[int]]:
    """The nodes that each of T words names, by exact spelling; nodes of one name are named together.

    Where names overlap, the longer one counts: the word of `left of` does not name a node `left`.
    """
    found: list[set[int]] = [set() for _ in words]
    length = [0] * len(words)
    for node in sorted(range(len(names)), key=lambda node: -len(names[node].split())):
        for span in spans(words, names[node]):
            if all(length[at] in (0, len(span)) for at in span):
                for at in span:
                    found[at].add(node)
                    length[at] = len(span)
    return [frozenset(own) for own in found]


def facts_of_nodes(nodes: Nodes) -> list[Fact]:
    """What each node says, lower-case: (object), (object, attribute) or (subject, relation, object).

    Its length is its kind, see `kind_of`.
    """
    names = [plain(name) for name in nodes.names]
    ends = {(kind, source): target for kind, target, source in nodes.edges.tolist()}
    found: list[Fact] = []
    for node, name in enumerate(names):
        if nodes.types[node] == OBJECT:
            found.append((name,))
        elif (OF_OBJECT, node) in ends:
            found.append((names[ends[OF_OBJECT, node]], name))
        else:
            found.append((names[ends[OF_SUBJECT, node]], name, names[ends[OF_TARGET, node]]))
    return found


def kind_of(fact: Fact) -> str:
    """object, attribute or relationship."""
    return KINDS[len(fact) - 1]


def word_of(fact: Fact) -> str:
    """The name of the node itself: the object's, the attribute's, the relation's."""
    return fact[0] if len(fact) == 1 else fact[1]
