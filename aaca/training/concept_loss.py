"""The concept loss of Concept Distillation (NeurIPS 2023): how much a gradient at a layer points along a concept."""

from typing import Literal

import torch
from torch import Tensor

Distance = Literal["abs_cos", "sq_cos", "sq_dot"]
FLAT = 1e-12
"""A gradient shorter than this points nowhere: the image is left out of the loss."""
TINY = 1e-12


def concept_loss(
    gradients: Tensor,
    directions: Tensor,
    desensitise: Tensor,
    weights: Tensor | None = None,
    mask: Tensor | None = None,
    distance: Distance = "abs_cos",
) -> Tensor:
    """Weighted mean over images and concepts of |cos(g, v)| (desensitise) or 1 − |cos(g, v)| (sensitise), a scalar.

    0 where nothing counts. The released code sums where this takes means: its λ times batch times concepts is ours. The
    arguments are those of `concept_terms`.
    """
    found, total = concept_terms(gradients, directions, desensitise, weights, mask, distance)
    return found / total.clamp(min=TINY)


def concept_terms(
    gradients: Tensor,
    directions: Tensor,
    desensitise: Tensor,
    weights: Tensor | None = None,
    mask: Tensor | None = None,
    distance: Distance = "abs_cos",
) -> tuple[Tensor, Tensor]:
    """(weighted sum of the terms of `concept_loss`, sum of the weights that count), scalars.

    `gradients` `[B, D]`: of a prototype loss or of logits by the activations; `directions` `[P, D]`: concept vectors;
    `desensitise` bool `[P]`; `weights` `[P]`; `mask` bool `[B, P]`: which concepts count for which image (None: all).
    `sq_cos`: cos²; `sq_dot`: (g·v)² (RR-ClArC), which has no sensitising side.
    """
    if distance == "sq_dot" and not bool(desensitise.all()):
        raise ValueError("distance sq_dot knows no largest value; expected abs_cos or sq_cos to sensitise")
    dots = gradients @ directions.T
    lengths = gradients.norm(dim=1, keepdim=True)
    counts = (lengths > FLAT).expand_as(dots)
    if distance == "sq_dot":
        found = dots.square()
    else:
        cosines = dots / (lengths.clamp(min=FLAT) * directions.norm(dim=1).clamp(min=FLAT))
        found = cosines.abs() if distance == "abs_cos" else cosines.square()
        found = torch.where(desensitise, found, 1 - found)
    if mask is not None:
        counts = counts & mask
    share = counts.to(found.dtype) if weights is None else counts * weights
    return (found * share).sum(), share.sum()


def prototype_gradients(activations: Tensor, centres: Tensor, labels: Tensor, k: int) -> Tensor:
    """∂ L_p / ∂ a `[B, D]` in closed form; L_p = Σ_k mean_d (a − P_yk)² over the K prototypes of a class.

    It is (2K/D)(a − P̄_y), P̄ `[C, D]` the `centres`: no second backward pass is needed. `k` = 0 leaves the factor out,
    which a cosine does not see.
    """
    found = activations - centres[labels]
    return found * (2 * k / activations.shape[1]) if k else found


def logit_gradients_at(logits: Tensor, activation: Tensor, signs: Tensor) -> Tensor:
    """∂ (signs · logits) / ∂ activation, of the activation's shape, to be differentiated again.

    `signs` `[B, C]`: one-hot for the target class's logit, random ±1 for `random_sign` (RR-ClArC).
    """
    (gradient,) = torch.autograd.grad((logits * signs).sum(), activation, create_graph=True)
    return gradient
