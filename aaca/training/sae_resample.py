"""`ResampleDead`: latents that never fire start again at vectors that are badly reconstructed (Bricken et al. 2023)."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

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


class ResampleDead(Callback):
    """Restarts every latent that has not fired since the last round. `draw(n, seed)`: training vectors `[≤ n, D]`."""

    def __init__(self, plan: Resampling, draw: Callable[[int, int], Tensor], seed: int) -> None:
        self.plan, self.draw, self.seed = plan, draw, seed
        self.rounds: list[dict[str, int]] = []

    def state_dict(self) -> dict[str, Any]:
        """What was done so far."""
        return {"rounds": self.rounds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after it."""
        self.rounds = list(state_dict["rounds"])

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A round, where one is due."""
        assert isinstance(pl_module, SparseAutoencoderModule)
        epoch = trainer.current_epoch
        if not self.plan.due(epoch, trainer.max_epochs or 0):
            return
        for index, sae in enumerate(pl_module.each()):
            window = pl_module.window(index)
            dead = torch.nonzero(~window).squeeze(1)
            count = self._restart(sae, dead, trainer.optimizers[0], epoch)
            window.fill_(False)
            self.rounds.append({"epoch": epoch, "autoencoder": index, "dead": len(dead), "restarted": count})

    def _restart(self, sae: SparseAutoencoder, dead: Tensor, optimizer: Optimizer, epoch: int) -> int:
        if not len(dead):
            return 0  # no pass over the data
        vectors = None
        if current().rank == 0:
            sample = self.draw(self.plan.sample, self.seed + epoch).to(sae.bias.device)
            generator = torch.Generator().manual_seed(self.seed + 1000 * epoch)  # for each autoencoder as for one alone
            vectors = drawn(sae, sample, len(dead), self.plan.power, generator)
        if current().world > 1:
            count = torch.tensor([0 if vectors is None else len(vectors)], device=sae.bias.device)
            torch.distributed.broadcast(count, src=0)
            if vectors is None:
                vectors = sae.bias.new_empty(int(count), len(sae.bias))
            torch.distributed.broadcast(vectors, src=0)
        assert vectors is not None
        restart(sae, dead, vectors, self.plan.scale, optimizer)
        log.debug("  epoch %d: %d of %d latents start again", epoch, len(vectors), sae.latents)
        return len(vectors)


@torch.no_grad()
def drawn(
    sae: SparseAutoencoder, sample: Tensor, count: int, power: float, generator: torch.Generator, chunk: int = 4096
) -> Tensor:
    """At most `count` different rows of `sample` `[N, D]`, each drawn with p ∝ (its own loss)^power; none that is 0."""
    losses = torch.cat([vector_losses(sae, part) for part in torch.split(sample, chunk)]).double().cpu()
    directed = (sample.norm(dim=1) > 0).double().cpu()  # a vector of length 0 is no row of a dictionary
    chances = losses.clamp(min=0).pow(power) * directed
    if float(chances.sum()) <= 0:
        chances = directed
    most = min(count, int((chances > 0).sum()))
    if most == 0:
        return sample[:0]
    rows = torch.multinomial(chances, most, replacement=False, generator=generator)
    return sample[rows.to(sample.device)]


def vector_losses(sae: SparseAutoencoder, x: Tensor) -> Tensor:
    """The loss of each vector `[B]`: its reconstruction's plus λ Σ z, where there is a λ."""
    codes = sae.encode(x)
    error = sae.scaled((sae.decode(codes) - x).square().sum(dim=1), x) * len(x)
    return error + float(getattr(sae.spec, "l1", 0.0)) * codes.sum(dim=1)


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
