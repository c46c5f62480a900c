"""Which node of a scene graph each word of a caption hangs on: four methods with one signature.

Attention is what the captioner shows of itself, not why it says a word; `occlusion` is the reference.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from aaca.data.scenegraph.batch import GraphBatch, GraphItem, collate
from aaca.data.scenegraph.vocabulary import BOS
from aaca.models.captioner.captioner import GraphCaptioner
from aaca.runtime.errors import ConfigError, DataError, nearest

ROWS = 256
"""Captions in one forward pass at most."""


class NodeAttribution(Protocol):
    """A method: scores `[T, N]` float32 of the N nodes of one graph for each of the T words of a caption.

    `words` are ids without BOS; EOS counts as a word where it is there. Higher speaks more for the word; padded nodes
    have 0. The captioner is asked without dropout, and left as it was. Raises `DataError` for a batch of more than one
    graph and for a caption without words.
    """

    def __call__(self, captioner: GraphCaptioner, graph: GraphItem | GraphBatch, words: Sequence[int]) -> Tensor:
        """The scores."""


def attention(captioner: GraphCaptioner, graph: GraphItem | GraphBatch, words: Sequence[int]) -> Tensor:
    """α of the step that says the word: for display, known to be a poor attribution here."""
    batch, said = _given(captioner, graph, words)
    told, shown = _telling(batch, said[None]).words[:, :-1], []
    with torch.no_grad(), _settled(captioner):
        state = captioner.start(captioner.encode(batch))
        for last in told.unbind(dim=1):
            _, state = captioner.step(last, state)
            shown.append(state.attention[0].float())
    return torch.stack(shown)


def gradient_x_input(captioner: GraphCaptioner, graph: GraphItem | GraphBatch, words: Sequence[int]) -> Tensor:
    """⟨v_i, ∂ log p(y_t) / ∂ v_i⟩ of each node's feature v_i."""
    batch, said = _given(captioner, graph, words)
    return (_gradients(captioner, batch, said, np.ones(1), np.ones(1)) * batch.features).sum(dim=2).float()


def integrated_gradients(
    captioner: GraphCaptioner, graph: GraphItem | GraphBatch, words: Sequence[int], steps: int = 32
) -> Tensor:
    """⟨v_i, ∫ ∂ log p(y_t) / ∂ v_i⟩ along the line from features of zero (Sundararajan et al. 2017, eq. 1).

    The image's own feature stays. Nodes add up to log p(y_t) − log p(y_t | features of zero), but for the error of the
    Gauss-Legendre sum of `steps` terms. Raises `ConfigError` for fewer than 2.
    """
    if steps < 2:
        raise ConfigError(f"attribution.steps: {steps}; expected 2 or more")
    batch, said = _given(captioner, graph, words)
    places, weights = np.polynomial.legendre.leggauss(steps)
    slopes = _gradients(captioner, batch, said, (places + 1) / 2, weights / 2)
    return (slopes * batch.features).sum(dim=2).float()


def occlusion(captioner: GraphCaptioner, graph: GraphItem | GraphBatch, words: Sequence[int]) -> Tensor:
    """log p(y_t | G) − log p(y_t | G without node i), each time the words before are those of the caption.

    Node i goes with its edges and nothing else: an object's attributes and relationships stay, tied to one thing less,
    and attributes behind it keep their place in the object's list. Without the first node the telling starts at the
    next (see `without_each_node`).
    """
    batch, said = _given(captioner, graph, words)
    nodes = int(batch.mask.sum())
    less = without_each_node(batch)
    rows = said.expand(nodes, -1)
    with torch.no_grad():
        whole = log_probs(captioner, batch, said[None])
        parts = [
            log_probs(captioner, _rows(less, range(start, min(start + ROWS, nodes))), rows[start : start + ROWS])
            for start in range(0, nodes, ROWS)
        ]
    scores = torch.zeros(len(said), batch.mask.shape[1], device=said.device)
    if parts:
        scores[:, batch.mask[0]] = (whole - torch.cat(parts)).T.float()
    return scores


METHODS: dict[str, NodeAttribution] = {
    "attention": attention,
    "gradient_x_input": gradient_x_input,
    "integrated_gradients": integrated_gradients,
    "occlusion": occlusion,
}
"""All methods by name."""


def method_of(name: str, steps: int = 32) -> NodeAttribution:
    """The method of this name; `steps` are those of integrated gradients. Raises `ConfigError` where there is none."""
    if name not in METHODS:
        raise ConfigError(f"attribution: {name!r}; {nearest(name, METHODS)}")
    return partial(integrated_gradients, steps=steps) if name == "integrated_gradients" else METHODS[name]


def log_probs(captioner: GraphCaptioner, batch: GraphBatch, words: Tensor) -> Tensor:
    """log p `[B, T]` of the words `[B, T]` (without BOS) of a batch's graphs, each given the words before it."""
    with _settled(captioner):
        logits = captioner(_telling(batch, words))
    return logits.log_softmax(dim=2).gather(2, words[..., None])[..., 0]


