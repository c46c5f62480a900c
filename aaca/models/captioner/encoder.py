"""From a scene graph to node vectors and one vector of the whole: roles and graph convolutions (ASG2Caption)."""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aaca.data.scenegraph.batch import GraphBatch
from aaca.data.scenegraph.nodes import EDGE_KINDS
from aaca.models.captioner.spec import CaptionerSpec
from aaca.runtime.errors import DataError

NODE_TYPES = 3
ORDERS = 20
"""Rows of the order table: an object has at most 19 attributes."""


def order_table(width: int) -> Tensor:
    """Fixed sinusoids `[20, width]`: row 0 zeros, row k sine (even) and cosine (odd) at position k − 1, base 10000."""
    dims = torch.arange(width, dtype=torch.float64)
    rates = torch.exp(-math.log(10_000.0) * (dims - dims % 2) / width)
    angles = torch.arange(ORDERS - 1, dtype=torch.float64)[:, None] * rates
    table = torch.where(dims % 2 == 0, angles.sin(), angles.cos())
    return torch.cat([torch.zeros(1, width, dtype=torch.float64), table]).float()


class RoleEmbedding(nn.Module):
    """Node features times (type + attribute order): x̃ = v ⊙ (E[type] + P[order]); E is learned, P is not."""

    positions: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.types = nn.Embedding(NODE_TYPES, width)
        self.register_buffer("positions", order_table(width), persistent=False)

    def forward(self, features: Tensor, types: Tensor, order: Tensor) -> Tensor:
        """`[B, N, F]` of features `[B, N, F]`, types and order `[B, N]`. Raises `DataError` for an order above 19."""
        if int(order.max()) >= ORDERS:
            raise DataError(
                f"graph: an object with {int(order.max())} attributes; the order table ends at {ORDERS - 1}"
            )
        return features * (self.types(types) + self.positions[order])


class RelationalConvolution(nn.Module):
    """x_i ← ReLU(W_0 x_i + Σ_r Σ_j A[r, i, j] W_r x_j), without bias, over the six kinds of edges (MR-GCN)."""

    def __init__(self, inputs: int, outputs: int, init: str) -> None:
        super().__init__()
        self.own = nn.Parameter(torch.empty(inputs, outputs))
        self.relations = nn.Parameter(torch.empty(len(EDGE_KINDS), inputs, outputs))
        gain = nn.init.calculate_gain("relu")
        nn.init.xavier_uniform_(self.own, gain)
        if init == "upstream":  # fans of the 3-D tensor: inputs · outputs and kinds · outputs
            nn.init.xavier_uniform_(self.relations, gain)
        else:
            for relation in self.relations:
                nn.init.xavier_uniform_(relation, gain)

    def forward(self, nodes: Tensor, adjacency: Tensor) -> Tensor:
        """`[B, N, outputs]` of nodes `[B, N, inputs]` and adjacency `[B, 6, N, N]` ([target, source])."""
        messages = torch.einsum("brts,bsd->btrd", adjacency, nodes).flatten(2)
        weight = torch.cat([self.own, self.relations.flatten(0, 1)])
        return F.relu(torch.cat([nodes, messages], dim=2) @ weight)


class GraphEncoder(nn.Module):
    """Node vectors and the global vector of a batch of scene graphs.

    With `edges`: `embed_first` if asked, then `layers` relational convolutions. Without: one linear layer a node, blind
    to all edges. The global vector is a linear layer over the image's feature and the mean of the nodes.
    """

    def __init__(self, spec: CaptionerSpec) -> None:
        super().__init__()
        width, hidden = spec.features, spec.hidden
        self.role = RoleEmbedding(width) if spec.role else None
        self.embed: nn.Module | None = None
        if not spec.edges:
            self.embed = nn.Linear(width, hidden)
        elif spec.embed_first:
            self.embed = nn.Sequential(nn.Linear(width, hidden), nn.ReLU())
            width = hidden
        sizes = [width, *[hidden] * spec.layers] if spec.edges else []
        self.layers = nn.ModuleList(
            RelationalConvolution(inputs, outputs, spec.relation_init) for inputs, outputs in pairwise(sizes)
        )
        self.whole = nn.Linear(spec.global_features + hidden, hidden)

    def forward(self, batch: GraphBatch) -> tuple[Tensor, Tensor]:
        """Nodes `[B, N, H]` (0 where padded) and the global vectors `[B, H]`; a graph without nodes has mean 0."""
        nodes = batch.features
        if self.role is not None:
            nodes = self.role(nodes, batch.types, batch.order)
        if self.embed is not None:
            nodes = self.embed(nodes)
        for layer in self.layers:
            nodes = layer(nodes, batch.adjacency)
        nodes = nodes * batch.mask[..., None]
        mean = nodes.sum(1) / batch.mask.sum(1, keepdim=True).clamp(min=1)
        return nodes, self.whole(torch.cat([batch.globals, mean], dim=1))
