from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from aaca.data.scenegraph.batch import GraphItem, collate
from aaca.data.scenegraph.graph import GraphObject, Relationship, SceneGraph
from aaca.data.scenegraph.nodes import nodes_of
from aaca.discover.captions.attribution import (
    METHODS,
    attention,
    gradient_x_input,
    integrated_gradients,
    log_probs,
    method_of,
    occlusion,
    without_each_node,
)
from aaca.models.captioner.captioner import GraphCaptioner
from aaca.models.captioner.spec import CaptionerSpec
from aaca.runtime.errors import ConfigError, DataError

GRAPH = SceneGraph(
    (
        GraphObject(0, "cat", ("red", "small"), (0, 0, 4, 4)),
        GraphObject(1, "dog", (), (5, 0, 4, 4)),
        GraphObject(2, "hat", ("blue",), (0, 5, 4, 4)),
        GraphObject(3, "cup", (), (9, 9, 2, 2)),
    ),
    (Relationship(0, 0, 1, "left of"), Relationship(1, 1, 2, "above")),
)
WORDS = [5, 3, 7, 4, 1]


def item_of(graph, features=None, width=6):
    nodes = nodes_of(graph, limit=20)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(len(nodes), width)).astype(np.float32) if features is None else features
    return GraphItem(nodes, np.linspace(-1, 1, 5, dtype=np.float32), features, np.array([0, *WORDS]), 0)


