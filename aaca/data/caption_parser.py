"""Captions of a known grammar as scene graphs: what the metric of graph structure counts."""

from aaca.data.scenegraph.graph import GraphObject, Relationship, SceneGraph
from aaca.world.phrases import Grammar

NOWHERE = (0, 0, 0, 0)
"""The box of an object that is known from words alone."""


def caption_graph(caption: str, grammar: Grammar) -> SceneGraph | None:
    """What a caption says, with boxes `NOWHERE`; None where some of its words fit nowhere in the grammar."""
    reading = grammar.read(caption)
    if reading.leftover:
        return None
    objects = [
        GraphObject(index, thing.name, thing.attributes, NOWHERE) for index, thing in enumerate(reading.said.things)
    ]
    relationships = [
        Relationship(index, subject, object_, word)
        for index, (subject, word, object_) in enumerate(reading.said.relations)
    ]
    return SceneGraph(tuple(objects), tuple(relationships), caption)
