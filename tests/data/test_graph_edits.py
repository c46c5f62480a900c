from itertools import combinations

import numpy as np
import pytest

from aaca.data.scenegraph.edits import (
    add_attribute,
    add_object,
    add_relationship,
    diff,
    drop_node,
    facts_of,
    move_first,
    owners_of,
    reverse_relationship,
    sample_subgraphs,
    strip_attributes,
    subgraph,
)
from aaca.data.scenegraph.graph import Counts, SceneGraph
from aaca.data.scenegraph.nodes import nodes_of
from aaca.runtime.errors import DataError
from tests.data.scene_graph_toys import random_graph, region, rider

SEEDS = range(25)
BOX = (0, 0, 4, 4)


@pytest.mark.parametrize("seed", SEEDS)
def test_owners_are_those_of_the_nodes(seed: int) -> None:
    graph = random_graph(np.random.default_rng(seed))
    assert owners_of(graph) == nodes_of(graph, 1000).owners == tuple(facts_of(graph))


@pytest.mark.parametrize("seed", SEEDS)
def test_dropping_a_node_takes_away_what_hangs_on_it_and_nothing_else(seed: int) -> None:
    graph = random_graph(np.random.default_rng(seed))
    before = graph.to_region()
    ends = {it.id: (it.subject, it.object) for it in graph.relationships}
    for owner in owners_of(graph):
        kind, name, _ = owner
        gone = [
            other
            for other in owners_of(graph)
            if other == owner
            or (kind == "object" and other[0] == "attribute" and other[1] == name)
            or (kind == "object" and other[0] == "relationship" and name in ends[other[1]])
        ]
        left = drop_node(graph, owner)
        assert list(facts_of(left).values()) == [fact for other, fact in facts_of(graph).items() if other not in gone]
        assert left.counts().total == graph.counts().total - len(gone)
        assert [it for it in left.problems() if it.serious and it.kind not in ("no_object", "self_relationship")] == []
        assert left.phrase == graph.phrase and left.extra == graph.extra
    assert graph.to_region() == before


def test_dropping_one_of_two_equal_attributes() -> None:
    graph = region((1, "cup", ("red", "old", "red"), BOX))
    assert drop_node(graph, ("attribute", 1, 2)).objects[0].attributes == ("red", "old")
    assert drop_node(graph, ("attribute", 1, 0)).objects[0].attributes == ("old", "red")


def test_adding() -> None:
    graph = add_object(rider(), "dog", (1, 2, 3, 4), ["black"])
    new = graph.objects[-1]
    assert (new.id, new.name, new.attributes, new.box) == (5, "dog", ("black",), (1, 2, 3, 4))
    graph = add_relationship(add_attribute(graph, 5, "big"), 5, 1, "follow")
    assert graph.objects[-1].attributes == ("black", "big")
    last = graph.relationships[-1]
    assert (last.id, last.subject, last.object, last.name) == (2, 5, 1, "follow")
    for owner in (("relationship", 2, 0), ("object", 5, 0)):
        graph = drop_node(graph, owner)
    assert graph == rider()
    assert add_object(region(), "cup", BOX).objects[0].id == 0


def test_reversing_changes_one_direction_and_twice_is_nothing() -> None:
    turned = reverse_relationship(rider(), 1)
    assert [(it.subject, it.object, it.name) for it in turned.relationships] == [(1, 2, "ride"), (3, 2, "stand in")]
    assert reverse_relationship(turned, 1) == rider()


def test_moving_first_keeps_the_order_of_the_others() -> None:
    assert [thing.id for thing in move_first(rider(), 3).objects] == [3, 1, 2, 4]
    assert move_first(rider(), 1) == rider()
    assert nodes_of(move_first(rider(), 3)).names[0] == "field"


def test_stripping_attributes() -> None:
    bare = strip_attributes(rider())
    assert bare.counts() == Counts(4, 0, 2) and bare.relationships == rider().relationships


