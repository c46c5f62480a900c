"""Losses that align a captioner with human rationale: pure functions, each a sum and what it is a mean over.

The paper describes a loss on the gap between the model's attribution and a human rationale (Chai, Qi, Sun, Li, ICDE
2024); its released code has none, so these are ours. With a graph of human nodes alone every node is rationale, and
`leak` and `attribution` are 0: they need graphs that also hold what only the model looked at.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from aaca.data.scenegraph.mentions import mentions

LEAST = 1e-8
"""Attention below this counts as this: the logarithm of what underflowed to 0 would be no number."""

Mean = tuple[Tensor, Tensor]
"""(sum, how many were added): ranks add both up before they divide."""


def named_nodes(names: Sequence[tuple[str, ...]], captions: Sequence[str], steps: int, nodes: int) -> Tensor:
    """bool `[B, steps, nodes]`: which nodes the word of each step names, see `mentions`."""
    named = torch.zeros(len(captions), steps, nodes, dtype=torch.bool)
    for row, (own, caption) in enumerate(zip(names, captions, strict=True)):
        for step, matched in enumerate(mentions(caption.split(), own)[:steps]):
            named[row, step, sorted(matched)] = True
    return named


def attention(attended: Tensor, named: Tensor, word_mask: Tensor) -> Mean:
    """−log Σ_{i ∈ R_t} α_{t,i}, over the words t that name nodes R_t; all other words count for nothing.

    Attention `[B, T, N]`, named bool `[B, T, N]`, word_mask bool `[B, T]`.
    """
    aligned = named.any(dim=2) & word_mask
    share = (attended.float() * named).sum(dim=2)
    losses = -share.clamp_min(LEAST).log()
    return losses.masked_fill(~aligned, 0.0).sum(), aligned.sum()


def leak(attended: Tensor, rationale: Tensor, mask: Tensor, word_mask: Tensor) -> Mean:
    """Σ_{i: r_i = 0} α_{t,i}, over all words t: attention to nodes that are no rationale.

    Attention `[B, T, N]`, rationale r and node mask bool `[B, N]`, word_mask bool `[B, T]`.
    """
    wrong = (mask & ~rationale)[:, None]
    lost = (attended.float() * wrong).sum(dim=2)
    return (lost * word_mask).sum(), word_mask.sum()


def attribution(features: Tensor, log_prob: Tensor, rationale: Tensor, mask: Tensor) -> Mean:
    """1 − Σ_{i: r_i = 1} a_i, over graphs; a_i ∝ |⟨v_i, ∂/∂v_i Σ_t log p(y_t)⟩|, adding up to 1 in each graph.

    Features v `[B, N, F]` that ask for gradients, log_prob: the sum over all captions' words (a scalar of which each
    graph's features enter its own caption alone), rationale r and node mask bool `[B, N]`. Its gradient goes through
    the gradient (double backward). Graphs without any attribution are left out.
    """
    (slope,) = torch.autograd.grad(log_prob, features, create_graph=True)
    shares = (features.float() * slope.float()).sum(dim=2).abs() * mask
    total = shares.sum(dim=1)
    counted = total > 0
    right = (shares * rationale).sum(dim=1) / total.masked_fill(~counted, 1.0)
    return (1.0 - right).masked_fill(~counted, 0.0).sum(), counted.sum()
