"""The concept loss of Concept Distillation (NeurIPS 2023): how much a gradient at a layer points along a concept."""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

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
    counts = torch.ones(1, 1, dtype=torch.bool, device=gradients.device) if mask is None else mask
    share = counts.to(gradients.dtype) if weights is None else counts * weights
    found, total = _Terms.apply(gradients, directions, desensitise, share, distance)
    return found, total


class _Terms(torch.autograd.Function):
    """The sums of `concept_terms`, and their gradient by the gradients in one product and one scaled sum.

    With s = g·v/(|g||v|): ∂s/∂g = v/(|g||v|) − s·g/|g|². The directions are constants.
    """

    @staticmethod
    def forward(
        ctx: Any, gradients: Tensor, directions: Tensor, desensitise: Tensor, share: Tensor, distance: Distance
    ) -> tuple[Tensor, Tensor]:
        dots = gradients @ directions.T
        lengths = torch.linalg.vector_norm(gradients, dim=1, keepdim=True)
        share = share * (lengths > FLAT)
        if distance == "sq_dot":
            found, by_dot, by_gradient = dots.square(), 2 * dots * share, None
        else:
            lengths = lengths.clamp(min=FLAT)
            scale = 1 / (lengths * torch.linalg.vector_norm(directions, dim=1).clamp(min=FLAT))
            cosines = dots * scale
            signs = torch.where(desensitise, 1.0, -1.0) * share
            if distance == "abs_cos":
                found, slope = cosines.abs(), cosines.sign() * signs
            else:
                found, slope = cosines.square(), 2 * cosines * signs
            found = torch.where(desensitise, found, 1 - found)
            by_dot, by_gradient = slope * scale, -(slope * cosines).sum(dim=1, keepdim=True) / lengths.square()
        total = share.expand_as(dots).sum()
        ctx.save_for_backward(gradients, directions, by_dot, by_gradient)
        ctx.mark_non_differentiable(total)
        return (found * share).sum(), total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        gradients, directions, by_dot, by_gradient = ctx.saved_tensors
        own = None if by_gradient is None else gradients * (by_gradient * upstream)
        asked = by_dot * upstream
        return (asked @ directions if own is None else own.addmm_(asked, directions), None, None, None, None)


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
