"""`SparseAutoencoder` and `SaeSpec`, the role of the `sae` config group."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from aaca.runtime.errors import ConfigError

Init = Literal["dncbm", "kaiming", "transpose", "datapoint"]
Start = Literal["zeros", "mean", "median"]
Reconstruction = Literal["mse_mean", "mse_sum", "fvu"]
RENEW = 32  # updates between two looks at which latents are dead: each costs a wait for the device
TINY = 1e-12


@dataclass(frozen=True)
class Known:
    """Of the vectors before training: their size D, mean and geometric median `[D]`, a sample `[N, D]`."""

    dim: int
    mean: Tensor
    median: Tensor
    sample: Tensor


@dataclass(frozen=True)
class Losses:
    """`total` to minimise; `parts`: named scalars, detached; `fired`: which latents the batch had on, bool `[H]`."""

    total: Tensor
    parts: dict[str, Tensor]
    fired: Tensor


@dataclass(frozen=True, kw_only=True)
class SaeSpec(ABC):
    """What all autoencoders share.

    Args:
        expansion: latents a dimension.
        latents: how many instead.
        init: of the encoder: `dncbm` (Kaiming on the released code's 3-d tensor: √H smaller than it should be),
            `kaiming`, `transpose` (the dictionary's own rows, times `init_scale`), `datapoint` (the dictionary too,
            from vectors of the data).
        init_scale: see there.
        bias: where the tied bias starts.
        reconstruction: squared error, mean or sum over dimensions, or over the batch's variance (fvu).

    """

    expansion: Annotated[int, Field(ge=1)] = 8
    latents: Annotated[int, Field(ge=1)] | None = None
    init: Init = "transpose"
    init_scale: Annotated[float, Field(gt=0)] = 0.1
    bias: Start = "zeros"
    reconstruction: Reconstruction = "mse_mean"

    def size(self, dim: int) -> int:
        """Latents H for vectors of that size."""
        return self.latents or self.expansion * dim

    @abstractmethod
    def build(self, known: Known, generator: torch.Generator) -> "SparseAutoencoder":
        """The autoencoder before training."""

    @property
    def name(self) -> str:
        """Of the class, for tables."""
        return type(self).__name__.lower()


@dataclass(frozen=True, kw_only=True)
class Dying:
    """AuxK (Gao et al. 2024): dead latents learn to reconstruct what the living leave.

    Args:
        auxk: weight of its loss over the residual's variance; 0: none.
        auxk_latents: how many dead ones a row may use; None: half the dimensions.
        dead_after: vectors without firing after which a latent is dead.

    """

    auxk: Annotated[float, Field(ge=0)] = 1 / 32
    auxk_latents: Annotated[int, Field(ge=1)] | None = None
    dead_after: Annotated[int, Field(ge=1)] = 1_000_000


@dataclass(frozen=True)
class Weights:
    """Start weights: encoder `[H, D]`, its bias `[H]`, dictionary (unit rows) `[H, D]`, tied bias `[D]`."""

    encoder: Tensor
    encoder_bias: Tensor
    dictionary: Tensor
    bias: Tensor


def start_weights(spec: SaeSpec, known: Known, generator: torch.Generator) -> Weights:
    """Drawn as `spec` says. Raises `ConfigError` where a datapoint start has no data."""
    dim, latents = known.dim, spec.size(known.dim)
    dictionary = F.normalize(torch.randn(latents, dim, generator=generator), dim=1)
    if spec.init == "datapoint":
        if not len(known.sample):
            raise ConfigError("sae.model.init: datapoint needs vectors to start from; expected transpose")
        rows = torch.randint(len(known.sample), (latents,), generator=generator)
        points = known.sample[rows] - known.mean
        dictionary = F.normalize(0.8 * F.normalize(points, dim=1) + 0.2 * dictionary, dim=1)  # never two alike
    encoder_bias = torch.zeros(latents)
    if spec.init in ("dncbm", "kaiming"):
        fan = dim * latents if spec.init == "dncbm" else dim
        encoder = _uniform((latents, dim), (6 / fan) ** 0.5, generator)
        if spec.init == "dncbm":
            encoder_bias = _uniform((latents,), latents**-0.5, generator)
    else:
        encoder = spec.init_scale * dictionary
    starts = {"zeros": torch.zeros(dim), "mean": known.mean, "median": known.median}
    return Weights(encoder.clone(), encoder_bias, dictionary.clone(), starts[spec.bias].clone())


def _uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator) -> Tensor:
    return (2 * torch.rand(shape, generator=generator) - 1) * bound


class SparseAutoencoder(nn.Module, ABC):
    """z = activation((x − b) W_eᵀ + b_e), x̂ = z D + b: encoder W_e `[H, D]`, dictionary D `[H, D]` (a row a concept).

    Unless a subclass says otherwise (`unit`), the rows of the dictionary have length 1: `project_gradient` before an
    update and `renormalise` after it keep them so (Bricken et al. 2023).
    """

    unit = True
    sparsity_scale = 1.0  # what the trainer multiplies the penalty with while it warms up
    since_fired: Tensor

    def __init__(self, spec: SaeSpec, weights: Weights) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = nn.Parameter(weights.encoder)
        self.encoder_bias = nn.Parameter(weights.encoder_bias)
        self.dictionary = nn.Parameter(weights.dictionary)
        self.bias = nn.Parameter(weights.bias)
        self.register_buffer("since_fired", torch.zeros(len(weights.encoder), dtype=torch.long))
        self.updates = 0
        self.dead = torch.zeros(0, dtype=torch.long)

    @property
    def latents(self) -> int:
        """H."""
        return len(self.dictionary)

    @property
    def atoms(self) -> Tensor:
        """The concepts' directions `[H, D]`, as they decode."""
        return self.dictionary

    def pre(self, x: Tensor) -> Tensor:
        """Pre-activations `[B, H]` of vectors `[B, D]`."""
        return F.linear(x - self.bias, self.encoder, self.encoder_bias)

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Codes `[B, H]`, not negative, as they are after training."""

    def decode(self, codes: Tensor) -> Tensor:
        """Vectors `[B, D]` of codes `[B, H]`."""
        return codes @ self.atoms + self.bias

    def forward(self, x: Tensor) -> Tensor:
        """The reconstruction `[B, D]`."""
        return self.decode(self.encode(x))

    @abstractmethod
    def losses(self, x: Tensor) -> Losses:
        """Of a training batch `[B, D]`."""

    def scaled(self, squares: Tensor, x: Tensor) -> Tensor:
        """The reconstruction loss of a sum of squared errors over a batch `[B, D]`."""
        if self.spec.reconstruction == "mse_mean":
            return squares / x.numel()
        if self.spec.reconstruction == "mse_sum":
            return squares / len(x)
        return squares / (x - x.mean(dim=0)).square().sum().clamp(min=TINY)

    @torch.no_grad()
    def project_gradient(self) -> None:
        """Take from the dictionary's gradient what would only change the rows' lengths."""
        gradient = self.dictionary.grad
        if self.unit and gradient is not None:
            along = torch.einsum("hd,hd->h", gradient, self.dictionary)
            gradient.addcmul_(self.dictionary, along[:, None], value=-1)

    @torch.no_grad()
    def renormalise(self) -> None:
        """Rows of the dictionary of length 1 again."""
        if self.unit:
            self.dictionary.div_(torch.linalg.vector_norm(self.dictionary, dim=1, keepdim=True).clamp(min=TINY))

    @torch.no_grad()
    def saw(self, fired: Tensor, vectors: int) -> None:
        """Count how long each latent has not fired: after every update, by all ranks' batches together."""
        self.since_fired += vectors
        self.since_fired.masked_fill_(fired, 0)
        self.updates += 1

    @torch.no_grad()
    def restart(self, dead: Tensor, directions: Tensor, length: Tensor | float) -> None:
        """Let the latents `dead` `[n]` start again along unit `directions` `[n, D]`, encoder rows of that length."""
        self.dictionary[dead] = directions
        self.encoder[dead] = directions * length
        self.encoder_bias[dead] = 0.0
        self.since_fired[dead] = 0

    def per_latent(self) -> list[nn.Parameter]:
        """Parameters whose first axis is latents."""
        return [self.encoder, self.encoder_bias, self.dictionary]


def aux_loss(sae: SparseAutoencoder, dying: Dying, x: Tensor, residual: Tensor) -> Tensor:
    """AuxK: squared error of the best dead latents on what is left (x − x̂, detached), over its variance.

    Which are dead is looked up every `RENEW` updates. 0 where none is.
    """
    if sae.updates % RENEW == 0:
        sae.dead = torch.nonzero(sae.since_fired >= dying.dead_after).squeeze(1)
    if not len(sae.dead):
        return x.new_zeros(())
    residual = residual.detach()
    most = min(dying.auxk_latents or max(1, x.shape[1] // 2), len(sae.dead))
    pre = F.linear(x - sae.bias, sae.encoder[sae.dead], sae.encoder_bias[sae.dead]).relu()
    values, columns = pre.topk(most, sorted=False)
    codes = torch.zeros_like(pre).scatter(1, columns, values)
    error = (residual - codes @ sae.atoms[sae.dead]).square().sum()
    variance = (residual - residual.mean(dim=0)).square().sum().clamp(min=TINY)
    return dying.auxk * error / variance