def captioner(seed=0, **switches):
    spec = CaptionerSpec(words=9, features=6, global_features=5, hidden=12, attention=8, dropout=0.5, **switches)
    model = GraphCaptioner(spec, seed=seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 1.5
    return model


def spoken(model, item, words=WORDS):
    return log_probs(model, collate([item]), torch.tensor([words]))[0]


def step_by_step(model, item, words):
    # log p and attention of each word, through the decoder's own steps
    model.eval()
    state, last, found, attended = model.start(model.encode(collate([item]))), 0, [], []
    for word in words:
        logits, state = model.step(torch.tensor([last]), state)
        found.append(logits[0].log_softmax(0)[word])
        attended.append(state.attention[0])
        last = word
    return torch.stack(found), torch.stack(attended)


def test_words_are_asked_one_step_at_a_time():
    model, item = captioner(), item_of(GRAPH)
    with torch.no_grad():
        expected, attended = step_by_step(model, item, WORDS)
        torch.testing.assert_close(spoken(model, item), expected, atol=1e-5, rtol=1e-5)
    shown = attention(model, item, WORDS)
    torch.testing.assert_close(shown, attended, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(shown.sum(1), torch.ones(5))


def test_gradient_times_input_is_the_slope_of_scaling_one_node():
    model, item = captioner().double(), item_of(GRAPH)
    batch = collate([item])
    batch = replace(
        batch, **{name: getattr(batch, name).double() for name in ("globals", "features", "adjacency", "flow")}
    )
    said, eps = torch.tensor([WORDS]), 1e-6
    found = gradient_x_input(model, batch, WORDS)
    for node in range(len(item.nodes)):
        sides = []
        for sign in (1, -1):
            features = batch.features.clone()
            features[0, node] *= 1 + sign * eps
            sides.append(log_probs(model, replace(batch, features=features), said)[0].detach())
        torch.testing.assert_close(found[:, node].double(), (sides[0] - sides[1]) / (2 * eps), atol=1e-5, rtol=1e-4)
    assert found.abs().max() > 1e-3


def test_integrated_gradients_add_up_to_the_loss_of_all_features():
    model, item = captioner(), item_of(GRAPH)
    blind = replace(item, features=np.zeros_like(item.features))
    gap = (spoken(model, item) - spoken(model, blind)).detach()
    found = integrated_gradients(model, item, WORDS, steps=64).sum(1)
    assert gap.abs().max() > 0.05
    torch.testing.assert_close(found, gap, atol=0.03 * float(gap.abs().max()), rtol=0)
    assert (gradient_x_input(model, item, WORDS).sum(1) - gap).abs().max() > 3 * (found - gap).abs().max()


def dropped_by_hand(item, node):
    # a graph of nodes without one of them, edges and flow counted anew from the list of edges
    nodes, n = item.nodes, len(item.nodes)
    kept = [at for at in range(n) if at != node]
    place = {old: new for new, old in enumerate(kept)}
    edges = [(kind, place[t], place[s]) for kind, t, s in nodes.edges.tolist() if node not in (t, s)]
    flow = np.zeros((n - 1, n - 1), np.float32)
    for source in range(n - 1):
        ways = [t for kind, t, s in edges if s == source and kind in (0, 1, 2, 4)] or [source]
        for target in ways:
            flow[target, source] = 1 / len(ways)
    left = replace(
        nodes,
        types=nodes.types[kept],
        order=nodes.order[kept],
        names=tuple(nodes.names[at] for at in kept),
        boxes=nodes.boxes[kept],
        edges=np.array(edges, np.int64).reshape(-1, 3),
        flow=flow,
        owners=tuple(nodes.owners[at] for at in kept),
    )
    return replace(item, nodes=left, features=item.features[kept])


@pytest.mark.parametrize("switches", [{}, {"edges": False, "flow": False, "memory": False}, {"memory": False}])
def test_occlusion_is_a_plain_loop_over_smaller_graphs(switches):
    model, item = captioner(**switches), item_of(GRAPH)
    found = occlusion(model, item, WORDS)
    assert found.shape == (5, 9)
    with torch.no_grad():
        whole, _ = step_by_step(model, item, WORDS)
        for node in range(9):
            without, _ = step_by_step(model, dropped_by_hand(item, node), WORDS)
            torch.testing.assert_close(found[:, node], whole - without, atol=1e-5, rtol=1e-4)
    assert found.abs().max() > 1e-3


def test_occlusion_agrees_with_graphs_that_are_written_without_the_node():
    # what a graph can say without the node: relationships, an object that nothing hangs on, the last attribute
    first, second, third, cup = GRAPH.objects
    names = nodes_of(GRAPH, limit=20).names
    smaller = {
        "left of": replace(GRAPH, relationships=GRAPH.relationships[1:]),
        "above": replace(GRAPH, relationships=GRAPH.relationships[:1]),
        "cup": replace(GRAPH, objects=(first, second, third)),
        "small": replace(GRAPH, objects=(replace(first, attributes=("red",)), second, third, cup)),
        "blue": replace(GRAPH, objects=(first, second, replace(third, attributes=()), cup)),
    }
    model, item = captioner(), item_of(GRAPH)
    found = occlusion(model, item, WORDS)
    with torch.no_grad():
        for name, graph in smaller.items():
            node = names.index(name)
            without = item_of(graph, np.delete(item.features, node, axis=0))
            expected = spoken(model, item) - spoken(model, without)
            torch.testing.assert_close(found[:, node], expected, atol=1e-5, rtol=1e-4)


def test_padding_has_no_score_and_changes_none():
    model, item = captioner(), item_of(GRAPH)
    batch = collate(
        [item, item_of(replace(GRAPH, objects=(*GRAPH.objects, *(replace(GRAPH.objects[3], id=k) for k in (4, 5)))))]
    )
    fields = ("globals", "features", "mask", "types", "order", "adjacency", "flow", "words", "word_mask", "rows")
    alone = replace(batch, **{name: getattr(batch, name)[:1] for name in fields}, names=batch.names[:1])
    for name, method in METHODS.items():
        padded = method(model, alone, WORDS)
        assert padded.shape == (5, 11), name
        assert (padded[:, 9:] == 0).all(), name
        torch.testing.assert_close(padded[:, :9], method(model, item, WORDS), atol=1e-5, rtol=1e-4)


def test_a_node_that_is_all_there_is_can_be_taken_out():
    one = item_of(SceneGraph((GRAPH.objects[3],), ()))
    less = without_each_node(collate([one]))
    assert less.mask.tolist() == [[False]] and less.flow.abs().sum() == 0
    assert occlusion(captioner(), one, WORDS).isfinite().all()
    assert occlusion(captioner(), item_of(SceneGraph((), ())), WORDS).tolist() == [[0.0]] * 5


class OneNode(nn.Module):
    """Says word 2 with logit w · (features of all nodes), w being 0 but for the last feature: a mark of one node."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.0, 0.0, 2.0]))

    def forward(self, batch):
        marked = (batch.features @ self.weight * batch.mask).sum(1)
        logits = torch.zeros(*batch.word_mask.shape, 4)
        return logits.index_add(2, torch.tensor([2]), marked[:, None, None].expand(-1, logits.shape[1], 1))

    def encode(self, batch):
        return batch

    def start(self, batch):
        share = batch.mask.float() / batch.mask.sum(1, keepdim=True)
        return SimpleNamespace(attention=share, batch=batch)

    def step(self, words, state):
        return self(replace(state.batch, word_mask=words[:, None] >= 0))[:, 0], state


def test_all_methods_but_attention_find_the_only_node_that_matters():
    features = np.random.default_rng(1).normal(size=(9, 3)).astype(np.float32)
    features[:, 2] = 0
    features[5, 2] = 1.5
    item, model = item_of(GRAPH, features), OneNode()
    gap = float(torch.tensor([0.0, 0.0, 3.0, 0.0]).log_softmax(0)[2]) - float(np.log(1 / 4))
    slope = 3.0 * (1 - float(torch.tensor([0.0, 0.0, 3.0, 0.0]).softmax(0)[2]))
    expected = {"occlusion": gap, "integrated_gradients": gap, "gradient_x_input": slope}
    for name, value in expected.items():
        scores = METHODS[name](model, item, [2])[0]
        assert scores[5].item() == pytest.approx(value, abs=1e-4), name
        assert scores[torch.arange(9) != 5].abs().max() < 1e-6, name
    assert attention(model, item, [2])[0].tolist() == pytest.approx([1 / 9] * 9)


def test_the_captioner_is_asked_without_dropout_and_left_as_it_was():
    model, item = captioner().train(), item_of(GRAPH)
    model.encoder.eval()
    for name, method in METHODS.items():
        assert torch.equal(method(model, item, WORDS), method(model, item, WORDS)), name
        assert model.training and model.dropout.training and not model.encoder.training
        assert all(parameter.grad is None for parameter in model.parameters())


def test_what_cannot_be_explained_is_named():
    model, item = captioner(), item_of(GRAPH)
    with pytest.raises(DataError, match="2 graphs; expected one"):
        occlusion(model, collate([item, item]), WORDS)
    with pytest.raises(DataError, match="without words"):
        attention(model, item, [])
    with pytest.raises(ConfigError, match="steps: 1"):
        method_of("integrated_gradients", steps=1)(model, item, WORDS)
    with pytest.raises(ConfigError, match="nearest valid: occlusion"):
        method_of("oclusion")
    few, many = (method_of("integrated_gradients", steps=steps)(model, item, WORDS) for steps in (2, 48))
    assert not torch.allclose(few, many, atol=1e-6)