@pytest.mark.parametrize("seed", SEEDS)
def test_subgraph_has_what_is_asked_for_and_the_objects_it_hangs_on(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = random_graph(rng)
    ends = {it.id: (it.subject, it.object) for it in graph.relationships}
    asked = [owner for owner in owners_of(graph) if rng.random() < 0.4]
    needed = set(asked)
    for kind, name, _ in asked:
        needed.update(("object", end, 0) for end in (ends[name] if kind == "relationship" else [name]))
    wanted = [fact for owner, fact in facts_of(graph).items() if owner in needed]
    part = subgraph(graph, asked)
    assert list(facts_of(part).values()) == wanted
    assert subgraph(graph, owners_of(graph)) == graph


def test_owners_and_ids_that_are_not_there_are_named() -> None:
    wrong = {
        "no object with id 9": lambda: drop_node(rider(), ("object", 9, 0)),
        "no attribute with id 2 and index 1": lambda: subgraph(rider(), [("attribute", 2, 1)]),
        "no object with id 7": lambda: add_attribute(rider(), 7, "red"),
        "no object with id 6": lambda: add_relationship(rider(), 1, 6, "on"),
        "no relationship with id 5": lambda: reverse_relationship(rider(), 5),
        "no object with id 0": lambda: move_first(rider(), 0),
        "no object with id 8": lambda: sample_subgraphs(region((1, "a", (), BOX), joins=((1, 8, "on"),)), 1, 0),
    }
    for message, call in wrong.items():
        with pytest.raises(DataError, match=message):
            call()


def connected_parts(graph: SceneGraph) -> set[SceneGraph]:
    """Every connected part of a small graph, by trying every set of nodes."""
    owners = owners_of(graph)
    parts = set()
    for size in range(1, len(owners) + 1):
        for chosen in combinations(owners, size):
            part = subgraph(graph, chosen)
            if len(part.components()) == 1:
                parts.add(part)
    return parts


def test_samples_are_connected_distinct_and_in_the_end_all_there_are() -> None:
    graph = region(
        *((1, "man", ("young",), BOX), (2, "horse", (), BOX), (3, "field", ("green",), BOX)),
        joins=((1, 2, "ride"), (2, 3, "in"), (2, 1, "carry")),
    )
    every = connected_parts(graph)  # 5 of one object, 8 of two, 12 of three
    found = sample_subgraphs(graph, len(every), seed=3)
    assert len(every) == 25 and set(found) == every
    again = sample_subgraphs(graph, len(every) + 5, seed=3)
    assert again[: len(every)] == found and again[len(every) :] == found[:5]


@pytest.mark.parametrize("seed", SEEDS)
def test_samples_of_random_graphs(seed: int) -> None:
    graph = add_object(random_graph(np.random.default_rng(seed)), "cup", BOX, ["a", "b", "c"])
    samples = sample_subgraphs(graph, 5, seed)
    assert len(samples) == len(set(samples)) == 5  # the cup alone has 8
    for part in samples:
        assert len(part.components()) == 1
        assert set(facts_of(part).values()) <= set(facts_of(graph).values())
        assert part == subgraph(part, owners_of(part))
    assert sample_subgraphs(graph, 5, seed) == samples
    assert sample_subgraphs(graph, 3, seed) == samples[:3]


def test_samples_differ_by_seed_and_repeat_where_there_is_but_one() -> None:
    assert sample_subgraphs(rider(), 5, 0) != sample_subgraphs(rider(), 5, 1)
    one = region((1, "cup", (), BOX))
    assert sample_subgraphs(one, 3, 0) == [one] * 3 and sample_subgraphs(one, 0, 0) == []
    with pytest.raises(DataError, match="no object to sample"):
        sample_subgraphs(region(), 1, 0)


def test_diff_by_what_is_said() -> None:
    model = region(
        (7, "Man", ("young", "angry"), BOX),
        (5, "horse", (), BOX),
        (6, "fence", ("brown",), BOX),
        joins=((5, 7, "ride"), (7, 5, "RIDE"), (7, 6, "near")),
    )
    found = diff(rider(), model)
    human, said = facts_of(rider()), facts_of(model)
    assert {human[owner] for owner in found.missing} == {
        *(("man", "tall"), ("horse", "brown"), ("field",), ("bird",), ("bird", "small")),
        ("horse", "stand in", "field"),
    }
    assert {said[owner] for owner in found.irrelevant} == {
        *(("man", "angry"), ("fence",), ("fence", "brown")),
        *(("horse", "ride", "man"), ("man", "near", "fence")),
    }
    assert {said[owner] for owner in found.supported} == {
        ("man",),
        ("man", "young"),
        ("horse",),
        ("man", "ride", "horse"),
    }


@pytest.mark.parametrize("seed", SEEDS)
def test_diff_splits_the_model_and_mirrors(seed: int) -> None:
    rng = np.random.default_rng(seed)
    human, model = random_graph(rng), random_graph(rng)
    there, back = diff(human, model), diff(model, human)
    assert sorted(there.irrelevant + there.supported) == sorted(owners_of(model))
    assert there.missing == back.irrelevant and there.irrelevant == back.missing
    same = diff(human, human)
    assert same.missing == same.irrelevant == () and same.supported == owners_of(human)
