"""`batchtopk`: a batch keeps its K · B largest codes, a vector more or fewer of them (Bussmann et al. 2024)."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from aaca.models.sae.bags import Bags
from aaca.models.sae.base import Known, Losses
from aaca.models.sae.fused import pre_activations, product_kind
from aaca.models.sae.topk import TopK, TopKAutoencoder, bagged, finished

SLACK = 0.8
"""Share of the running threshold below which no code of the next batch is expected to be kept; checked, not assumed."""


@dataclass(frozen=True, kw_only=True)
class BatchTopK(TopK):
    """After training, codes above a threshold: the running mean of the smallest code kept.

    Args:
        keep: share of the old threshold in the new one.

    """

    keep: Annotated[float, Field(ge=0, lt=1)] = 0.99

    def build(self, known: Known, generator: torch.Generator) -> "BatchTopKAutoencoder":
        """The autoencoder before training."""
        self.check_k(known)
        return BatchTopKAutoencoder(self, known, generator)


class BatchTopKAutoencoder(TopKAutoencoder):
    """See `BatchTopK`. The threshold is in its state."""

    threshold: Tensor

    def __init__(self, spec: BatchTopK, known: Known, generator: torch.Generator) -> None:
        super().__init__(spec, known, generator)
        self.batch = spec
        self.register_buffer("threshold", torch.tensor(-1.0))  # below 0: not known yet

    def encode(self, x: Tensor) -> Tensor:
        """Codes above the threshold, `[B, H]`; before any training, ReLU codes."""
        codes = self.pre(x).relu()
        return torch.where(codes > self.threshold, codes, 0.0)

    def losses(self, x: Tensor) -> Losses:
        """Reconstruction and AuxK of the K · B largest codes."""
        with torch.no_grad():
            pre = pre_activations(x, self.encoder, self.encoder_bias, self.bias, product_kind(x))
            rows, columns = self.kept(pre)
            values = pre[rows, columns]
            if self.training:
                self._follow(values)
        fired = torch.zeros(self.latents, dtype=torch.bool, device=x.device)
        fired[columns] = True
        if x.device.type == "cpu":
            squares, residual = bagged(self, x, Bags.of(rows, columns, len(x)), values)
        else:
            codes = torch.zeros_like(pre).index_put((rows, columns), self.pre(x)[rows, columns].to(pre.dtype))
            residual = self.decode(codes) - x
            squares = residual.square().sum()
        return finished(self, x, squares, residual, fired)

    def kept(self, pre: Tensor) -> tuple[Tensor, Tensor]:
        """(rows, columns) of the K · B largest positive pre-activations `[B, H]`, in order of rows."""
        most = self.asked.k * len(pre)
        if pre.device.type != "cpu":  # to read the threshold would wait for the device
            return batch_largest(pre, most)
        for floor in (SLACK * float(self.threshold), 0.0):
            rows, columns = torch.nonzero(pre > max(floor, 0.0), as_tuple=True)
            if len(rows) >= most or floor <= 0:
                break
        if len(rows) > most:
            best = pre[rows, columns].topk(most, sorted=False).indices.sort().values
            rows, columns = rows[best], columns[best]
        return rows, columns

    def _follow(self, values: Tensor) -> None:
        if not len(values):
            return
        smallest = values.min()
        old = self.threshold
        self.threshold.copy_(torch.where(old < 0, smallest, self.batch.keep * old + (1 - self.batch.keep) * smallest))


def batch_largest(pre: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """(rows, columns) of the `most` largest positive values of `[B, H]`, in order of rows, in one pass."""
    best = pre.flatten().topk(most, sorted=False)
    places = best.indices[best.values > 0].sort().values
    return places // pre.shape[1], places % pre.shape[1]
