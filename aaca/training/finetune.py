"""`FineTune`: a classifier trained with a recipe; stops at the first non-finite loss and names the batch."""

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
from aaca.runtime.seeding import purpose_seed
from aaca.training.optim import lr_factor, parameter_groups
from aaca.training.recipe import Recipe


class FineTune(pl.LightningModule):
    """Fine-tunes `classifier` by `recipe` for `batches` micro-batches an epoch (on each device).

    `val_groups` `[N]` int64 are the group ids of the validation table's rows; validation logs accuracy and worst-group
    accuracy of them as `val/accuracy` and `val/worst_group_accuracy`, exact under any number of devices.
    """

    def __init__(
        self,
        classifier: Classifier,
        recipe: Recipe,
        n_classes: int,
        batches: int,
        val_groups: Tensor | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.classifier = classifier
        self.recipe = recipe
        self.batches = batches
        self.seed = seed
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

    def on_fit_start(self) -> None:
        """Give every rank its own random stream for augmentation, mixing and drop-path."""
        pl.seed_everything(purpose_seed(self.seed, "rank", self.global_rank), workers=True, verbose=False)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean loss of one micro-batch. Raises `AacaError` naming the images when it is not finite."""
        images, targets, rows = batch
        if self.mixup is not None:
            images, targets = self.mixup(images, targets)
        loss: Tensor = self.loss(self.classifier(images), targets)
        if not torch.isfinite(loss):
            rate = "lr" if self.recipe.lr is not None else "blr"
            raise AacaError(
                f"loss is {loss.item()} at epoch {self.current_epoch}, batch {batch_idx} (training rows "
                f"{rows[:8].tolist()}…); nothing was saved; "
                f"lower recipe.{rate}, set recipe.clip_grad=1, or use trainer.precision=32-true"
            )
        self.log("loss", loss, on_step=False, on_epoch=True, sync_dist=True, prog_bar=True, batch_size=len(rows))
        return loss

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
