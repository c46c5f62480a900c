"""`relu`: the autoencoder of DN-CBM: ReLU codes, mean squared error plus L1 (Rao et al., ECCV 2024; Bricken et al.)."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from aaca.models.sae.base import Init, Known, Losses, SaeSpec, SparseAutoencoder, start_weights
from aaca.models.sae.fused import ReluCodes, product_kind


@dataclass(frozen=True, kw_only=True)
class Relu(SaeSpec):
    """L = squared error + λ · mean over vectors of Σ z.

    Args:
        l1: λ. Beside a mean over dimensions (`mse_mean`, DN-CBM) it is D times smaller than beside a sum.
        decoder: `unit` rows, or `free` ones with λ Σ z_j ‖d_j‖ (Anthropic, April 2024).
        alignment: C of − C · mean ⟨z/‖z‖, v⟩, v each latent's best cosine with a word (Byrman et al., TMLR 2025); the
            trainer gives v (`align_to`).

    """

    l1: Annotated[float, Field(ge=0)] = 3e-5
    init: Init = "dncbm"
    decoder: Literal["unit", "free"] = "unit"
    alignment: Annotated[float, Field(ge=0)] = 0.0

    def build(self, known: Known, generator: torch.Generator) -> "ReluAutoencoder":
        """The autoencoder before training."""
        return ReluAutoencoder(self, known, generator)


class ReluAutoencoder(SparseAutoencoder):
    """See `Relu`. Its codes and gradients are made in the fewest passes: dense, or as bags once they are sparse."""

    words: Tensor

    def __init__(self, spec: Relu, known: Known, generator: torch.Generator) -> None:
        super().__init__(spec, start_weights(spec, known, generator))
        self.asked = spec
        self.unit = spec.decoder == "unit"
        self.register_buffer("words", torch.zeros(self.latents))

    def encode(self, x: Tensor) -> Tensor:
        """ReLU codes `[B, H]`."""
        return self.pre(x).relu()

    def align_to(self, best: Tensor) -> None:
        """Each latent's best cosine with a word, `[H]`, for the alignment loss."""
        self.words.copy_(best)

    def losses(self, x: Tensor) -> Losses:
        """Reconstruction, L1, maybe alignment."""
        if self.unit and not self.asked.alignment:
            weights = (self.encoder, self.encoder_bias, self.dictionary, self.bias)
            squares, total, fired = ReluCodes.apply(x, *weights, product_kind(x))
            sparsity = total / len(x)
            extra = x.new_zeros(())
        else:
            codes = self.encode(x)
            fired = codes.detach().amax(dim=0) > 0
            squares = (self.decode(codes) - x).square().sum()
            lengths = torch.ones_like(self.words) if self.unit else self.dictionary.norm(dim=1)
            sparsity = (codes @ lengths).mean()
            cosines = (codes @ self.words) / codes.norm(dim=1).clamp(min=1e-8)
            extra = -self.asked.alignment * cosines.mean()
        error = self.scaled(squares, x)
        parts = {"reconstruction": error.detach(), "l1": sparsity.detach()}
        if self.asked.alignment:
            parts["alignment"] = extra.detach()
        return Losses(error + self.sparsity_scale * self.asked.l1 * sparsity + extra, parts, fired)
