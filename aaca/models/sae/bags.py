"""Sparse codes of a batch as bags (which latents, how strongly), and products with them that touch nothing else.

On the CPU each is one pass of torch's own embedding-bag kernels, exact in forward and backward.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SUM = 0  # torch's number of the mode "sum"


@dataclass(frozen=True)
class Bags:
    """The M non-zero codes of a batch: `latents` `[M]`, `offsets` `[B]` of each row's first, `rows` `[M]`."""

    latents: Tensor
    offsets: Tensor
    rows: Tensor

    @classmethod
    def regular(cls, latents: Tensor) -> "Bags":
        """K latents in every row, `[B, K]`."""
        batch, k = latents.shape
        rows = torch.arange(batch, device=latents.device)
        return cls(latents.reshape(-1), rows * k, rows.repeat_interleave(k))

    @classmethod
    def of(cls, rows: Tensor, latents: Tensor, batch: int) -> "Bags":
        """Any number in a row; `rows` ascend."""
        sizes = torch.bincount(rows, minlength=batch)
        return cls(latents, sizes.cumsum(0) - sizes, rows)

    def decoded(self, values: Tensor, dictionary: Tensor) -> Tensor:
        """Σ over a row's bag of value times its row of the dictionary `[H, D]`: `[B, D]`."""
        return F.embedding_bag(self.latents, dictionary, self.offsets, mode="sum", per_sample_weights=values)

    def dots(self, vectors: Tensor, dictionary: Tensor) -> Tensor:
        """`vectors` `[B, D]` of each code's row times its latent's row of the dictionary: `[M]`."""
        found: Tensor = torch.ops.aten._embedding_bag_per_sample_weights_backward(
            vectors, dictionary, self.latents, self.offsets, self.rows, SUM
        )
        return found

    def gathered(self, values: Tensor, vectors: Tensor, latents: int) -> Tensor:
        """Codesᵀ times `vectors` `[B, D]`: `[latents, D]`."""
        empty = self.latents.new_zeros(0)
        sizes = torch.diff(self.offsets, append=self.offsets.new_tensor([len(self.latents)]))
        found: Tensor = torch.ops.aten._embedding_bag_dense_backward(
            vectors, self.latents, self.rows, sizes, empty, latents, False, SUM, values
        )
        return found

    def summed(self, values: Tensor, latents: int) -> Tensor:
        """Σ of a latent's values: `[latents]`."""
        return values.new_zeros(latents).index_add_(0, self.latents, values)

    def dense(self, values: Tensor, latents: int) -> Tensor:
        """Codes `[B, latents]`."""
        codes = values.new_zeros(len(self.offsets), latents)
        codes[self.rows, self.latents] = values
        return codes


def largest(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """(values, columns), both `[B, K]` in any order, of each row's K largest of `values` `[B, H]`.

    Exact in two rounds: a row's K largest lie in the K of its groups of columns whose largest are largest. A third of
    the time of one round, where H is much more than K.
    """
    batch, width = values.shape
    members = group_size(width, k)
    if members == 1 or values.device.type != "cpu":
        return values.topk(k, sorted=False)
    groups = width // members
    best = values.view(batch, members, groups).amax(dim=1).topk(k, sorted=False).indices
    columns = (best[:, None, :] + torch.arange(members).view(1, -1, 1) * groups).view(batch, -1)
    found, place = values.gather(1, columns).topk(k, sorted=False)
    return found, columns.gather(1, place)


def group_size(width: int, k: int) -> int:
    """Columns of a group: the power of two nearest below √(width / k) that divides the width; 1: not worth it."""
    size = 1
    while 4 * size * size * k <= width and width % (2 * size) == 0:
        size *= 2
    return size
