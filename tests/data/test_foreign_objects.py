import numpy as np

from aaca.data.scenegraph.edits import facts_of
from aaca.data.scenegraph.foreign import foreign_objects, with_foreign
from aaca.data.scenegraph.nodes import nodes_of
from tests.data.scene_graph_toys import region, rider

DOG, TREE, MAN, CUP = (20, 20, 8, 8), (40, 0, 9, 30), (10, 5, 10, 20), (2, 2, 3, 3)
OTHERS = [
    region((7, "person", ("old",), MAN), (8, "dog", ("black", "wet"), DOG), joins=((7, 8, "walk"),)),
    region((0, "big  tree", (), TREE), (1, "puppy", (), DOG), (2, "horse", (), (30, 30, 4, 4)), (3, "dog", (), CUP)),
]


def test_what_this_graph_lacks_comes_once_and_bare() -> None:
    # the person is the man by box, the puppy the dog; another horse is a horse already; a second dog is another dog
    found = foreign_objects(rider(), OTHERS)
    assert [(thing.name, thing.box) for thing in found] == [("dog", DOG), ("big  tree", TREE), ("dog", CUP)]
    assert all(thing.attributes == () and thing.extra == {} for thing in found)
    first, second = OTHERS
    assert [thing.name for thing in foreign_objects(rider(), [second, first])] == ["big  tree", "puppy", "dog"]
    assert [thing.name for thing in foreign_objects(region((1, "BIG tree", (), CUP)), OTHERS)] == [
        "person",
        "dog",
        "horse",
    ]
    assert foreign_objects(rider(), []) == foreign_objects(rider(), [rider()]) == []


def test_foreign_objects_stand_last_unconnected_and_everything_else_stays() -> None:
    own = rider()
    graph = with_foreign(own, OTHERS, 2, np.random.default_rng(0))
    assert graph.objects[:4] == own.objects and graph.relationships == own.relationships
    assert graph.phrase == own.phrase and len(graph.objects) == 6
    assert len({thing.id for thing in graph.objects}) == 6
    assert not set(facts_of(graph).values()) - set(facts_of(own).values()) - {("dog",), ("big tree",)}
    nodes = nodes_of(graph, 20)
    new = [nodes.owners.index(("object", thing.id, 0)) for thing in graph.objects[4:]]
    assert not set(new) & set(nodes.edges[:, 1:].ravel().tolist())


def test_they_are_drawn_at_random_as_many_as_there_are() -> None:
    drawn = {with_foreign(rider(), OTHERS, 1, np.random.default_rng(seed)).objects[-1].box for seed in range(20)}
    assert drawn == {DOG, TREE, CUP}
    assert len(with_foreign(rider(), OTHERS, 9, np.random.default_rng(0)).objects) == 7
    one, two = (with_foreign(rider(), OTHERS, 2, np.random.default_rng(3)) for _ in range(2))
    assert one == two
    assert with_foreign(rider(), [rider()], 3, np.random.default_rng(0)) == rider()
    assert with_foreign(rider(), OTHERS, 0, np.random.default_rng(0)) == rider()
