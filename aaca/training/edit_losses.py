"""What editing a head minimises: how far class probabilities move when chosen neurons are cut (NeuroInspect).

The ratio of an image and class is r_c = p_c(f) / (p_c(f ⊙ m) + eps); m is 0 at the chosen neurons and 1 elsewhere.
All functions take features `[B, D]`, a head's weight `[K, D]` and its logits `[B, K]` of the features. Softmax ignores
what all classes share, so r = 1 for every input where each chosen column of the weight is constant over classes.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-9
"""Of the paper's code. Where p_c(f) is not far above it, r falls below 1 even if no neuron is cut."""

OTHERS = 0.9
FOCUSING = 2.0

Reduce = Literal["norm", "rms"]


def without(features: Tensor, weight: Tensor, logits: Tensor, neurons: Tensor) -> Tensor:
    """Logits `[B, K]` of f ⊙ m, m being 0 at `neurons` `[S]` (distinct): what they added is taken away again."""
    return logits - features[:, neurons] @ weight[:, neurons].T


def log_ratios(logits: Tensor, cut: Tensor, eps: float = EPS) -> Tensor:
    """log r `[B, K]` of logits and of those without the neurons: never divides, so it stays finite."""
    rest = cut.log_softmax(dim=1)
    return logits.log_softmax(dim=1) - torch.logaddexp(rest, rest.new_full((), math.log(eps)))


def retention(
    features: Tensor,
    weight: Tensor,
    logits: Tensor,
    neurons: Mapping[int, Tensor],
    targets: Mapping[int, float],
    reduce: Reduce = "norm",
    eps: float = EPS,
) -> Tensor:
    """‖(r_{i,c} − o_c)_i‖₂ over the batch, summed over the edited classes c, each with its own neurons and target o_c.

    `norm` is the paper's: not averaged, so the term grows with √B. `rms` divides by √B.
    """
    total = logits.new_zeros(())
    for label, chosen in neurons.items():
        ratio = log_ratios(logits, without(features, weight, logits, chosen), eps)[:, label].exp()
        apart = torch.linalg.vector_norm(ratio - targets[label])
        total = total + (apart if reduce == "norm" else apart / math.sqrt(len(ratio)))
    return total


def retention_mean(
    features: Tensor, weight: Tensor, logits: Tensor, neurons: Tensor, target: float, eps: float = EPS
) -> Tensor:
    """|mean over images and all classes of r − o|: the form that the paper's code has for Waterbirds.

    Blind where the cut prediction is uniform: r is then K · p_k, whose mean over classes is 1 for any p.
    """
    return (log_ratios(logits, without(features, weight, logits, neurons), eps).exp().mean() - target).abs()


def log_ratio(
    features: Tensor, weight: Tensor, logits: Tensor, neurons: Tensor, target: float, eps: float = EPS
) -> Tensor:
    """Mean over images and classes of (log r − log o)². Our definition, not the paper's.

    Neither blind to opposite changes, as a mean of ratios is, nor ruled by images whose cut probability is almost 0.
    """
    return (log_ratios(logits, without(features, weight, logits, neurons), eps) - math.log(target)).square().mean()


def class_weights(classes: int, edited: Sequence[int]) -> Tensor:
    """`[K]`: 1 for the edited classes, 0.9 for the others (the `cw` ablation of the paper's code)."""
    weights = torch.full((classes,), OTHERS)
    weights[list(edited)] = 1.0
    return weights


def focal(logits: Tensor, labels: Tensor, weights: Tensor, focusing: float = FOCUSING) -> Tensor:
    """Mean over images of α_y · (1 − p_y)^γ · (−log p_y), α = `weights` `[K]` (Lin et al. 2017, equation 5)."""
    likelihood = -F.cross_entropy(logits, labels, reduction="none")
    return -(weights[labels] * (-torch.expm1(likelihood)).pow(focusing) * likelihood).mean()
