"""Squared error and L1 of an autoencoder with their exact gradients, in as few passes over the codes as there can be.

The tied bias b takes no product of its own: ∂L/∂b = Σ ∂x̂ − W_eᵀ Σ ∂pre, so the gradient by the inputs is never made
(five products a step instead of six). Sparse codes are decoded and differentiated as bags.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from aaca.models.sae.bags import Bags

SPARSE = 0.04
"""Share of non-zero codes below which bags beat dense products (measured on one core: `make bench`)."""

COUNTED = 64
"""Rows of a batch by which that share is judged: to count them all would take a tenth of a dense step."""


def pre_activations(x: Tensor, encoder: Tensor, encoder_bias: Tensor, bias: Tensor, kind: torch.dtype) -> Tensor:
    """(x − b) W_eᵀ + b_e, `[B, H]` float32; the product in `kind`."""
    shift = encoder_bias - encoder @ bias
    if kind == x.dtype:
        return torch.addmm(shift, x, encoder.T)
    return (x.to(kind) @ encoder.to(kind).T).float().add_(shift)


def product_kind(x: Tensor) -> torch.dtype:
    """The type of products: that of autocast where it is on, else the vectors' own."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def _product(left: Tensor, right: Tensor, kind: torch.dtype) -> Tensor:
    return left @ right if kind == left.dtype else (left.to(kind) @ right.to(kind)).float()


def are_sparse(codes: Tensor) -> bool:
    """Whether codes `[B, H]` are worth taking as bags, by the first of them; either way gives the same numbers."""
    some = codes[:COUNTED]
    return int(torch.count_nonzero(some)) < SPARSE * some.numel()


class ReluCodes(torch.autograd.Function):
    """(Σ (x̂ − x)², Σ z, fired bool `[H]`) of z = ReLU((x − b) W_eᵀ + b_e), x̂ = z D + b; x `[B, D]`."""

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any, x: Tensor, encoder: Tensor, encoder_bias: Tensor, dictionary: Tensor, bias: Tensor, kind: torch.dtype
    ) -> tuple[Tensor, Tensor, Tensor]:
        with torch.autocast(x.device.type, enabled=False):
            codes = pre_activations(x, encoder, encoder_bias, bias, kind).relu_()
            total, fired = codes.sum(), codes.amax(dim=0) > 0
            ctx.bags, ctx.kind = None, kind
            if x.device.type == "cpu" and are_sparse(codes):
                rows, latents = torch.nonzero(codes, as_tuple=True)
                ctx.bags, codes = Bags.of(rows, latents, len(x)), codes[rows, latents]
                residual = ctx.bags.decoded(codes, dictionary).add_(bias).sub_(x)
            elif kind == x.dtype:
                residual = torch.addmm(bias, codes, dictionary).sub_(x)
            else:
                residual = _product(codes, dictionary, kind).add_(bias).sub_(x)
            ctx.save_for_backward(x, encoder, dictionary, bias, codes, residual)
            ctx.mark_non_differentiable(fired)
            flat = residual.view(-1)
            return torch.dot(flat, flat), total, fired

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_error: Tensor, by_l1: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        x, encoder, dictionary, bias, codes, residual = ctx.saved_tensors
        with torch.autocast(x.device.type, enabled=False):
            slope = residual * (2 * by_error)
            if ctx.bags is not None:
                gradients = bag_gradients(ctx.bags, x, encoder, dictionary, bias, codes, slope, by_l1)
            else:
                by_dictionary = _product(codes.T, slope, ctx.kind)
                by_pre = _product(slope, dictionary.T, ctx.kind).add_(by_l1)
                by_pre = torch.ops.aten.threshold_backward(by_pre, codes, 0)
                by_encoder_bias = by_pre.sum(dim=0)
                by_encoder = _product(by_pre.T, x, ctx.kind).addr_(by_encoder_bias, bias, alpha=-1)
                by_bias = slope.sum(dim=0) - encoder.T @ by_encoder_bias
                gradients = by_encoder, by_encoder_bias, by_dictionary, by_bias
        return None, *gradients, None


def bag_gradients(
    bags: Bags,
    x: Tensor,
    encoder: Tensor,
    dictionary: Tensor,
    bias: Tensor,
    codes: Tensor,
    slope: Tensor,
    by_l1: Tensor | float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """By encoder, its bias, dictionary and tied bias; `slope` `[B, D]`: by x̂; `codes` `[M]`: 0 where not on."""
    by_value = (bags.dots(slope, dictionary) + by_l1) * (codes > 0)
    by_encoder_bias = bags.summed(by_value, len(encoder))
    by_encoder = bags.gathered(by_value, x, len(encoder)).addr_(by_encoder_bias, bias, alpha=-1)
    by_bias = slope.sum(dim=0) - encoder.T @ by_encoder_bias
    return by_encoder, by_encoder_bias, bags.gathered(codes, slope, len(encoder)), by_bias


class BaggedCodes(torch.autograd.Function):
    """(Σ (x̂ − x)², x̂ − x) of codes that are in bags alone; `values` `[M]` are their pre-activations, below 0: off.

    Which latents are in the bags is not differentiated, nor is the second result.
    """

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any,
        x: Tensor,
        encoder: Tensor,
        encoder_bias: Tensor,
        dictionary: Tensor,
        bias: Tensor,
        bags: Bags,
        values: Tensor,
    ) -> tuple[Tensor, Tensor]:
        with torch.autocast(x.device.type, enabled=False):
            codes = values.relu()
            residual = bags.decoded(codes, dictionary).add_(bias).sub_(x)
            ctx.bags = bags
            ctx.save_for_backward(x, encoder, dictionary, bias, codes, residual)
            ctx.mark_non_differentiable(residual)
            flat = residual.view(-1)
            return torch.dot(flat, flat), residual

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_error: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        x, encoder, dictionary, bias, codes, residual = ctx.saved_tensors
        with torch.autocast(x.device.type, enabled=False):
            slope = residual * (2 * by_error)
            return None, *bag_gradients(ctx.bags, x, encoder, dictionary, bias, codes, slope, 0.0), None, None
