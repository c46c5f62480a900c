import numpy as np
import pytest

from aaca.data.scenegraph.graph import Counts, SceneGraph
from aaca.data.scenegraph.nodes import Nodes, nodes_of
from aaca.runtime.errors import ConfigError, DataError
from tests.data.scene_graph_toys import random_graph, region, rider

SEEDS = range(30)
POLICIES = ("objects_first", "reserve_relations")


def test_the_order_of_nodes_and_all_that_goes_with_it() -> None:
    nodes = nodes_of(rider())
    assert nodes.names == (
        *("man", "young", "tall", "Horse", "brown", "field", "bird", "small"),
        *("ride", "stand in"),
    )
    assert nodes.types.tolist() == [0, 1, 1, 0, 1, 0, 0, 1, 2, 2]
    assert nodes.order.tolist() == [0, 1, 2, 0, 1, 0, 0, 1, 0, 0]
    assert nodes.owners[:3] == (("object", 1, 0), ("attribute", 1, 0), ("attribute", 1, 1))
    assert nodes.owners[-1] == ("relationship", 1, 0)
    assert nodes.boxes[[0, 1, 2]].tolist() == [[10, 5, 19, 24]] * 3
    assert nodes.boxes[8].tolist() == [5, 5, 34, 34]  # union of the man's and the horse's
    assert nodes.boxes[9].tolist() == [0, 0, 63, 47]
    assert nodes.dropped == Counts() and len(nodes) == 10
    kinds = {"types": np.int64, "order": np.int64, "boxes": np.int32, "edges": np.int64, "flow": np.float32}
    assert {name: getattr(nodes, name).dtype for name in kinds} == kinds


def test_exclusive_boxes_end_a_pixel_later() -> None:
    inclusive, exclusive = nodes_of(rider()), nodes_of(rider(), box_mode="exclusive")
    assert (exclusive.boxes - inclusive.boxes == [0, 0, 1, 1]).all()


def slow_edges(graph: SceneGraph, nodes: Nodes) -> set[tuple[int, int, int]]:
    """From owners alone: every pair of nodes is asked how it is joined."""
    ends = {it.id: (it.subject, it.object) for it in graph.relationships}
    found = set()
    for i, (one, own, _) in enumerate(nodes.owners):
        for j, (other, name, _) in enumerate(nodes.owners):
            if (one, other) == ("object", "attribute") and own == name:
                found |= {(0, j, i), (1, i, j)}
            if (one, other) == ("object", "relationship"):
                if ends[name][0] == own:
                    found |= {(2, j, i), (3, i, j)}
                if ends[name][1] == own:
                    found |= {(4, i, j), (5, j, i)}
    return found


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("policy", POLICIES)
def test_edges_and_flow_against_brute_force(seed: int, policy: str) -> None:
    graph = random_graph(np.random.default_rng(seed))
    nodes = nodes_of(graph, 12, policy)  # type: ignore[arg-type]
    edges = slow_edges(graph, nodes)
    assert set(map(tuple, nodes.edges.tolist())) == edges and len(nodes.edges) == len(edges)
    n = len(nodes)
    goes = [[any((kind, i, j) in edges for kind in (0, 1, 2, 4)) for j in range(n)] for i in range(n)]
    flow = np.zeros((n, n))
    for j in range(n):
        ways = [i for i in range(n) if goes[i][j]] or [j]
        for i in ways:
            flow[i, j] = 1 / len(ways)
    np.testing.assert_allclose(nodes.flow, flow, atol=1e-7)
    np.testing.assert_allclose(nodes.flow.sum(0), np.ones(n), atol=1e-6)


def test_flow_goes_on_from_a_relationship_and_never_back() -> None:
    graph = region((1, "cup", (), (0, 0, 2, 2)), (2, "box", (), (4, 4, 2, 2)), joins=((1, 2, "on"),))
    # columns: cup tells "on", the box has nowhere to go and stays, "on" tells the box
    assert nodes_of(graph).flow.tolist() == [[0, 0, 0], [0, 1, 1], [1, 0, 0]]
    alone = region((1, "cup", (), (0, 0, 2, 2)), joins=((1, 1, "on"),))
    assert nodes_of(alone).flow.tolist() == [[0, 1], [1, 0]]


def union_of(graph: SceneGraph, name: int) -> list[int]:
    """Smallest rectangle around all pixels of the two boxes."""
    it = next(it for it in graph.relationships if it.id == name)
    pixels = np.zeros((100, 100), dtype=bool)
    for thing in graph.objects:
        if thing.id in (it.subject, it.object):
            x, y, w, h = thing.box
            pixels[y : y + h, x : x + w] = True
    ys, xs = np.nonzero(pixels)
    return [xs.min(), ys.min(), xs.max(), ys.max()]


@pytest.mark.parametrize("seed", SEEDS)
def test_boxes_against_pixels(seed: int) -> None:
    graph = random_graph(np.random.default_rng(seed))
    boxes = {thing.id: thing.box for thing in graph.objects}
    nodes = nodes_of(graph, 100)
    for (kind, name, _), box in zip(nodes.owners, nodes.boxes.tolist(), strict=True):
        if kind == "relationship":
            assert box == union_of(graph, name)
        else:
            x, y, w, h = boxes[name]
            assert (box[:2], box[2] - x + 1, box[3] - y + 1) == ([x, y], w, h)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("policy", POLICIES)
