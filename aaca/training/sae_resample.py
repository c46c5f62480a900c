"""`ResampleDead`: latents that never fire start again at vectors that are badly reconstructed (Bricken et al. 2023)."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pydantic import Field
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torch.optim import Optimizer

from aaca.models.sae.base import SparseAutoencoder
from aaca.runtime.ranks import current
from aaca.training.sparse_autoencoder import SparseAutoencoderModule

log = logging.getLogger(__name__)
MOST = 2**24  # torch.multinomial takes no more
CHUNK = 4096  # vectors that a round holds at once


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """When and from what.

    `every`: epochs; the last round is the last that leaves more than `every` epochs to come. `sample`: training vectors
    whose losses are looked at (DN-CBM: 819,200). `power`: a vector is drawn with p ∝ loss^power. `scale`: length of the
    new encoder rows over the mean length of living ones.
    """

    every: Annotated[int, Field(ge=1)] = 10
    sample: Annotated[int, Field(ge=1, le=MOST)] = 819_200
    power: Annotated[float, Field(ge=0)] = 2.0
    scale: Annotated[float, Field(gt=0)] = 0.2

    def due(self, epoch: int, epochs: int) -> bool:
        """Whether after this epoch (from 0) of so many: 18 times in 200 with every = 10."""
        return (epoch + 1) % self.every == 0 and epoch + 1 + self.every < epochs


class Sample:
    """Rows of the training vectors, read when they are asked for: a round never holds more of them than a chunk.

    `rows` `[N]`: numbers, ascending. `fetch`: the vectors `[B, D]` of such numbers, in the order asked for.
    """

    def __init__(self, rows: np.ndarray, fetch: Callable[[np.ndarray], Tensor]) -> None:
        self.rows, self.fetch = rows, fetch

    def __len__(self) -> int:
        """N."""
        return len(self.rows)

    def chunks(self, size: int) -> Iterator[Tensor]:
        """All vectors in order, in parts of nearly one size, at most `size` (one row alone would have no variance)."""
        if len(self):
            yield from map(self.fetch, np.array_split(self.rows, -(-len(self) // size)))

    def take(self, positions: Tensor) -> Tensor:
        """The vectors at these positions within the sample, `[B, D]`."""
        return self.fetch(self.rows[positions.cpu().numpy()])


class ResampleDead(Callback):
    """Restarts every latent that has not fired since the last round. `draw(n, seed)`: at most n training vectors."""

    def __init__(self, plan: Resampling, draw: Callable[[int, int], Sample], seed: int) -> None:
        self.plan, self.draw, self.seed = plan, draw, seed
        self.rounds: list[dict[str, int]] = []

    def state_dict(self) -> dict[str, Any]:
        """What was done so far."""
        return {"rounds": self.rounds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after it."""
        self.rounds = list(state_dict["rounds"])

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A round, where one is due: one pass over one sample for all autoencoders that have dead latents."""
        assert isinstance(pl_module, SparseAutoencoderModule)
        epoch = trainer.current_epoch
        if not self.plan.due(epoch, trainer.max_epochs or 0):
            return
        saes = pl_module.each()
        dead = [torch.nonzero(~pl_module.window(index)).squeeze(1) for index in range(len(saes))]
        needy = [index for index in range(len(saes)) if len(dead[index])]
        starts = self._starts([saes[index] for index in needy], [len(dead[index]) for index in needy], epoch)
        for index, sae in enumerate(saes):
            count = 0
            if index in needy:
                vectors = everywhere(next(starts), sae)
                restart(sae, dead[index], vectors, self.plan.scale, trainer.optimizers[0])
                count = len(vectors)
                log.debug("  epoch %d: %d of %d latents start again", epoch, count, sae.latents)
            pl_module.window(index).fill_(False)
            self.rounds.append({"epoch": epoch, "autoencoder": index, "dead": len(dead[index]), "restarted": count})

    def _starts(self, saes: Sequence[SparseAutoencoder], counts: Sequence[int], epoch: int) -> Iterator[Tensor | None]:
        """Where latents of each start again, `[≤ count, D]`; None on the ranks that read nothing."""
        if current().rank or not saes:  # without dead latents no pass over the data
            yield from [None] * len(saes)
            return
        sample = self.draw(self.plan.sample, self.seed + epoch)
        for sae, own, count in zip(saes, chances_of(saes, sample, self.plan.power, CHUNK), counts, strict=True):
            generator = torch.Generator().manual_seed(self.seed + 1000 * epoch)  # for each autoencoder as for one alone
            positions = drawn(own, count, generator)
            yield sample.take(positions).to(sae.bias) if len(positions) else sae.bias.new_empty(0, len(sae.bias))


def everywhere(vectors: Tensor | None, sae: SparseAutoencoder) -> Tensor:
    """The first rank's vectors `[n, D]` on all ranks; the others give None."""
    if current().world > 1:
        count = torch.tensor([0 if vectors is None else len(vectors)], device=sae.bias.device)
        torch.distributed.broadcast(count, src=0)
        if vectors is None:
            vectors = sae.bias.new_empty(int(count), len(sae.bias))
        torch.distributed.broadcast(vectors, src=0)
    assert vectors is not None
    return vectors


