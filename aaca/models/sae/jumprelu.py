"""`jumprelu`: a code counts from its own learned threshold on (Rajamanoharan et al. 2024b, arXiv 2407.14435)."""

import math
from dataclasses import dataclass
from math import log
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from aaca.models.sae.base import Known, Losses, Reconstruction, SaeSpec, SparseAutoencoder, start_weights


@dataclass(frozen=True, kw_only=True)
class JumpRelu(SaeSpec):
    """L = squared error + λ · mean number of codes that are on.

    Threshold and bandwidth are in units of pre-activations, here for vectors of mean squared length 1. The paper's
    0.001 of both are for billions of vectors: within a few hundred updates no threshold moves.

    Args:
        l0: λ.
        threshold: where each latent's threshold θ starts; log θ is learned, so θ stays above 0.
        bandwidth: ε: only pre-activations nearer to θ than ε / 2 move it.

    """

    l0: Annotated[float, Field(ge=0)] = 1e-2
    threshold: Annotated[float, Field(gt=0)] = 0.05
    bandwidth: Annotated[float, Field(gt=0)] = 0.05
    reconstruction: Reconstruction = "mse_sum"

    def build(self, known: Known, generator: torch.Generator) -> "JumpReluAutoencoder":
        """The autoencoder before training."""
        return JumpReluAutoencoder(self, known, generator)


class Jump(torch.autograd.Function):
    """(z = π where π > θ else 0, how many are on) of pre-activations π `[B, H]` and thresholds θ `[H]`.

    By π the gradient is that of z alone, 1 where on. By θ neither has one; the pseudo-derivatives are −θ/ε of z and
    −1/ε of the count where |π − θ| < ε/2, else 0 (the paper's rectangle kernel).
    """

    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float) -> tuple[Tensor, Tensor]:
        """See the class."""
        on = pre > threshold
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return torch.where(on, pre, 0.0), on.sum().to(pre.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_codes: Tensor, by_count: Tensor) -> tuple[Tensor, Tensor, None]:
        """By π and θ."""
        pre, threshold = ctx.saved_tensors
        near = (pre - threshold).abs() < ctx.bandwidth / 2
        by_threshold = (near * (threshold * by_codes + by_count)).sum(dim=0) / -ctx.bandwidth
        return by_codes * (pre > threshold), by_threshold, None


class JumpReluAutoencoder(SparseAutoencoder):
    """See `JumpRelu`. `sparsity_scale` times λ is what counts: a trainer may warm it up."""

    sparsity_scale = 1.0

    def __init__(self, spec: JumpRelu, known: Known, generator: torch.Generator) -> None:
        super().__init__(spec, start_weights(spec, known, generator))
        self.asked = spec
        self.log_threshold = nn.Parameter(torch.full((self.latents,), log(spec.threshold)))

    @property
    def threshold(self) -> Tensor:
        """Θ `[H]`."""
        return self.log_threshold.exp()

    def encode(self, x: Tensor) -> Tensor:
        """Pre-activations above their threshold, else 0, `[B, H]`."""
        pre = self.pre(x)
        return torch.where(pre > self.threshold, pre, 0.0)

    def losses(self, x: Tensor) -> Losses:
        """Reconstruction and L0."""
        codes, count = Jump.apply(self.pre(x).to(x.dtype), self.threshold, self.asked.bandwidth)
        error = self.scaled((self.decode(codes) - x).square().sum(), x)
        sparsity = count / len(x)
        parts = {"reconstruction": error.detach(), "l0": sparsity.detach()}
        fired = codes.detach().amax(dim=0) > 0
        return Losses(error + self.sparsity_scale * self.asked.l0 * sparsity, parts, fired)

    @torch.no_grad()
    def restart(self, dead: Tensor, directions: Tensor, length: Tensor | float) -> None:
        """See `SparseAutoencoder.restart`; thresholds as at the start."""
        super().restart(dead, directions, length)
        self.log_threshold[dead] = math.log(self.asked.threshold)

    def per_latent(self) -> list[nn.Parameter]:
        """Parameters whose first axis is latents."""
        return [*super().per_latent(), self.log_threshold]
