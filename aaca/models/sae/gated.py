"""`gated`: one half says whether a latent is on, the other how much (Rajamanoharan et al. 2024a, arXiv 2404.16014)."""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from aaca.models.sae.base import Known, Losses, SaeSpec, SparseAutoencoder, start_weights


@dataclass(frozen=True, kw_only=True)
class Gated(SaeSpec):
    """L = squared error + λ · mean of Σ ReLU(π_gate) + squared error of ReLU(π_gate) (section 3.2).

    The last decodes with a frozen copy of dictionary and bias, so that it trains the gates alone; L1 shrinks the gates,
    not the codes.

    Args:
        l1: λ, in units as `relu`'s.

    """

    l1: Annotated[float, Field(ge=0)] = 3e-5

    def build(self, known: Known, generator: torch.Generator) -> "GatedAutoencoder":
        """The autoencoder before training."""
        return GatedAutoencoder(self, known, generator)


class GatedAutoencoder(SparseAutoencoder):
    """z = 1[π_gate > 0] · ReLU(π_mag), π_gate = W_e (x − b) + b_e, π_mag = exp(r) ⊙ W_e (x − b) + b_mag.

    `encoder` and `encoder_bias` are the gate's. `sparsity_scale` times λ is what counts: a trainer may warm it up.
    """

    sparsity_scale = 1.0

    def __init__(self, spec: Gated, known: Known, generator: torch.Generator) -> None:
        super().__init__(spec, start_weights(spec, known, generator))
        self.asked = spec
        self.r_mag = nn.Parameter(torch.zeros(self.latents))
        self.mag_bias = nn.Parameter(self.encoder_bias.detach().clone())

    def _both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        shared = F.linear(x - self.bias, self.encoder).to(x.dtype)
        return shared + self.encoder_bias, self.r_mag.exp() * shared + self.mag_bias

    def encode(self, x: Tensor) -> Tensor:
        """Magnitudes where the gate is open, else 0, `[B, H]`."""
        gate, magnitude = self._both(x)
        return torch.where(gate > 0, magnitude.relu(), 0.0)

    def losses(self, x: Tensor) -> Losses:
        """Reconstruction, L1 of the gates, the gates' own reconstruction."""
        gate, magnitude = self._both(x)
        codes, opened = torch.where(gate > 0, magnitude.relu(), 0.0), gate.relu()
        error = self.scaled((self.decode(codes) - x).square().sum(), x)
        alone = opened @ self.dictionary.detach() + self.bias.detach()
        auxiliary = self.scaled((alone - x).square().sum(), x)
        sparsity = opened.sum() / len(x)
        parts = {"reconstruction": error.detach(), "l1": sparsity.detach(), "gate": auxiliary.detach()}
        total = error + self.sparsity_scale * self.asked.l1 * sparsity + auxiliary
        return Losses(total, parts, codes.detach().amax(dim=0) > 0)

    @torch.no_grad()
    def restart(self, dead: Tensor, directions: Tensor, length: Tensor | float) -> None:
        """See `SparseAutoencoder.restart`; magnitudes as at the start."""
        super().restart(dead, directions, length)
        self.r_mag[dead] = 0.0
        self.mag_bias[dead] = 0.0

    def per_latent(self) -> list[nn.Parameter]:
        """Parameters whose first axis is latents."""
        return [*super().per_latent(), self.r_mag, self.mag_bias]