@torch.no_grad()
def chances_of(saes: Sequence[SparseAutoencoder], sample: Sample, power: float, chunk: int) -> list[Tensor]:
    """For each autoencoder: (its loss of each vector of the sample)^power, 0 for vectors of length 0; float64 `[N]`."""
    losses = torch.empty(len(saes), len(sample), dtype=torch.float64)  # all at once: small pieces split the heap
    able = torch.empty(len(sample), dtype=torch.float64)
    start = 0
    for part in sample.chunks(chunk):
        here = slice(start, start + len(part))
        able[here] = part.norm(dim=1) > 0  # a vector of length 0 is no row of a dictionary
        for sae, own in zip(saes, losses, strict=True):
            own[here] = vector_losses(sae, part.to(sae.bias))
        start += len(part)
    found = losses.clamp_(min=0).pow_(power).mul_(able)
    return [own if float(own.sum()) > 0 else able for own in found]


def drawn(chances: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """At most `count` different positions, each drawn in proportion to its chance `[N]`; none whose chance is 0."""
    most = min(count, int((chances > 0).sum()))
    if most == 0:
        return torch.zeros(0, dtype=torch.long)
    return torch.multinomial(chances, most, replacement=False, generator=generator)


def vector_losses(sae: SparseAutoencoder, x: Tensor) -> Tensor:
    """The loss of each vector `[B]`: its reconstruction's plus λ Σ z_j ‖d_j‖, where there is a λ, as warmed up."""
    codes = sae.encode(x)
    error = sae.scaled((sae.decode(codes) - x).square().sum(dim=1), x) * len(x)
    l1 = sae.sparsity_scale * float(getattr(sae.spec, "l1", 0.0))
    if not l1:
        return error
    return error + l1 * (codes.sum(dim=1) if sae.unit else codes @ sae.atoms.norm(dim=1))


@torch.no_grad()
def restart(sae: SparseAutoencoder, dead: Tensor, vectors: Tensor, scale: float, optimizer: Optimizer) -> None:
    """The first n of `dead` start again: dictionary rows along `vectors` `[n, D]` as they are, encoder rows too.

    Their biases become 0, and no moments of them are left in Adam.
    """
    directions = F.normalize(vectors, dim=1)
    alive = torch.ones(sae.latents, dtype=torch.bool, device=dead.device)
    alive[dead] = False
    lengths = sae.encoder.norm(dim=1)
    length = scale * (lengths[alive] if bool(alive.any()) else lengths).mean()
    dead = dead[: len(vectors)]
    sae.restart(dead, directions, length)
    for parameter in sae.per_latent():
        state = optimizer.state.get(parameter, {})
        for name in ("exp_avg", "exp_avg_sq"):
            if name in state:
                state[name][dead] = 0.0
