"""`matryoshka`: the first latents must do alone, and again with the next ones (Bussmann et al., ICML 2025)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor
from torch.autograd.function import once_differentiable

from aaca.models.sae.bags import Bags
from aaca.models.sae.base import Known, Losses
from aaca.models.sae.batchtopk import BatchTopK, BatchTopKAutoencoder
from aaca.models.sae.fused import pre_activations, product_kind
from aaca.models.sae.topk import finished
from aaca.runtime.errors import ConfigError

Share = Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True, kw_only=True)
class Matryoshka(BatchTopK):
    """BatchTopK codes; L = mean over prefixes of the latents of the error of that prefix alone, plus AuxK.

    General concepts come first and are not absorbed by special ones. (The paper sums over prefixes.)

    Args:
        prefixes: shares of the latents, ascending, the last 1. Default: the paper's 2, 6, 14, 30 and 64 thousand of 64.

    """

    prefixes: list[Share] = field(default_factory=lambda: [1 / 32, 3 / 32, 7 / 32, 15 / 32, 1.0])

    def build(self, known: Known, generator: torch.Generator) -> "MatryoshkaAutoencoder":
        """The autoencoder before training. Raises `ConfigError` where prefixes are not nested or one adds no latent."""
        self.check_k(known)
        ends = self.ends(known.dim)
        if not ends or self.prefixes[-1] != 1 or any(low >= high for low, high in pairwise([0, *ends])):
            raise ConfigError(
                f"sae.model.prefixes: {self.prefixes}; expected ascending shares of the {self.size(known.dim)} latents "
                "that end with 1.0, each with at least one more latent"
            )
        return MatryoshkaAutoencoder(self, known, generator)

    def ends(self, dim: int) -> list[int]:
        """Latents of each prefix."""
        return [round(share * self.size(dim)) for share in self.prefixes]


class MatryoshkaAutoencoder(BatchTopKAutoencoder):
    """See `Matryoshka`."""

    def __init__(self, spec: Matryoshka, known: Known, generator: torch.Generator) -> None:
        super().__init__(spec, known, generator)
        self.ends = spec.ends(known.dim)

    def losses(self, x: Tensor) -> Losses:
        """Mean reconstruction over prefixes, and AuxK of what all leave."""
        with torch.no_grad():
            pre = pre_activations(x, self.encoder, self.encoder_bias, self.bias, product_kind(x))
            rows, columns = self.kept(pre)
            values = pre[rows, columns]
            if self.training:
                self._follow(values)
        fired = torch.zeros(self.latents, dtype=torch.bool, device=x.device)
        fired[columns] = True
        if x.device.type == "cpu":
            weights = (self.encoder, self.encoder_bias, self.dictionary, self.bias)
            squares, residual = NestedCodes.apply(x, *weights, rows, columns, values, self.ends)
        else:
            codes = torch.zeros_like(pre).index_put((rows, columns), self.pre(x)[rows, columns].to(pre.dtype))
            layers = [codes[:, low:high] @ self.dictionary[low:high] for low, high in pairwise([0, *self.ends])]
            residuals = torch.stack(layers, dim=1).to(x.dtype).cumsum(dim=1) + (self.bias - x)[:, None]
            squares, residual = residuals.square().sum() / len(layers), residuals[:, -1]
        return finished(self, x, squares, residual, fired)


class NestedCodes(torch.autograd.Function):
    """(mean over G prefixes of Σ (x̂ − x)², x̂ − x of all latents) of the codes in bags, and their exact gradients.

    A row's bag is split into G, one a layer between two prefixes: a code is in the error of its own prefix and all
    longer ones, so its gradient is that by their sum. Which are kept is not differentiated, nor the second result.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        encoder: Tensor,
        encoder_bias: Tensor,
        dictionary: Tensor,
        bias: Tensor,
        rows: Tensor,
        columns: Tensor,
        values: Tensor,
        ends: Sequence[int],
    ) -> tuple[Tensor, Tensor]:
        """See the class."""
        with torch.autocast(x.device.type, enabled=False):
            layers = len(ends)
            layer = torch.bucketize(columns, torch.tensor(ends), right=True)
            ctx.bags = Bags.of(rows, columns, len(x))
            ctx.nested = Bags.of(rows * layers + layer, columns, len(x) * layers)
            residuals = ctx.nested.decoded(values, dictionary).view(len(x), layers, -1).cumsum(dim=1)
            residuals += (bias - x)[:, None]
            residual = residuals[:, -1].clone()
            ctx.save_for_backward(x, encoder, dictionary, bias, values, residuals)
            ctx.mark_non_differentiable(residual)
            flat = residuals.view(-1)
            return torch.dot(flat, flat) / layers, residual

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_error: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """By encoder, its bias, dictionary and tied bias."""
        x, encoder, dictionary, bias, values, residuals = ctx.saved_tensors
        with torch.autocast(x.device.type, enabled=False):
            slopes = (residuals * (2 * by_error / residuals.shape[1])).flip(1).cumsum(dim=1).flip(1)
            own = slopes.view(-1, x.shape[1])
            by_value = ctx.nested.dots(own, dictionary)
            by_encoder_bias = ctx.bags.summed(by_value, len(encoder))
            by_encoder = ctx.bags.gathered(by_value, x, len(encoder)).addr_(by_encoder_bias, bias, alpha=-1)
            by_bias = slopes[:, 0].sum(dim=0) - encoder.T @ by_encoder_bias
            by_dictionary = ctx.nested.gathered(values, own, len(encoder))
            return None, by_encoder, by_encoder_bias, by_dictionary, by_bias, None, None, None, None
