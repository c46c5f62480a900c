"""Graphs made wrong: what can be lost or be foreign, and what is found of it."""

from typing import Any

import numpy as np
import pytest

from aaca.data.scenegraph.graph import SceneGraph
from aaca.runtime.files import read_json
from experiments.caption_planted import made_wrong, planted_and_found, right_ones
from tests.jobs.caption_runs import SHAPES, ran, shown


def graph_of(*objects: tuple[str, int], joins: tuple[tuple[int, int], ...] = ()) -> SceneGraph:
    """Objects (name, place), and relationships "near" between them."""
    things = [
        {"object_id": k, "name": name, "attributes": [], "x": at, "y": 0, "w": 4, "h": 4}
        for k, (name, at) in enumerate(objects)
    ]
    near = [
        {"relationship_id": k, "subject_id": one, "object_id": two, "name": "near"}
        for k, (one, two) in enumerate(joins)
    ]
    return SceneGraph.from_region({"objects": things, "relationships": near, "phrase": ""}, "made up")


def test_a_graph_loses_an_object_or_gets_a_foreign_one_by_a_coin():
    own, others = graph_of(("man", 0), ("dog", 9), joins=((0, 1),)), [graph_of(("cat", 20), ("dog", 9))]
    found = [made_wrong(own, others, 10, np.random.default_rng(seed)) for seed in range(60)]
    names = {(change, tuple(thing.name for thing in graph.objects)) for graph, change in found}
    assert names == {("lost", ("man",)), ("lost", ("dog",)), ("foreign", ("man", "dog", "cat"))}
    assert 15 < sum(change == "lost" for _, change in found) < 45
    assert all(graph.relationships == () for graph, change in found if change == "lost")


@pytest.mark.parametrize(
    ("own", "others", "limit", "expected"),
    [
        (graph_of(("man", 0)), [graph_of(("cat", 20))], 10, "foreign"),  # an only object is not lost
        (graph_of(("man", 0), ("dog", 9)), [graph_of(("dog", 3))], 10, "lost"),  # nothing foreign in the image
        (graph_of(("man", 0), ("dog", 9)), [graph_of(("cat", 3))], 2, "lost"),  # no room
        (graph_of(("man", 0)), [], 10, "none"),
        (graph_of(("man", 0), ("Man", 9)), [graph_of(("cat", 20))], 10, "foreign"),  # the other man says as much
        (graph_of(("man", 0), ("man", 9)), [], 10, "none"),
        (graph_of(("man", 0), ("man", 9), ("cat", 20)), [], 2, "none"),  # the cat is not shown
    ],
)
def test_what_cannot_be_is_the_other(own, others, limit, expected):
    for seed in range(8):
        graph, change = made_wrong(own, others, limit, np.random.default_rng(seed))
        assert change == expected and (graph == own) == (expected == "none")


def test_an_object_is_lost_only_where_what_is_shown_becomes_less():
    own = graph_of(("man", 0), ("man", 9), ("dog", 20), joins=((1, 2),))
    found = [made_wrong(own, [], 4, np.random.default_rng(seed)) for seed in range(40)]
    names = {tuple((thing.id, thing.name) for thing in graph.objects) for graph, _ in found}
    assert names == {((0, "man"), (2, "dog")), ((0, "man"), (1, "man"))}  # with the second man goes what he is near
    assert right_ones([One(human=own)] * 40, [One(graph=graph) for graph, _ in found]) == [False] * 40  # type: ignore
    found = [made_wrong(own, [], 3, np.random.default_rng(seed)) for seed in range(40)]
    names = {tuple(thing.id for thing in graph.objects) for graph, _ in found}
    assert names == {(0, 1)}  # no relationship is shown: only the dog makes a difference


class One:
    def __init__(self, **fields: Any) -> None:
        vars(self).update(fields)


def test_numbers_of_planted_facts_that_are_found():
    human = graph_of(("man", 0), ("dog", 9), joins=((0, 1),))
    cases: Any = [One(human=human, given=graph_of(("man", 0))), One(human=human, given=graph_of(*HUMAN_AND_CAT))]
    cat, dog, near = ("cat",), ("dog",), ("man", "near", "dog")
    said = ("man", "red")  # by the caption alone
    informed: Any = [
        One(graph=cases[0].given, irrelevant=(said,), missing=(near,)),  # the dog was guessed
        One(graph=cases[1].given, irrelevant=(cat,), missing=(near, ("man",))),
    ]
    alone: Any = [
        One(graph=cases[0].given, irrelevant=(("man",),)),
        One(graph=cases[1].given, irrelevant=(cat, dog, said)),
    ]
    found = planted_and_found(cases, informed, alone)
    assert found == {
        "irrelevant, with people": {"of": 4, "planted": 1, "found": 1, "precision": 1, "recall": 1},
        "irrelevant, without people": {"of": 4, "planted": 1, "found": 3, "precision": 1 / 3, "recall": 1},
        "missing, with people": {"of": 6, "planted": 3, "found": 3, "precision": 2 / 3, "recall": 2 / 3},
    }
    assert right_ones(cases, informed) == [False, False]
    assert right_ones([One(human=human)], [One(graph=human)]) == [True]  # type: ignore[list-item]


HUMAN_AND_CAT = (("man", 0), ("dog", 9), ("cat", 20))


def test_images_with_one_graph_have_nothing_foreign_and_the_run_says_how_many_were_made_wrong(
    run, tmp_path, monkeypatch
):
    dashboards = shown(monkeypatch)
    arguments = ["graphs.regions=1", "training.epochs=1", "regraph.samples=9", "regraph.wrong=0.67"]
    folder, said = ran(run, tmp_path, "regraph", *SHAPES, *arguments)
    written = read_json(folder / "regraph.json")
    lost = written["changes"]["lost"]
    assert written["asked"] == 6 and written["changes"] == {"lost": lost, "foreign": 0, "none": 9 - lost}
    assert 0 < lost < 6  # some graphs have one object
    assert f"graphs made wrong: {lost} of 6 asked for ({lost} lost an object, 0 got one)" in said
    assert "intervals over images)" in " ".join(said.split())  # shapes share no cut-outs
    numbers, tables, _ = dashboards["caption regraph"]
    rows = tables["regraph"].set_index("graphs")["CIDEr-D"]
    assert {name: numbers[f"{name} CIDEr-D"] for name in rows.index} == rows.to_dict() and "none Δ" not in numbers
    assert (
        tables["planted facts"]["planted"].tolist()[:2] == [0, 0] and numbers["both Δ"] == rows["both"] - rows["none"]
    )
