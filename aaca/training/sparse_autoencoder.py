"""`SparseAutoencoderModule`: several sparse autoencoders trained side by side in one pass over the data."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytorch_lightning as pl
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Adam
from torch.optim.lr_scheduler import LambdaLR

from aaca.evaluate.sparse import SparseMetrics
from aaca.models.sae.base import SparseAutoencoder
from aaca.runtime.errors import AacaError
from aaca.runtime.ranks import current

LOOK = 100  # updates between two looks at whether the loss is finite: each waits for the device


@dataclass(frozen=True, kw_only=True)
class SaeTraining:
    """How long and how fast: Adam. `batch_size` is per device.

    `warmup`: updates in which the rate rises. `decay`: what it does afterwards. `clip_grad`: largest norm of the
    gradient; null: as it is. `sparsity_warmup`: updates in which the penalty (L1, L0) rises.
    """

    epochs: Annotated[int, Field(ge=1)] = 200
    batch_size: Annotated[int, Field(ge=1)] = 4096
    lr: Annotated[float, Field(gt=0)] = 5e-4
    warmup: Annotated[int, Field(ge=0)] = 0
    decay: Literal["none", "linear", "cosine"] = "none"
    clip_grad: Annotated[float, Field(gt=0)] | None = None
    sparsity_warmup: Annotated[int, Field(ge=0)] = 0

    def factor(self, update: int, updates: int) -> float:
        """Share of `lr` at this update of so many."""
        if update < self.warmup:
            return (update + 1) / (self.warmup + 1)
        left = (updates - update) / max(1, updates - self.warmup)
        if self.decay == "cosine":
            return float(0.5 * (1 - torch.cos(torch.tensor(torch.pi * left))))
        return left if self.decay == "linear" else 1.0


class SparseAutoencoderModule(pl.LightningModule):
    """Sums the losses of `saes` over the same batches `[B, D]`; each learns as it would alone.

    After an update the dictionaries' rows have length 1 again. Nothing waits for the device in a step but what says so.
    """

    def __init__(self, saes: Sequence[SparseAutoencoder], training: SaeTraining, updates: int) -> None:
        super().__init__()
        self.saes = nn.ModuleList(saes)
        self.plan, self.updates = training, updates
        self.sums: dict[str, Tensor | float] = {}
        self.fired: list[Tensor] = []
        self.scores: list[SparseMetrics] = []
        for index, sae in enumerate(saes):  # which latents fired, on any rank, since the last resampling
            self.register_buffer(f"window_{index}", torch.zeros(sae.latents, dtype=torch.bool))

    def each(self) -> list[SparseAutoencoder]:
        """The autoencoders."""
        return [sae for sae in self.saes if isinstance(sae, SparseAutoencoder)]

    def window(self, index: int) -> Tensor:
        """Which latents of an autoencoder fired since its window was last cleared, bool `[H]`."""
        found: Tensor = getattr(self, f"window_{index}")
        return found

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """One loss. Raises `AacaError` where it is found not to be finite."""
        for sae in self.each():
            sae.sparsity_scale = min(1.0, (self.global_step + 1) / (self.plan.sparsity_warmup + 1))
        found = [sae.losses(batch) for sae in self.each()]
        self.fired = [losses.fired for losses in found]
        for index, losses in enumerate(found):
            for name, value in losses.parts.items():
                key = name if len(found) == 1 else f"{name}_{index}"
                self.sums[key] = self.sums.get(key, 0.0) + value
        total = torch.stack([losses.total for losses in found]).sum()
        if self.global_step % LOOK == 0 and not bool(total.isfinite()):
            raise AacaError(f"update {self.global_step}: the loss is {float(total.detach())}; lower sae.training.lr")
        batches = int(self.trainer.num_training_batches)
        if batch_idx + 1 == batches:  # a row of the curve; `on_train_epoch_end` would come after it is written
            self._log_means(batches)
        return total

    def _log_means(self, batches: int) -> None:
        for name, value in self.sums.items():
            mean = value / batches
            if not math.isfinite(float(mean)):
                raise AacaError(f"epoch {self.current_epoch}: {name} is {float(mean)}; lower sae.training.lr")
            self.log(name, mean, on_step=False, on_epoch=True, sync_dist=True, batch_size=1)
        self.sums = {}

    def on_train_epoch_start(self) -> None:
        """Let no row of the curve show what an earlier epoch measured."""
        self.trainer.callback_metrics.clear()

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Gradients along the dictionaries' rows go."""
        for sae in self.each():
            sae.project_gradient()

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Each autoencoder's gradient by its own norm."""
        if gradient_clip_val is not None:
            for sae in self.each():
                nn.utils.clip_grad_norm_(sae.parameters(), gradient_clip_val)

    def optimizer_step(self, *arguments: Any, **more: Any) -> None:
        """One update; then rows of length 1, and who has fired."""
        super().optimizer_step(*arguments, **more)
        for index, (sae, own) in enumerate(zip(self.each(), self.fired, strict=True)):
            fired = anywhere(own)
            sae.renormalise()
            sae.saw(fired, self.plan.batch_size * current().world)
            self.window(index).logical_or_(fired)

    def on_validation_epoch_start(self) -> None:
        """Begin to measure."""
        self.scores = [SparseMetrics(len(sae.bias), sae.latents).to(self.device) for sae in self.each()]

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """Measure the reconstructions of a batch `[B, D]`."""
        for sae, score in zip(self.each(), self.scores, strict=True):
            codes = sae.encode(batch)
            score.update(batch, sae.decode(codes), codes)

    def on_validation_epoch_end(self) -> None:
        """Log what they are worth, over all ranks."""
        for index, score in enumerate(self.scores):
            for name, value in score.compute().items():
                if isinstance(value, float):
                    key = name if len(self.scores) == 1 else f"{name}_{index}"
                    self.log(f"val_{key}", value)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the sums of the epoch so far (their means over ranks), and the counts of updates."""
        parts = current().exchange({name: float(value) for name, value in self.sums.items()})
        checkpoint["sums"] = {name: sum(part[name] for part in parts) / len(parts) for name in self.sums}
        checkpoint["updates"] = [sae.updates for sae in self.each()]
        checkpoint["dead"] = [sae.dead for sae in self.each()]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with them."""
        self.sums = dict(checkpoint["sums"])
        for sae, updates, dead in zip(self.each(), checkpoint["updates"], checkpoint["dead"], strict=True):
            sae.updates, sae.dead = int(updates), dead

    def configure_optimizers(self) -> Any:
        """Adam in one pass over the weights, and the schedule."""
        scaled = self.trainer.precision == "16-mixed"  # a fused pass undoes the scaling itself, after clipping
        fused = self.device.type in ("cpu", "cuda") and not (scaled and self.plan.clip_grad)
        optimizer = Adam([value for value in self.parameters() if value.requires_grad], lr=self.plan.lr, fused=fused)
        schedule = LambdaLR(optimizer, lambda update: self.plan.factor(update, self.updates))
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def anywhere(fired: Tensor) -> Tensor:
    """What is true on any rank, bool `[H]`."""
    if current().world == 1:
        return fired
    counts = fired.to(torch.uint8)
    torch.distributed.all_reduce(counts, op=torch.distributed.ReduceOp.MAX)
    return counts > 0
