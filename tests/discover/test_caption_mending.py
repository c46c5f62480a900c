"""Graphs mended by the human graph: every fact comes back, things of one name keep apart by their boxes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from aaca.data.scenegraph.edits import drop_node, facts_of, owners_of
from aaca.data.scenegraph.foreign import with_foreign
from aaca.data.scenegraph.graph import SceneGraph
from aaca.data.scenegraph.nodes import nodes_of
from aaca.discover.captions.diagnosis import add_missing, diagnose, drop_irrelevant, united
from tests.data.scene_graph_toys import random_graph, region

MEN = region(
    (3, "man", ("old",), (0, 0, 4, 9)),
    (5, "man", (), (20, 0, 4, 9)),
    (8, "horse", (), (18, 5, 9, 9)),
    joins=((5, 8, "ride"), (3, 8, "see")),
)


def said_by(caption: SceneGraph, given: SceneGraph, human: SceneGraph):
    """A diagnosis where all nodes are used, and the caption reads as a graph."""
    nodes = nodes_of(given, 1000)
    return diagnose("x", given, nodes, torch.full((1, len(nodes)), 2.0), "", lambda _: caption, human)


def relations(graph: SceneGraph) -> set[tuple[object, ...]]:
    box = {thing.id: (thing.name, thing.box) for thing in graph.objects}
    return {(box[it.subject], it.name, box[it.object]) for it in graph.relationships}


@pytest.mark.parametrize("seed", range(40))
def test_all_facts_of_the_human_graph_come_back_and_no_others_whatever_the_caption_says(seed):
    rng = np.random.default_rng(seed)
    human, other, caption = (random_graph(rng) for _ in range(3))
    given = with_foreign(human, [other], 2, rng)
    for _ in range(int(rng.integers(3))):
        if owners := owners_of(given):
            given = drop_node(given, owners[int(rng.integers(len(owners)))])
    for said in (caption, human, SceneGraph((), ())):
        found = said_by(said, given, human)
        mended = add_missing(found, drop_irrelevant(found))
        assert set(facts_of(mended).values()) == set(facts_of(human).values())
        assert set(facts_of(given).values()) | set(facts_of(human).values()) == set(
            facts_of(add_missing(found)).values()
        )


@pytest.mark.parametrize("lost", [3, 5])
def test_a_lost_thing_is_not_taken_for_another_of_its_name(lost):
    given = drop_node(MEN, ("object", lost, 0))
    back = add_missing(said_by(SceneGraph((), ()), given, MEN))
    assert {(thing.name, thing.box, thing.attributes) for thing in back.objects} == {
        (thing.name, thing.box, thing.attributes) for thing in MEN.objects
    }
    assert relations(back) == relations(MEN)


@pytest.mark.parametrize("lost", [("object", 3, 0), ("object", 5, 0), ("attribute", 3, 0), ("attribute", 8, 0)])
def test_what_comes_back_stands_where_it_stood_and_foreign_things_come_last(lost):
    horse = replace(MEN.objects[2], attributes=("brown", "tall"))
    human = replace(MEN, objects=(*MEN.objects[:2], horse))
    other = region((1, "dog", ("wet",), (50, 50, 3, 3)))
    given = with_foreign(drop_node(human, lost), [other], 1, np.random.default_rng(0))
    back = add_missing(said_by(SceneGraph((), ()), given, human))
    told = [(thing.name, thing.attributes, thing.box) for thing in back.objects]
    assert told == [(thing.name, thing.attributes, thing.box) for thing in human.objects] + [
        ("dog", (), (50, 50, 3, 3))
    ]


def test_things_are_the_same_by_box_first_and_by_name_where_no_box_agrees():
    left, right = region((1, "man", (), (0, 0, 4, 9))), region((2, "Man", ("tall",), (1, 0, 4, 9)))
    assert united(left, right).objects[0].attributes == ("tall",) and len(united(left, right).objects) == 1
    second = region((2, "man", ("tall",), (20, 0, 4, 9)))
    assert [thing.attributes for thing in united(MEN, second).objects] == [("old",), ("tall",), ()]
