"""`topk`: each vector keeps its K largest codes (Makhzani & Frey 2014; Gao et al. 2024)."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from aaca.models.sae.bags import Bags, largest
from aaca.models.sae.base import (
    Dying,
    Init,
    Known,
    Losses,
    Reconstruction,
    SaeSpec,
    SparseAutoencoder,
    Start,
    aux_loss,
    start_weights,
)
from aaca.models.sae.fused import BaggedCodes, pre_activations, product_kind
from aaca.runtime.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TopK(SaeSpec, Dying):
    """No L1: K says how sparse.

    Args:
        k: codes a vector.

    """

    k: Annotated[int, Field(ge=1)] = 32
    init: Init = "transpose"
    init_scale: Annotated[float, Field(gt=0)] = 1.0
    bias: Start = "median"
    reconstruction: Reconstruction = "mse_sum"

    def build(self, known: Known, generator: torch.Generator) -> "TopKAutoencoder":
        """The autoencoder before training."""
        self.check_k(known)
        return TopKAutoencoder(self, known, generator)

    def check_k(self, known: Known) -> None:
        """Raise `ConfigError` where K exceeds the latents."""
        if self.k > self.size(known.dim):
            raise ConfigError(f"sae.model.k: {self.k}; expected at most the {self.size(known.dim)} latents")


class TopKAutoencoder(SparseAutoencoder):
    """See `TopK`. On the CPU nothing but the encoder's product is dense, forward and backward; gradients are exact."""

    def __init__(self, spec: TopK, known: Known, generator: torch.Generator) -> None:
        super().__init__(spec, start_weights(spec, known, generator))
        self.asked = spec

    def encode(self, x: Tensor) -> Tensor:
        """The K largest codes of each vector, none below 0, `[B, H]`."""
        pre = self.pre(x)
        values, columns = largest(pre, self.asked.k)
        return torch.zeros_like(pre).scatter_(1, columns, values.relu())

    def losses(self, x: Tensor) -> Losses:
        """Reconstruction and AuxK."""
        fired = torch.zeros(self.latents, dtype=torch.bool, device=x.device)
        if x.device.type == "cpu":
            with torch.no_grad():
                weights = (self.encoder, self.encoder_bias, self.bias)
                values, columns = largest(pre_activations(x, *weights, product_kind(x)), self.asked.k)
            squares, residual = bagged(self, x, Bags.regular(columns), values.reshape(-1))
        else:
            values, columns = self.pre(x).topk(self.asked.k, sorted=False)
            codes = values.new_zeros(len(x), self.latents).scatter(1, columns, values.relu())
            residual = self.decode(codes) - x
            squares = residual.square().sum()
        fired[columns[values > 0]] = True
        return finished(self, x, squares, residual, fired)


def bagged(sae: SparseAutoencoder, x: Tensor, bags: Bags, values: Tensor) -> tuple[Tensor, Tensor]:
    """(Σ (x̂ − x)², x̂ − x) by `BaggedCodes`."""
    found: tuple[Tensor, Tensor] = BaggedCodes.apply(
        x, sae.encoder, sae.encoder_bias, sae.dictionary, sae.bias, bags, values
    )
    return found


def finished(sae: SparseAutoencoder, x: Tensor, squares: Tensor, residual: Tensor, fired: Tensor) -> Losses:
    """The losses of an autoencoder whose sparsity is given: reconstruction plus AuxK."""
    error = sae.scaled(squares, x)
    parts = {"reconstruction": error.detach()}
    assert isinstance(sae.spec, Dying)
    if not sae.spec.auxk:
        return Losses(error, parts, fired)
    auxiliary = aux_loss(sae, sae.spec, x, -residual)
    return Losses(error + auxiliary, parts | {"auxk": auxiliary.detach()}, fired)
