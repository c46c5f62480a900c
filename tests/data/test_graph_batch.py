import dataclasses
from itertools import chain

import numpy as np
import pytest
import torch

from aaca.data.scenegraph.batch import GraphBatch, GraphItem, GraphLoader, collate
from aaca.data.scenegraph.graph import GraphObject, Relationship, SceneGraph
from aaca.data.scenegraph.nodes import nodes_of
from aaca.data.scenegraph.samples import GraphSet
from aaca.data.scenegraph.vocabulary import BOS, EOS
from aaca.runtime.errors import ConfigError, DataError
from tests.graph_toys import write_tree

F, G = 5, 4


def random_graph(rng: np.random.Generator, objects: int, relations: int) -> SceneGraph:
    looks = [("red", "small", "old")[: rng.integers(0, 4)] for _ in range(objects)]
    things = tuple(GraphObject(10 + k, f"o{k}", looks[k], (k, k, 9, 9)) for k in range(objects))
    ends = rng.integers(0, max(objects, 1), (relations if objects else 0, 2)).tolist()
    return SceneGraph(things, tuple(Relationship(k, 10 + a, 10 + b, f"r{k}") for k, (a, b) in enumerate(ends)), "")


def item_of(graph: SceneGraph, row: int, words: int, limit: int = 30) -> GraphItem:
    rng, nodes = np.random.default_rng(row), nodes_of(graph, limit)
    ids = np.array([BOS, *rng.integers(3, 50, words), EOS])
    features = rng.random((len(nodes.types), F)).astype(np.float32)
    return GraphItem(nodes, rng.random(G).astype(np.float32), features, ids, row)


def some_items() -> list[GraphItem]:
    rng = np.random.default_rng(0)
    sizes = ((3, 4), (1, 0), (0, 0), (4, 9), (2, 1))
    return [item_of(random_graph(rng, *size), row, 2 + row) for row, size in enumerate(sizes)]


def test_shapes_and_types():
    items = some_items()
    batch = collate(items)
    b, n, t = 5, max(len(item.nodes.types) for item in items), 8
    expected = {
        "globals": ((b, G), torch.float32),
        "features": ((b, n, F), torch.float32),
        "mask": ((b, n), torch.bool),
        "types": ((b, n), torch.int64),
        "order": ((b, n), torch.int64),
        "adjacency": ((b, 6, n, n), torch.float32),
        "flow": ((b, n, n), torch.float32),
        "words": ((b, t), torch.int64),
        "word_mask": ((b, t - 1), torch.bool),
        "rows": ((b,), torch.int64),
    }
    tensors = {name: value for name, value in vars(batch).items() if name != "names"}
    assert {name: (tuple(it.shape), it.dtype) for name, it in tensors.items()} == expected
    assert batch.names == [item.nodes.names for item in items]


def test_adjacency_is_one_over_the_number_of_sources():
    items = some_items()
    batch = collate(items)
    n = batch.mask.shape[1]
    for at, item in enumerate(items):
        edges = item.nodes.edges.tolist()
        for kind in range(6):
            for target in range(n):
                sources = [edge[2] for edge in edges if edge[0] == kind and edge[1] == target]
                wanted = [sources.count(source) / len(sources) if sources else 0.0 for source in range(n)]
                np.testing.assert_allclose(batch.adjacency[at, kind, target].numpy(), wanted, rtol=1e-6)
    assert set(batch.adjacency.sum(-1).round(decimals=5).unique().tolist()) == {0.0, 1.0}


def test_what_relationships_do_to_two_objects():
    things = tuple(GraphObject(k, f"o{k}", (), (0, 0, 9, 9)) for k in (1, 2, 3))
    graph = SceneGraph(things, (Relationship(1, 1, 2, "on"), Relationship(2, 1, 3, "by")))
    adjacency = collate([item_of(graph, 0, 3)]).adjacency[0]
    assert adjacency[2].nonzero().tolist() == [[3, 0], [4, 0]]  # the subject into both relationships
    assert adjacency[3, 0].tolist() == [0, 0, 0, 0.5, 0.5]  # both relationships into the subject
    assert adjacency[4].nonzero().tolist() == [[1, 3], [2, 4]]
    assert adjacency[5].nonzero().tolist() == [[3, 1], [4, 2]]
    assert adjacency[:2].sum() == 0


def test_flow_keeps_its_sum_and_padding_gets_none():
    batch = collate(some_items())
    np.testing.assert_allclose(batch.flow.sum(1).numpy(), batch.mask.float().numpy(), atol=1e-6)
    assert (batch.flow * ~batch.mask[:, :, None]).abs().sum() == 0


