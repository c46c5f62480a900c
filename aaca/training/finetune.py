"""`FineTune`: a classifier trained with a recipe; stops at the first non-finite loss and names the batch."""

import math
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from timm.data import Mixup
from timm.loss import SoftTargetCrossEntropy
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from aaca.data.module import Batch
from aaca.evaluate.metrics import WorstGroupAccuracy
from aaca.models.classifier import Classifier
from aaca.runtime.errors import AacaError
from aaca.runtime.ranks import current
from aaca.training.optim import lr_factor, parameter_groups
from aaca.training.recipe import Recipe


class FineTune(pl.LightningModule):
    """Fine-tunes `classifier` by `recipe` for `batches` micro-batches an epoch (on each device).

    `val_groups` `[N]` int64 are the group ids of the validation table's rows; validation logs accuracy and worst-group
    accuracy of them as `val/accuracy` and `val/worst_group_accuracy`, exact under any number of devices. `frozen` names
    modules that stay as they are, batch statistics and all; their parameters must not ask for gradients.
    """

    def __init__(
        self,
        classifier: Classifier,
        recipe: Recipe,
        n_classes: int,
        batches: int,
        val_groups: Tensor | None = None,
        frozen: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.classifier = classifier
        self.recipe = recipe
        self.batches = batches
        self.seen = 0.0  # sum of this epoch's losses
        self.frozen = [classifier.get_submodule(name) for name in frozen]
        self.mixup = self._mixup(n_classes)
        self.loss: nn.Module = (
            SoftTargetCrossEntropy() if self.mixup else nn.CrossEntropyLoss(label_smoothing=recipe.smoothing)
        )
        self.register_buffer("val_groups", val_groups, persistent=False)
        self.metric = WorstGroupAccuracy()

    def _mixup(self, n_classes: int) -> Mixup | None:
        if not self.recipe.mixes:
            return None
        return Mixup(
            mixup_alpha=self.recipe.mixup,
            cutmix_alpha=self.recipe.cutmix,
            prob=self.recipe.mixup_prob,
            switch_prob=self.recipe.mixup_switch_prob,
            mode="batch",
            label_smoothing=self.recipe.smoothing,
            num_classes=n_classes,
        )

    def on_train_epoch_start(self) -> None:
        """A new epoch, a new mean loss."""
        self.seen = 0.0

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Keep what is frozen as it is: Lightning sets all modules to training, also after a validation."""
        for module in self.frozen:
            module.eval()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the sum of this epoch's losses, mean over ranks."""
        sums = current().exchange(self.seen)
        checkpoint["epoch_loss"] = sum(sums) / len(sums)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the sum."""
        self.seen = checkpoint["epoch_loss"]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean loss of one micro-batch. Raises `AacaError` naming the images when it is not finite."""
        images, targets, rows = batch
        if self.mixup is not None:
            images, targets = self.mixup(images, targets)
        loss = self.objective(images, targets, rows)
        value = float(loss.detach())
        if not math.isfinite(value):
            rate = "lr" if self.recipe.lr is not None else "blr"
            raise AacaError(
                f"loss is {value} at epoch {self.current_epoch}, batch {batch_idx} (training rows "
                f"{rows[:8].tolist()}…); nothing was saved; "
                f"lower recipe.{rate}, set recipe.clip_grad=1, or use trainer.precision=32-true"
            )
        self.seen += value
        if batch_idx + 1 == self.batches:
            mean = self.seen / self.batches
            self.log("loss", mean, on_step=False, on_epoch=True, sync_dist=True, prog_bar=True, batch_size=len(rows))
        return loss

    def objective(self, images: Tensor, targets: Tensor, rows: Tensor) -> Tensor:
        """What is minimised, a scalar: here the recipe's loss. `rows` `[B]`: positions in the training table."""
        loss: Tensor = self.loss(self.classifier(images), targets)
        return loss

    def on_validation_start(self) -> None:
        """All ranks validate the model that is saved: batch statistics of rank 0 (training shares them itself)."""
        if self.trainer.world_size > 1:
            for buffer in self.classifier.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect predictions of one batch of the validation table."""
        images, labels, rows = batch
        logits = self.classifier(images)
        groups: Any = self.val_groups
        self.metric.update(logits, labels, labels if groups is None else groups[rows], rows)

    def on_validation_epoch_end(self) -> None:
        """Log the exact accuracies over all devices."""
        result = self.metric.compute()
        self.metric.reset()
        for name in ("accuracy", "worst_group_accuracy"):
            self.log(f"val/{name}", float(result[name]), prog_bar=True, rank_zero_only=True)

    def configure_optimizers(self) -> Any:
        """AdamW over layer-decayed groups, learning rate set before each update."""
        recipe = self.recipe
        peak = recipe.peak_lr(self.trainer.world_size)
        groups = parameter_groups(self.classifier.backbone, recipe.weight_decay, recipe.layer_decay)
        for group in groups:
            group["lr"] = peak * group["lr_scale"]
        # Lightning cannot unscale gradients for clipping with a fused optimiser under mixed precision
        optimizer = AdamW(groups, lr=peak, betas=(0.9, 0.999), eps=1e-8, fused=recipe.clip_grad is None)
        factor = lr_factor(self.batches, recipe.accumulate, recipe.epochs, peak, recipe.min_lr, recipe.warmup_epochs)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}}