def test_what_is_kept_and_what_is_counted_as_dropped(seed: int, policy: str) -> None:
    graph = random_graph(np.random.default_rng(seed), objects=9, related=9)
    whole = nodes_of(graph, 1000)
    assert whole.dropped == Counts() and len(whole) == graph.counts().total
    for limit in (1, 3, 7, 10):
        nodes = nodes_of(graph, limit, policy)  # type: ignore[arg-type]
        assert len(nodes) <= limit
        rank = {owner: row for row, owner in enumerate(whole.owners)}
        rows = [rank[owner] for owner in nodes.owners]
        assert rows == sorted(rows)
        kept = Counts(*(int((nodes.types == kind).sum()) for kind in range(3)))
        counts = graph.counts()
        assert nodes.dropped == Counts(
            counts.objects - kept.objects,
            counts.attributes - kept.attributes,
            counts.relationships - kept.relationships,
        )
        for row, fields in zip(rows, zip(nodes.types, nodes.order, nodes.names, strict=True), strict=True):
            assert fields == (whole.types[row], whole.order[row], whole.names[row])


@pytest.mark.parametrize("seed", SEEDS)
def test_objects_first_is_the_beginning_of_the_whole(seed: int) -> None:
    graph = random_graph(np.random.default_rng(seed), objects=9, related=9)
    whole = nodes_of(graph, 1000)
    for limit in (1, 4, 10):
        nodes = nodes_of(graph, limit)
        assert nodes.owners == whole.owners[:limit]


@pytest.mark.parametrize("limit", [3, 8, 10])
def test_objects_first_drops_every_relationship_where_objects_and_attributes_fill_the_limit(limit: int) -> None:
    things = [(k, f"thing{k}", ("red",), (k, k, 3, 3)) for k in range(5)]  # 10 nodes of objects and attributes
    graph = region(*things, joins=tuple((k, k + 1, "on") for k in range(4)))
    nodes = nodes_of(graph, limit)
    assert (nodes.types < 2).all() and nodes.dropped.relationships == 4
    assert (nodes_of(graph, 12).types == 2).sum() == 2
    reserved = nodes_of(graph, limit, "reserve_relations")
    assert (reserved.types == 2).sum() == min(4, (limit - 1) // 2)


def slow_reserve(graph: SceneGraph, limit: int) -> set[tuple[str, int, int]]:
    """The definition as it is written: try ever longer beginnings of the list."""
    for size in range(len(graph.objects), 0, -1):
        names = [thing.id for thing in graph.objects[:size]]
        among = [it.id for it in graph.relationships if it.subject in names and it.object in names]
        if size + len(among) <= limit or size == 1:
            break
    else:
        return set()
    sure = [("object", name, 0) for name in names] + [("relationship", name, 0) for name in among][: limit - size]
    attributes = [("attribute", thing.id, k) for thing in graph.objects[:size] for k, _ in enumerate(thing.attributes)]
    return set(sure) | set(attributes[: limit - len(sure)])


@pytest.mark.parametrize("seed", SEEDS)
def test_reserve_relations_against_its_definition(seed: int) -> None:
    graph = random_graph(np.random.default_rng(seed), objects=8, related=12)
    for limit in (1, 2, 5, 10, 15):
        nodes = nodes_of(graph, limit, "reserve_relations")
        assert set(nodes.owners) == slow_reserve(graph, limit)


def test_reserve_relations_cuts_what_even_one_object_has_too_much_of() -> None:
    graph = region((1, "cup", ("red",), (0, 0, 2, 2)), (2, "box", (), (0, 0, 2, 2)), joins=((1, 1, "on"),) * 5)
    nodes = nodes_of(graph, 3, "reserve_relations")
    assert nodes.names == ("cup", "on", "on") and nodes.dropped == Counts(1, 1, 3)


@pytest.mark.parametrize("policy", POLICIES)
def test_an_empty_graph_gives_empty_arrays(policy: str) -> None:
    nodes = nodes_of(region(), policy=policy)  # type: ignore[arg-type]
    shapes = [getattr(nodes, name).shape for name in ("types", "order", "boxes", "edges", "flow")]
    assert shapes == [(0,), (0,), (0, 4), (0, 3), (0, 0)]
    assert nodes.names == nodes.owners == () and nodes.dropped == Counts()


def test_relationships_without_their_objects_and_shared_ids_are_refused() -> None:
    with pytest.raises(DataError, match=r"relationship 0 \(1 to 8\) joins an unknown object"):
        nodes_of(region((1, "cup", (), (0, 0, 2, 2)), joins=((1, 8, "on"),)))
    with pytest.raises(DataError, match="two objects share an id"):
        nodes_of(region((1, "cup", (), (0, 0, 2, 2)), (1, "box", (), (0, 0, 2, 2))))


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ConfigError, match=r"policy: 'objects'; nearest valid: objects_first"):
        nodes_of(rider(), policy="objects")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="box_mode: 'includ'; nearest valid: inclusive"):
        nodes_of(rider(), box_mode="includ")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="limit: 0"):
        nodes_of(rider(), 0)