@pytest.mark.parametrize("at", range(5))
def test_padding_changes_nothing(at):
    items = some_items()
    whole, alone = collate(items), collate([items[at]])
    n, t = alone.mask.shape[1], alone.words.shape[1]
    assert torch.equal(whole.globals[at], alone.globals[0])
    for name in ("features", "mask", "types", "order"):
        padded = getattr(whole, name)[at]
        assert torch.equal(padded[:n], getattr(alone, name)[0])
        assert not padded[n:].any()
    for name in ("adjacency", "flow"):
        padded = getattr(whole, name)[at]
        assert torch.equal(padded[..., :n, :n], getattr(alone, name)[0])
        assert not padded[..., n:, :].any()
        assert not padded[..., n:].any()
    assert torch.equal(whole.words[at, :t], alone.words[0])
    assert (whole.words[at, t:] == EOS).all()
    assert torch.equal(whole.word_mask[at], torch.arange(whole.words.shape[1] - 1) < t - 1)


def test_targets_are_the_words_and_one_end():
    batch = collate(some_items())
    targets = batch.words[:, 1:]
    for row, item in enumerate(some_items()):
        assert targets[row][batch.word_mask[row]].tolist() == item.words[1:].tolist()
        assert (targets[row][batch.word_mask[row]] == EOS).sum() == 1


def test_only_empty_graphs_have_one_place_for_nodes():
    batch = collate([some_items()[2]])
    assert batch.mask.tolist() == [[False]]
    assert batch.features.tolist() == [[[0.0] * F]]
    assert batch.flow.tolist() == [[[0.0]]]


def test_items_that_do_not_fit_each_other_are_refused():
    one, two = some_items()[:2]
    with pytest.raises(DataError, match="expected one pair"):
        collate([one, dataclasses.replace(two, image=np.zeros(G + 1, np.float32))])
    with pytest.raises(DataError, match="expected one pair"):
        collate([])


def test_a_batch_moves_whole():
    batch = collate(some_items())
    moved = batch.to("meta")
    assert {value.device.type for name, value in vars(moved).items() if name != "names"} == {"meta"}
    assert moved.names == batch.names
    assert torch.equal(batch.to("cpu").adjacency, batch.adjacency)


class Numbered:
    """A source of n items that know their place."""

    def __init__(self, n: int) -> None:
        self.made = [item_of(random_graph(np.random.default_rng(0), 1, 0), row, 1) for row in range(n)]

    def __len__(self) -> int:
        return len(self.made)

    def item(self, i: int) -> GraphItem:
        return self.made[i]


def rows(loader: GraphLoader, epoch: int = 0) -> list[list[int]]:
    loader.set_epoch(epoch)
    batches: list[GraphBatch] = list(loader)
    return [batch.rows.tolist() for batch in batches]


def drawn(loader: GraphLoader, epoch: int = 0) -> list[int]:
    return list(chain(*rows(loader, epoch)))


def test_every_epoch_holds_every_sample_in_another_order():
    loader = GraphLoader(Numbered(10), 4, seed=1)
    assert len(loader) == 3
    epochs = [drawn(loader, epoch) for epoch in range(3)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(10))] * 3
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert [len(batch) for batch in rows(loader)] == [4, 4, 2]


def test_the_order_is_that_of_seed_and_epoch():
    one, two = (drawn(GraphLoader(Numbered(10), size, seed=1), 2) for size in (3, 4))
    assert one == two
    assert one != drawn(GraphLoader(Numbered(10), 3, seed=2), 2)


@pytest.mark.parametrize(("n", "world"), [(12, 3), (10, 3), (2, 4)])
def test_ranks_share_an_epoch_equally(n, world):
    loaders = [GraphLoader(Numbered(n), 2, seed=1, rank=rank, world=world) for rank in range(world)]
    shares = [drawn(loader) for loader in loaders]
    assert {len(share) for share in shares} == {-(-n // world)}
    assert set(chain(*shares)) == set(range(n))
    if n % world == 0:
        assert sorted(chain(*shares)) == list(range(n))


@pytest.mark.parametrize(("n", "world"), [(12, 3), (10, 3), (2, 4)])
def test_without_shuffling_each_sample_comes_once_in_order(n, world):
    loaders = [GraphLoader(Numbered(n), 2, shuffle=False, rank=rank, world=world) for rank in range(world)]
    assert [drawn(loader, 5) for loader in loaders] == [list(range(n))[rank::world] for rank in range(world)]


def test_wrong_arguments_are_named():
    with pytest.raises(ConfigError, match="batch_size: 0; expected 1 or more"):
        GraphLoader(Numbered(2), 0)
    with pytest.raises(DataError, match="no samples"):
        GraphLoader(Numbered(0), 2)


def test_batches_of_a_released_layout(tmp_path):
    graphs = GraphSet.open(write_tree(tmp_path), "trn")
    (batch,) = GraphLoader(graphs, 20, shuffle=False)
    for i in range(len(graphs)):
        item, n = graphs.item(i), int(batch.mask[i].sum())
        np.testing.assert_array_equal(batch.features[i, :n].numpy(), item.features)
        assert batch.names[i] == item.nodes.names
        assert graphs.words.decode(batch.words[i].tolist()) == graphs.phrase(i)
