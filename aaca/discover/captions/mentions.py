"""What the nodes of a graph say."""

from aaca.data.scenegraph.edits import Fact
from aaca.data.scenegraph.nodes import OBJECT, Nodes

KINDS = ("object", "attribute", "relationship")
"""By the number of parts of a fact, less one; by the type of a node."""
OF_SUBJECT, OF_TARGET, OF_OBJECT = 3, 4, 1
"""Kinds of edges (`EDGE_KINDS`) that lead from a relationship to its two ends, from an attribute to its object."""


def plain(name: str) -> str:
    """A name as facts have it: lower case, single spaces."""
    return " ".join(name.lower().split())


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
