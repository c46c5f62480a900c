"""The captioner once more, as its description reads: one word, one edge, one node list at a time, nothing shared.

Modules carry the names of `aaca.models.captioner`, so a state dict fits both; all arithmetic is written anew.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aaca.data.scenegraph.batch import GraphBatch, GraphItem, collate
from aaca.data.scenegraph.graph import GraphObject, Relationship, SceneGraph
from aaca.data.scenegraph.nodes import nodes_of
from aaca.data.scenegraph.vocabulary import BOS, EOS
from aaca.models.captioner.spec import CaptionerSpec


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    layers = [("first", nn.Linear(inputs, hidden)), ("relu", nn.ReLU()), ("last", nn.Linear(hidden, outputs))]
    return nn.Sequential(OrderedDict(layers))


def sinusoid(order: int, width: int) -> Tensor:
    row = [0.0] * width
    for d in range(width) if order else []:
        angle = (order - 1) / 10_000 ** (2 * (d // 2) / width)
        row[d] = math.cos(angle) if d % 2 else math.sin(angle)
    return torch.tensor(row, dtype=torch.float64)


class Role(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.types = nn.Embedding(3, width)
        self.table = torch.stack([sinusoid(order, width) for order in range(20)]).float()

    def forward(self, features: Tensor, types: Tensor, order: Tensor) -> Tensor:
        return features * (self.types(types) + self.table[order].to(features.dtype))


class Convolution(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.own = nn.Parameter(torch.empty(inputs, outputs))
        self.relations = nn.Parameter(torch.empty(6, inputs, outputs))

    def forward(self, nodes: Tensor, adjacency: Tensor) -> Tensor:
        out = nodes @ self.own
        for kind in range(6):
            out = out + adjacency[:, kind] @ nodes @ self.relations[kind]
        return F.relu(out)


class Encoder(nn.Module):
    def __init__(self, spec: CaptionerSpec) -> None:
        super().__init__()
        inputs = spec.features
        self.role = Role(inputs) if spec.role else None
        self.embed, self.layers = None, nn.ModuleList()
        if not spec.edges:
            self.embed = nn.Linear(inputs, spec.hidden)
        else:
            if spec.embed_first:
                self.embed = nn.Sequential(nn.Linear(inputs, spec.hidden), nn.ReLU())
                inputs = spec.hidden
            for _ in range(spec.layers):
                self.layers.append(Convolution(inputs, spec.hidden))
                inputs = spec.hidden
        self.whole = nn.Linear(spec.global_features + spec.hidden, spec.hidden)


class Decoder(nn.Module):
    def __init__(self, spec: CaptionerSpec) -> None:
        super().__init__()
        d = spec.hidden
        self.attention_lstm, self.language_lstm = nn.LSTMCell(3 * d, d), nn.LSTMCell(2 * d, d)
        self.key, self.query = nn.Linear(d, spec.attention, bias=False), nn.Linear(d, spec.attention)
        self.score = nn.Linear(spec.attention, 1, bias=False)
        self.flow = mlp(2 * d, d, 4) if spec.flow else None
        self.rewrite = mlp(2 * d, d, 2 * d) if spec.memory else None
        self.sentinel = mlp(d, d, 1) if spec.memory else None


class PlainCaptioner(nn.Module):
    def __init__(self, spec: CaptionerSpec) -> None:
        super().__init__()
        self.spec = spec
        self.encoder, self.decoder = Encoder(spec), Decoder(spec)
        self.words = nn.Embedding(spec.words, spec.hidden)
        self.dropout = nn.Dropout(spec.dropout)

    def encode(self, batch: GraphBatch) -> tuple[Tensor, Tensor]:
        encoder, nodes = self.encoder, batch.features
        if encoder.role is not None:
            nodes = encoder.role(nodes, batch.types, batch.order)
        if encoder.embed is not None:
            nodes = encoder.embed(nodes)
        for layer in encoder.layers:
            nodes = layer(nodes, batch.adjacency)
        mask = batch.mask.to(nodes.dtype)
        mean = (nodes * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
        return nodes, encoder.whole(torch.cat([batch.globals, mean], dim=1))

    def forward(self, batch: GraphBatch) -> Tensor:
        return self.steps(batch)[0]

    def steps(self, batch: GraphBatch) -> tuple[Tensor, Tensor]:
        nodes, whole = self.encode(batch)
        decoder, (b, n, d) = self.decoder, nodes.shape
        zero = nodes.new_zeros(b, d)
        hidden_a, cell_a, hidden_l, cell_l = zero, zero, zero, zero
        attention = nodes.new_zeros(b, n)
        attention[:, 0] = 1
        logits, seen = [], []
        for t in range(batch.words.shape[1] - 1):
            word = self.words(batch.words[:, t])
            hidden_a, cell_a = decoder.attention_lstm(torch.cat([hidden_l, whole, word], dim=1), (hidden_a, cell_a))
            scores = decoder.score(torch.tanh(decoder.key(nodes) + decoder.query(hidden_a).unsqueeze(1))).squeeze(2)
            content = torch.softmax(scores.masked_fill(~batch.mask, float("-inf")), dim=1)
            if decoder.flow is None:
                attention = content
            else:
                held = torch.bmm(attention.unsqueeze(1), nodes).squeeze(1)
                decided = decoder.flow(torch.cat([hidden_a, held], dim=1))
                beta, choice = torch.sigmoid(decided[:, :1]), torch.softmax(decided[:, 1:], dim=1)
                once = torch.bmm(batch.flow, attention.unsqueeze(2)).squeeze(2)
                twice = torch.bmm(batch.flow, once.unsqueeze(2)).squeeze(2)
                flowing = choice[:, :1] * attention + choice[:, 1:2] * once + choice[:, 2:] * twice
                attention = beta * content + (1 - beta) * flowing
            node = torch.bmm(attention.unsqueeze(1), nodes).squeeze(1)
            hidden_l, cell_l = decoder.language_lstm(torch.cat([hidden_a, node], dim=1), (hidden_l, cell_l))
            logits.append(F.linear(self.dropout(hidden_l), self.words.weight))
            seen.append(attention)
            if decoder.rewrite is not None:
                gate = torch.sigmoid(decoder.sentinel(hidden_l))
                both = torch.cat([hidden_l.unsqueeze(1).expand(-1, n, -1), nodes], dim=2)
                erase, add = decoder.rewrite(both).split(d, dim=2)
                share = (gate * attention).unsqueeze(2)
                nodes = nodes * (1 - share * torch.sigmoid(erase)) + share * add
        return torch.stack(logits, dim=1), torch.stack(seen, dim=1)


def plain_loss(logits: Tensor, words: Tensor, mask: Tensor) -> Tensor:
    """Σ mask · CE / Σ mask."""
    losses = F.cross_entropy(logits.flatten(0, 1), words[:, 1:].flatten(), reduction="none")
    weights = mask.flatten().to(losses.dtype)
    return (losses * weights).sum() / weights.sum()


def random_graph(rng: np.random.Generator, objects: int, attributes: int, relationships: int) -> SceneGraph:
    """Objects, attributes dealt out to them, relationships between two objects each."""
    owners = rng.integers(0, objects, attributes)
    things = tuple(
        GraphObject(i, f"object {i}", tuple(f"attribute {k}" for k in np.flatnonzero(owners == i)), (0, 0, 4, 4))
        for i in range(objects)
    )
    pairs = [rng.choice(objects, 2, replace=False).tolist() for _ in range(relationships if objects > 1 else 0)]
    return SceneGraph(things, tuple(Relationship(100 + i, *pair, "on") for i, pair in enumerate(pairs)))


def item_of(graph: SceneGraph, words: int, spec: CaptionerSpec, rng: np.random.Generator, row: int = 0) -> GraphItem:
    """A sample with random features and `words` random words between BOS and EOS."""
    nodes = nodes_of(graph)
    image = rng.standard_normal(spec.global_features).astype(np.float32)
    features = rng.random((len(nodes), spec.features)).astype(np.float32)
    caption = np.array([BOS, *rng.integers(2, spec.words, words), EOS])
    return GraphItem(nodes, image, features, caption, row)


def random_batch(spec: CaptionerSpec, lengths: Sequence[int], seed: int = 0, full: bool = False) -> GraphBatch:
    """Graphs of 1 to 10 nodes (`full`: all of 10) with captions of `lengths` words, BOS and EOS aside."""
    rng = np.random.default_rng(seed)
    items = []
    for row, words in enumerate(lengths):
        objects, attributes, relationships = (4, 3, 3) if full else (int(rng.integers(1, 5)), *rng.integers(0, 4, 2))
        items.append(item_of(random_graph(rng, objects, attributes, relationships), words, spec, rng, row))
    return collate(items)


def in_double(batch: GraphBatch) -> GraphBatch:
    """The batch with float64 tensors."""
    names = ("globals", "features", "adjacency", "flow")
    return replace(batch, **{name: getattr(batch, name).double() for name in names})
