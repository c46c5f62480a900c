import copy
import json
import pickle

import numpy as np
import pytest

from aaca.data.scenegraph.graph import Counts, SceneGraph
from aaca.runtime.errors import DataError
from tests.data.scene_graph_toys import random_region, region, rider

BOX = (1, 1, 5, 5)


def kinds(graph: SceneGraph, size: tuple[int, int] | None = None) -> list[str]:
    return sorted(problem.kind for problem in graph.problems(size))


@pytest.mark.parametrize("seed", range(40))
def test_records_come_back_as_they_were(seed: int) -> None:
    record = random_region(np.random.default_rng(seed))
    before = copy.deepcopy(record)
    graph = SceneGraph.from_region(record, "file: region 1")
    assert graph.to_region() == before == record
    assert SceneGraph.from_region(json.loads(json.dumps(graph.to_region())), "again") == graph
    assert pickle.loads(pickle.dumps(graph)) == graph and hash(graph) == hash(copy.deepcopy(graph))
    assert graph.counts() == Counts(
        len(record["objects"]),
        sum(len(thing["attributes"]) for thing in record["objects"]),
        len(record["relationships"]),
    )


def test_what_may_be_missing_reads_as_empty() -> None:
    thing = {"object_id": 3, "name": "cup", "x": 1, "y": 2.0, "w": 3, "h": 4}
    graph = SceneGraph.from_region({"objects": [thing]}, "drawn")
    assert graph.objects[0].attributes == () and graph.relationships == () and graph.phrase == ""
    assert graph.objects[0].box == (1, 2, 3, 4)
    assert graph.to_region() == {"objects": [{**thing, "attributes": []}], "relationships": [], "phrase": ""}


def put(record: dict, path: tuple, value: object) -> None:
    for step in path[:-1]:
        record = record[step]
    record[path[-1]] = value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("objects",), None, "a.json: region 7: objects: missing; expected a list"),
        (("objects",), {}, "region 7: objects: {}; expected a list"),
        (("objects", 1), "cup", r"objects\[1\]: 'cup'; expected a record"),
        (("objects", 1, "object_id"), "9", r"objects\[1\].object_id: '9'; expected a whole number"),
        (("objects", 0, "name"), None, r"objects\[0\].name: missing; expected text"),
        (("objects", 0, "attributes"), "red", r"objects\[0\].attributes: 'red'; expected a list"),
        (("objects", 0, "attributes", 1), 5, r"objects\[0\].attributes\[1\]: 5; expected text"),
        (("objects", 2, "x"), 1.5, r"objects\[2\].x: 1.5; expected a whole number"),
        (("objects", 2, "y"), float("nan"), r"objects\[2\].y: nan"),
        (("objects", 2, "y"), float("inf"), r"objects\[2\].y: inf"),
        (("objects", 2, "w"), 2**31, rf"objects\[2\].w: {2**31}; expected a whole number within"),
        (("objects", 2, "h"), True, r"objects\[2\].h: True"),
        (("relationships",), "on", "region 7: relationships: 'on'; expected a list"),
        (("relationships", 0, "subject_id"), None, r"relationships\[0\].subject_id: missing"),
        (("relationships", 1, "name"), 3, r"relationships\[1\].name: 3; expected text"),
        (("phrase",), 3, "region 7: phrase: 3; expected text"),
    ],
)
def test_errors_name_file_region_and_field(path: tuple, value: object, message: str) -> None:
    record = rider().to_region()
    put(record, path, value)
    with pytest.raises(DataError, match=message) as caught:
        SceneGraph.from_region(record, "a.json: region 7")
    assert str(caught.value).startswith("a.json: region 7: ") and "\n" not in str(caught.value)


