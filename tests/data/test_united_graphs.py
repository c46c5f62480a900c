import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aaca.data.scenegraph.foreign import foreign_objects
from aaca.data.scenegraph.graph import GraphObject, Relationship, SceneGraph
from aaca.data.scenegraph.nodes import nodes_of
from aaca.data.scenegraph.packing import pack
from aaca.data.scenegraph.samples import GraphSet
from aaca.data.scenegraph.store import PackedGraphs
from aaca.data.scenegraph.united import UnitedGraphs, rationale_of
from aaca.data.shape_grammar import write_shapes
from aaca.models.graph_source import ShapeGraphs
from aaca.runtime.errors import DataError
from tests.graph_toys import FOLDERS, write_tree

COUNT = 2


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> GraphSet:
    folder = tmp_path_factory.mktemp("shapes")
    write_shapes(folder, {"trn": 8, "val": 1, "tst": 1})
    return GraphSet.open(ShapeGraphs().layout(folder), "trn")


def trees(root: Path, kind: str, limit: int) -> GraphSet:
    return GraphSet.open(write_tree(root, kind, images=4, regions=4), "trn", limit)  # type: ignore[arg-type]


def asked_for(source: GraphSet | PackedGraphs, i: int) -> np.ndarray:
    return rationale_of(source.item(i).nodes, source.graph(i))


def checked(own: GraphSet, united: UnitedGraphs) -> tuple[int, int]:
    """Hold every sample against the annotation; (graphs that took objects, graphs that could have taken more)."""
    taken = short = 0
    for i in range(len(own)):
        graph, found = own.graph(i), united.graph(i)
        before, after = own.item(i), united.item(i)
        assert found.objects[: len(graph.objects)] == graph.objects
        assert (found.relationships, found.phrase) == (graph.relationships, graph.phrase)
        names, boxes = {thing.name for thing in graph.objects}, {thing.box for thing in graph.objects}
        others = [
            thing
            for row in range(len(own))
            if own.image_id(row) == own.image_id(i)
            for thing in own.graph(row).objects
            if thing.name not in names and thing.box not in boxes
        ]
        new = found.objects[len(graph.objects) :]
        free, room = len({thing.box for thing in others}), max(0, own.limit - graph.counts().total)
        assert len(new) == min(COUNT, free, room)
        for thing in new:
            assert (thing.name, thing.box) in {(other.name, other.box) for other in others} and thing.attributes == ()
        assert len({thing.id for thing in found.objects}) == len(found.objects)
        # what was annotated keeps its nodes, in their order, with their features; what is new is no rationale
        mask = rationale_of(after.nodes, found)
        asked = set(nodes_of(graph, limit=100).owners)
        assert mask.tolist() == [owner in asked for owner in after.nodes.owners]
        assert [owner for owner in after.nodes.owners if owner in asked] == list(before.nodes.owners)
        assert (~mask).sum() == len(new) and after.nodes.dropped == before.nodes.dropped
        np.testing.assert_array_equal(after.features[mask], before.features)
        np.testing.assert_array_equal(after.words, before.words)
        taken += bool(new)
        short += len(new) < min(COUNT, free)
    return taken, short


def test_graphs_of_shapes_take_the_shapes_they_lack(shapes):
    taken, short = checked(shapes, UnitedGraphs.of(shapes, COUNT, seed=0))
    assert len(shapes) / 2 < taken < len(shapes) and short == 0


@pytest.mark.parametrize("limit", [10, 6])
@pytest.mark.parametrize("kind", FOLDERS)
def test_what_was_annotated_keeps_its_place_in_every_layout(kind, limit, tmp_path):
    own = trees(tmp_path, kind, limit)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    taken, short = checked(own, UnitedGraphs.of(own, COUNT, seed=0))
    assert taken and short
    assert before == {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}


def test_a_packed_united_set_tells_the_same_graphs_and_rationale(shapes, tmp_path):
    united = UnitedGraphs.of(shapes, COUNT, seed=0)
    packed = pack(united, tmp_path / "packed", "float32")
    for i in range(len(united)):
        assert packed.graph(i) == united.graph(i) and packed.phrase(i) == shapes.phrase(i)
        assert packed.item(i).nodes.owners == united.item(i).nodes.owners
        np.testing.assert_array_equal(packed.item(i).features, united.item(i).features)
        np.testing.assert_array_equal(asked_for(packed, i), asked_for(united, i))
    assert packed.references() == shapes.references()


def test_objects_hang_on_seed_and_name_alone(shapes):
    one, again, other = (UnitedGraphs.of(shapes, 1, seed) for seed in (0, 0, 1))
    backwards = {i: again.graph(i) for i in reversed(range(len(shapes)))}
    assert all(one.graph(i) == backwards[i] for i in range(len(shapes)))
    assert any(one.graph(i) != other.graph(i) for i in range(len(shapes)))
    assert pickle.loads(pickle.dumps(one)).graph(3) == one.graph(3)
    chosen = set()
    for i in range(len(shapes)):
        others = [shapes.graph(row) for row in range(len(shapes)) if shapes.image_id(row) == shapes.image_id(i)]
        free = [thing.name for thing in foreign_objects(shapes.graph(i), others)]
        chosen |= {free.index(one.graph(i).objects[-1].name)} if len(free) == 2 else set()
    assert chosen == {0, 1}  # each sample draws for itself


def test_a_relationship_with_the_id_of_a_foreign_object_is_rationale():
    things = [GraphObject(k, name, ("red",), (k, 0, 5, 5)) for k, name in enumerate(["dog", "cat", "kite"])]
    things[2] = replace(things[2], extra={"rationale": False})
    graph = SceneGraph(tuple(things), (Relationship(2, 0, 1, "near"),))
    assert rationale_of(nodes_of(graph), graph).tolist() == [True, True, True, True, False, False, True]


def test_without_foreign_objects_all_is_rationale(shapes):
    none = UnitedGraphs.of(shapes, 0, seed=0)
    for i in range(len(shapes)):
        assert none.graph(i) == shapes.graph(i)
        assert asked_for(none, i).all() and len(asked_for(none, i)) == len(shapes.item(i).nodes)


def test_a_broken_region_is_named(tmp_path):
    own = trees(tmp_path, "ega", 10)
    image_id, region_id = own.samples[1].tolist()
    file = own.layout.regions / f"{image_id}.json"
    file.write_text(file.read_text().replace(f'"{region_id}": {{"objects"', f'"{region_id}": {{"things"'))
    with pytest.raises(DataError, match=rf"{image_id}\.json: region {region_id}: objects"):
        UnitedGraphs.of(own, 1, seed=0).graph(0)