def without_each_node(batch: GraphBatch) -> GraphBatch:
    """As many graphs as a batch's one graph has nodes, the i-th without node i and its edges, all else as it was.

    The others move up and an empty place comes last. Averages over neighbours are over those that are left; a node that
    the telling could only leave towards node i stays at itself, as `nodes_of` has it.
    """
    mask = batch.mask[0]
    n, count = int(mask.sum()), len(mask)
    if not bool(mask[:n].all()):
        raise DataError("graph: padding before a node; expected it behind all nodes")
    places = torch.arange(count, device=mask.device).expand(n, -1)
    gone = torch.arange(n, device=mask.device)[:, None]
    order = (places + (places >= gone)).clamp(max=count - 1)
    there = torch.arange(count, device=mask.device) < n - 1
    pairs = there[:, None] & there[None, :]
    adjacency = torch.stack([batch.adjacency[0][:, own][:, :, own] for own in order]) if n else batch.adjacency[:0]
    flow = torch.stack([batch.flow[0][own][:, own] for own in order]) if n else batch.flow[:0]
    edges = ((adjacency > 0) & pairs).float()
    told = ((flow > 0) & pairs & ~torch.eye(count, dtype=torch.bool, device=mask.device)).float()
    lost = (told.sum(dim=1) == 0) & there
    told = told + torch.diag_embed(lost.float())
    return replace(
        repeated(batch, n),
        features=batch.features[0][order] * there[:, None],
        mask=there.expand(n, -1),
        types=batch.types[0][order] * there,
        order=batch.order[0][order] * there,
        adjacency=edges / edges.sum(dim=3, keepdim=True).clamp(min=1),
        flow=told / told.sum(dim=1, keepdim=True).clamp(min=1),
        names=[tuple(name for at, name in enumerate(batch.names[0]) if at != i) for i in range(n)],
    )


def repeated(batch: GraphBatch, count: int) -> GraphBatch:
    """The first graph of a batch `count` times."""
    return _rows(batch, [0] * count)


def _given(captioner: GraphCaptioner, graph: GraphItem | GraphBatch, words: Sequence[int]) -> tuple[GraphBatch, Tensor]:
    batch = collate([graph]) if isinstance(graph, GraphItem) else graph
    if len(batch.mask) != 1:
        raise DataError(f"attribution: {len(batch.mask)} graphs; expected one")
    if not len(words):
        raise DataError("attribution: a caption without words; expected at least one")
    device = next(captioner.parameters()).device
    return batch.to(device), torch.tensor([int(word) for word in words], dtype=torch.int64, device=device)


def _gradients(
    captioner: GraphCaptioner, batch: GraphBatch, said: Tensor, shares: np.ndarray, weights: np.ndarray
) -> Tensor:
    # [T, N, F]: for each word the gradient of its log p at the shares [S] of the features, added up by the weights [S]
    total = batch.features.new_zeros(len(said), *batch.features.shape[1:])
    many = [(step, at) for step in range(len(shares)) for at in range(len(said))]
    with torch.inference_mode(False), torch.enable_grad():
        for start in range(0, len(many), ROWS):
            steps, words = zip(*many[start : start + ROWS], strict=True)  # a row of the batch a word and step
            at = torch.tensor(words, device=said.device)
            scale, weight = (total.new_tensor(values[list(steps)])[:, None, None] for values in (shares, weights))
            features = (batch.features * scale).requires_grad_()
            rows = replace(repeated(batch, len(at)), features=features)
            spoken = log_probs(captioner, rows, said.expand(len(at), -1))
            (slopes,) = torch.autograd.grad(spoken.gather(1, at[:, None]).sum(), features)
            total.index_add_(0, at, slopes * weight)
    return total


def _telling(batch: GraphBatch, words: Tensor) -> GraphBatch:
    """The batch with these captions `[B, T]` instead of its own, every word counting."""
    begin = torch.full_like(words[:, :1], BOS)
    return replace(batch, words=torch.cat([begin, words], dim=1), word_mask=torch.ones_like(words, dtype=torch.bool))


def _rows(batch: GraphBatch, rows: Sequence[int]) -> GraphBatch:
    index = torch.tensor(list(rows), dtype=torch.int64, device=batch.mask.device)
    names = ("globals", "features", "mask", "types", "order", "adjacency", "flow", "words", "word_mask", "rows")
    picked = {name: getattr(batch, name)[index] for name in names}
    return replace(batch, **picked, names=[batch.names[row] for row in rows])


@contextmanager
def _settled(captioner: GraphCaptioner) -> Iterator[None]:
    # no dropout meanwhile; every part's mode is put back
    modes = [(part, part.training) for part in captioner.modules()]
    captioner.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