def test_a_record_that_is_none() -> None:
    with pytest.raises(DataError, match=r"a\.json: region 7: missing; expected a record"):
        SceneGraph.from_region(None, "a.json: region 7")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        (region((1, "cup", ("red",), BOX)), []),
        (region(), ["no_object"]),
        (region((1, "cup", (), BOX), (1, "cup", (), BOX)), ["duplicate_id"]),
        (region((1, "cup", (), BOX), joins=((1, 8, "on"),)), ["unknown_object"]),
        (region((1, "cup", (), BOX), joins=((7, 8, "on"),)), ["unknown_object", "unknown_object"]),
        (region((1, "cup", (), BOX), joins=((1, 1, "on"),)), ["self_relationship"]),
        (region((1, "cup", (), (1, 1, 0, 5)), (2, "cup", (), BOX), joins=((1, 2, "on"),)), ["empty_box"]),
        (region((1, "cup", (), (1, 1, 5, -2))), ["empty_box"]),
        (region((1, "cup", (), (60, 1, 5, 5))), ["box_outside"]),
        (region((1, "cup", (), (59, 43, 5, 5))), []),
        (region((1, "cup", (), (1, 44, 5, 5))), ["box_outside"]),
        (region((1, "cup", (), (-1, 0, 5, 5))), ["box_outside"]),
        (region((1, "cup", (), (0, 0, 64, 48))), ["whole_image"]),
        (region((1, "cup", (), (0, 0, 65, 48))), ["box_outside"]),
        (region((1, " ", ("red",), BOX)), ["empty_name"]),
        (region((1, "cup", ("", "red"), BOX)), ["empty_name"]),
        (region((1, "cup", (), BOX), (2, "cup", (), BOX), joins=((1, 2, " "),)), ["empty_name"]),
        (region((1, "cup", ("red", " Cup"), BOX)), ["junk_attribute"]),
        (region((1, "cup", (), BOX), (2, "dog", (), BOX)), ["disconnected"]),
        (rider(), ["disconnected", "whole_image"]),
    ],
)
def test_problems_by_kind(graph: SceneGraph, expected: list[str]) -> None:
    assert kinds(graph, (64, 48)) == expected
    noted = {"whole_image", "junk_attribute", "disconnected"}
    for problem in graph.problems((64, 48)):
        assert problem.serious == (problem.kind not in noted)
        assert str(problem) == problem.text and problem.text


def test_problems_say_what_and_where() -> None:
    graph = region((3, "cup", ("red", "cup"), (60, 1, 5, 5)), joins=((3, 9, "on"),))
    texts = [str(problem) for problem in graph.problems((64, 48))]
    assert texts == [
        "relationship 0 ('on'): its object 9 is no object",
        "object 3: attribute 1 is its own name 'cup'",
        "object 3 ('cup'): box x=60 y=1 w=5 h=5 reaches outside the image of 64×48",
    ]


def test_without_the_images_size_boxes_are_not_held_against_it() -> None:
    assert kinds(rider()) == ["disconnected"]


def test_duplicate_relationship_ids() -> None:
    record = rider().to_region()
    record["relationships"][1]["relationship_id"] = 0
    texts = [str(problem) for problem in SceneGraph.from_region(record, "x").problems() if problem.serious]
    assert texts == ["relationship id 0 occurs 2 times"]


@pytest.mark.parametrize("seed", range(20))
def test_components_against_a_closure_of_the_adjacency(seed: int) -> None:
    record = random_region(np.random.default_rng(seed), objects=8, related=5)
    ids = [thing["object_id"] for thing in record["objects"]]
    reach = np.eye(len(ids), dtype=int)
    for it in record["relationships"]:
        a, b = ids.index(it["subject_id"]), ids.index(it["object_id"])
        reach[a, b] = reach[b, a] = 1
    for _ in ids:
        reach = (reach @ reach > 0).astype(int)
    wanted = {frozenset(np.array(ids)[row > 0].tolist()) for row in reach}
    found = SceneGraph.from_region(record, "x").components()
    assert set(found) == wanted and len(found) == len(wanted)
