"""`archetypal`: concepts stay near the data: mixtures of anchors plus a little (RA-SAE, Fel et al., ICML 2025)."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from aaca.models.sae.bags import Bags, largest
from aaca.models.sae.base import TINY, Known, Losses, Reconstruction, SaeSpec, SparseAutoencoder, Start, start_weights
from aaca.models.sae.fused import BaggedCodes, pre_activations, product_kind
from aaca.runtime.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Archetypal(SaeSpec):
    """D = W C + Λ: rows of W not negative with sum 1, rows of Λ no longer than δ (equation 4); TopK codes.

    Args:
        k: codes a vector.
        anchors: rows of C: centroids (k-means) of the data less the tied bias's start.
        delta: δ, in units of the vectors; 0: concepts are in the convex hull of the anchors.

    """

    k: Annotated[int, Field(ge=1)] = 32
    anchors: Annotated[int, Field(ge=2)] = 1024
    delta: Annotated[float, Field(ge=0)] = 1.0
    init_scale: Annotated[float, Field(gt=0)] = 1.0
    bias: Start = "median"
    reconstruction: Reconstruction = "mse_sum"

    def build(self, known: Known, generator: torch.Generator) -> "ArchetypalAutoencoder":
        """The autoencoder before training. Raises `ConfigError` for more K than latents, more anchors than data."""
        if self.k > self.size(known.dim):
            raise ConfigError(f"sae.model.k: {self.k}; expected at most the {self.size(known.dim)} latents")
        if self.anchors > len(known.sample):
            raise ConfigError(
                f"sae.model.anchors: {self.anchors}; expected at most the sample's {len(known.sample)} vectors"
            )
        return ArchetypalAutoencoder(self, known, generator)


def centroids(sample: Tensor, count: int, seed: int) -> Tensor:
    """K-means centroids `[count, D]` of vectors `[N, D]`; as many as vectors: the vectors themselves."""
    if len(sample) == count:
        return sample.clone()
    from sklearn.cluster import MiniBatchKMeans

    means = MiniBatchKMeans(count, random_state=seed, n_init=1, batch_size=4096).fit(sample.numpy())
    return torch.from_numpy(np.asarray(means.cluster_centers_)).to(sample.dtype)


def mixtures(latents: int, anchors: int, generator: torch.Generator) -> Tensor:
    """Where W `[latents, anchors]` starts: an anchor a row; after the last anchor 0.8 of one and 0.2 of another."""
    rows = torch.arange(latents)
    found = torch.zeros(latents, anchors)
    found[rows, rows % anchors] = 1.0
    again = rows[anchors:]
    other = (again + torch.randint(1, anchors, (len(again),), generator=generator)) % anchors
    found[again, again % anchors] = 0.8
    found[again, other] = 0.2
    return found


class ArchetypalAutoencoder(SparseAutoencoder):
    """See `Archetypal`: W is `mixture`, Λ is `relaxation`; there is no `dictionary`, only `atoms`.

    `renormalise` after an update brings both back into their bounds. An encoder that starts as `transpose` or
    `datapoint` has row a / ‖a‖² for atom a, times `init_scale`: code 1 for the atom itself.
    """

    unit = False
    anchors: Tensor

    def __init__(self, spec: Archetypal, known: Known, generator: torch.Generator) -> None:
        weights = start_weights(spec, known, generator)
        super().__init__(spec, weights)
        del self.dictionary
        self.asked = spec
        seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
        points = centroids(known.sample, spec.anchors, seed) - weights.bias
        self.register_buffer("anchors", points)
        self.mixture = nn.Parameter(mixtures(len(weights.encoder), spec.anchors, generator))
        self.relaxation = nn.Parameter(torch.zeros_like(weights.encoder))
        if spec.init in ("transpose", "datapoint"):
            atoms = self.atoms.detach()
            self.encoder.data = spec.init_scale * atoms / atoms.square().sum(dim=1, keepdim=True).clamp(min=TINY)

    @property
    def latents(self) -> int:
        """H."""
        return len(self.mixture)

    @property
    def atoms(self) -> Tensor:
        """The concepts' directions `[H, D]`, of any length."""
        return self.mixture @ self.anchors + self.relaxation

    def encode(self, x: Tensor) -> Tensor:
        """The K largest codes of each vector, none below 0, `[B, H]`."""
        pre = self.pre(x)
        values, columns = largest(pre, self.asked.k)
        return torch.zeros_like(pre).scatter_(1, columns, values.relu())

    def losses(self, x: Tensor) -> Losses:
        """Reconstruction."""
        if x.device.type == "cpu":
            with torch.no_grad():
                pre = pre_activations(x, self.encoder, self.encoder_bias, self.bias, product_kind(x))
                values, columns = largest(pre, self.asked.k)
            weights = (self.encoder, self.encoder_bias, self.atoms.to(x.dtype), self.bias)
            squares, _ = BaggedCodes.apply(x, *weights, Bags.regular(columns), values.reshape(-1))
        else:
            values, columns = self.pre(x).topk(self.asked.k, sorted=False)
            codes = values.new_zeros(len(x), self.latents).scatter(1, columns, values.relu())
            squares = (self.decode(codes) - x).square().sum()
        fired = torch.zeros(self.latents, dtype=torch.bool, device=x.device)
        fired[columns[values > 0]] = True
        error = self.scaled(squares, x)
        return Losses(error, {"reconstruction": error.detach()}, fired)

    @torch.no_grad()
    def project_gradient(self) -> None:
        """Nothing: atoms have any length."""

    @torch.no_grad()
    def renormalise(self) -> None:
        """Rows of W not negative with sum 1, rows of Λ no longer than δ."""
        mixture = self.mixture
        # a row with nothing above 0 keeps its largest anchor
        mixture.sub_((mixture.amax(dim=1, keepdim=True) - TINY).clamp(max=0)).clamp_(min=0)
        mixture.div_(mixture.sum(dim=1, keepdim=True))
        lengths = torch.linalg.vector_norm(self.relaxation, dim=1, keepdim=True).clamp(min=TINY)
        self.relaxation.mul_((self.asked.delta / lengths).clamp(max=1))

    @torch.no_grad()
    def restart(self, dead: Tensor, directions: Tensor, length: Tensor | float) -> None:
        """See `SparseAutoencoder.restart`; a dictionary's row becomes the anchor that points most along a direction."""
        nearest = (directions @ torch.nn.functional.normalize(self.anchors, dim=1).T).argmax(dim=1)
        self.mixture[dead] = torch.nn.functional.one_hot(nearest, len(self.anchors)).to(self.mixture)
        self.relaxation[dead] = 0.0
        self.encoder[dead] = directions * length
        self.encoder_bias[dead] = 0.0
        self.since_fired[dead] = 0

    def per_latent(self) -> list[nn.Parameter]:
        """Parameters whose first axis is latents."""
        return [self.encoder, self.encoder_bias, self.mixture, self.relaxation]
