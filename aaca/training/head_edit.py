"""`HeadEdit`: a head edited on its features, the network before it left alone; judged on audit features every epoch."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import pandas as pd
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aaca.models.classifier import Classifier
from aaca.models.head import FeatureBank, Head
from aaca.runtime.errors import AacaError
from aaca.runtime.ranks import current
from aaca.runtime.seeding import purpose_seed
from aaca.training.edit_losses import class_weights, focal, log_ratio, retention, retention_mean
from aaca.training.edit_recipe import EditRecipe, lr_factor


class FeatureBatches:
    """Batches `(features [B, D], labels [B])` of a bank, in an order that the seed and the epoch decide alone.

    So all ranks draw the same.
    """

    def __init__(self, bank: FeatureBank, size: int, seed: int) -> None:
        self.features, self.labels, self.size, self.seed = bank.features, bank.labels, size, seed

    def __len__(self) -> int:
        return math.ceil(len(self.labels) / self.size)

    def to(self, device: torch.device) -> None:
        """Where the head will be."""
        self.features, self.labels = self.features.to(device), self.labels.to(device)

    def of(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch's."""
        generator = torch.Generator().manual_seed(purpose_seed(self.seed, "edit order", epoch))
        order = torch.randperm(len(self.labels), generator=generator).to(self.labels.device)
        for rows in torch.split(order, self.size):
            yield self.features[rows], self.labels[rows]


class Audit:
    """Accuracies of heads on an audit bank, in [0, 1]: over all, of the edited classes (mean), of the worst class and
    of the worst group (left out where no group is known; images without one count for the others).
    """

    def __init__(self, bank: FeatureBank, edited: list[int]) -> None:
        self.features, self.labels, self.edited = bank.features, bank.labels, edited
        codes = pd.factorize(pd.Series(bank.groups, dtype=object).where(bank.groups != "", None))[0]
        self.groups = torch.from_numpy(codes.astype("int64"))

    def to(self, device: torch.device) -> None:
        """Where heads will be; what is counted stays on the CPU."""
        self.features = self.features.to(device)

    @property
    def knows_groups(self) -> bool:
        """Whether any image's group is known."""
        return bool((self.groups >= 0).any())

    def of(self, weight: Tensor, bias: Tensor) -> dict[str, float]:
        """The accuracies of a head."""
        right = (F.linear(self.features, weight, bias).argmax(dim=1).cpu() == self.labels).double()
        classes = _means(right, self.labels)
        found = {
            "accuracy": float(right.mean()),
            "class_accuracy": float(classes[self.edited].mean()),
            "min_class_accuracy": float(classes[~classes.isnan()].min()),
        }
        if self.knows_groups:
            known = self.groups >= 0
            found["worst_group"] = float(_means(right[known], self.groups[known]).min())
        return found


def _means(right: Tensor, kinds: Tensor) -> Tensor:
    # mean by kind, NaN where there is none of a kind
    return torch.bincount(kinds, weights=right) / torch.bincount(kinds)


class HeadEdit(pl.LightningModule):
    """Trains weight and bias of `train`'s head by a recipe that has updates.

    `neurons` (class → neuron ids) and `targets` (class → o) are of the edited classes. On stored features a Trainer's
    batch is a whole epoch, whatever it holds: its own work for a batch takes longer than an update of a head. With
    `backbone` the batches (`batches` an epoch) are normalised images, whose features it makes. It is no part of this
    module, so neither an optimiser nor `train()` reaches it; `lower` is the precision of its passes. Head and losses
    are float32.
    """

    union: Tensor
    weights: Tensor
    keep: Tensor

    def __init__(
        self,
        train: FeatureBank,
        val: FeatureBank,
        neurons: Mapping[int, list[int]],
        targets: Mapping[int, float],
        recipe: EditRecipe,
        seed: int,
        backbone: Classifier | None = None,
        batches: int | None = None,
        lower: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.weight, self.bias = nn.Parameter(train.head.weight.clone()), nn.Parameter(train.head.bias.clone())
        for label, chosen in neurons.items():  # buffers, to be where the head is
            self.register_buffer(f"neurons_{label}", torch.tensor(chosen, dtype=torch.long))
        self.register_buffer("union", torch.tensor(sorted(set().union(*neurons.values())), dtype=torch.long))
        self.register_buffer("weights", class_weights(len(self.bias), list(neurons)))
        self.register_buffer("keep", torch.ones(self.weight.shape[1]))
        if recipe.method == "mask_refit":
            self.keep[self.union] = 0.0
        self.recipe, self.targets, self.edited, self.lower = recipe, dict(targets), list(neurons), lower
        self.stored, self.audit = FeatureBatches(train, recipe.batch_size, seed), Audit(val, self.edited)
        self.outside = (backbone,)  # a tuple, so that it does not become a submodule
        self.batches = batches or len(self.stored)
        self.history: list[dict[str, float]] = []
        self.best, self.epoch, self.updates = train.head, 0, 0
        self.seen = (0.0, 0.0)  # sums of this epoch's losses and regularisers

    def on_train_start(self) -> None:
        """Judge the un-edited head: it is epoch 0."""
        if self.outside[0] is not None:
            self.outside[0].to(self.device).eval()
        if self.outside[0] is None:  # live images leave the bank where it is: it may be larger than the device
            self.stored.to(self.device)
        self.audit.to(self.device)
        with torch.no_grad():
            batches = ((features.to(self.device), labels.to(self.device)) for features, labels in self.stored.of(0))
            parts = [torch.stack(self.losses(*batch)) for batch in batches]
            self._judge(*torch.stack(parts).mean(dim=0).tolist())
            if self.recipe.method == "mask_refit":
                self.weight[:, self.union] = 0.0

    def on_train_epoch_start(self) -> None:
        """A new epoch, new means."""
        self.seen = (0.0, 0.0)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """An epoch on stored features, or one batch `(images, labels, rows)`."""
        if self.outside[0] is not None:
            images, labels, _ = batch
            return self._update(self._embed(self.outside[0], images), labels, self.manual_backward)
        for features, labels in self.stored.of(self.current_epoch):
            self._update(features, labels, Tensor.backward)  # all ranks have the same gradient: nothing to share

    def _update(self, features: Tensor, labels: Tensor, backward: Callable[[Tensor], Any]) -> None:
        # raises AacaError where the loss is not finite
        if self.recipe.method == "mask_refit":  # no gradient comes from cut features: columns that are 0 stay so
            features = features * self.keep
        loss, regulariser = self.losses(features, labels)
        total = loss + self._strength() * regulariser
        value, *parts = torch.stack([total.detach(), loss.detach(), regulariser.detach()]).tolist()
        if not math.isfinite(value):
            raise AacaError(
                f"edit of the head: the loss is {value} at update {self.updates + 1} (epoch {self.current_epoch + 1}); "
                "nothing was edited; lower repair.lr or repair.strength, or set repair.warmup"
            )
        self.seen = (self.seen[0] + parts[0], self.seen[1] + parts[1])
        recipe, optimizer = self.recipe, cast(torch.optim.Adam, self.optimizers(use_pl_optimizer=False))
        optimizer.param_groups[0]["lr"] = recipe.lr * lr_factor(
            recipe.schedule, self.updates, self.batches, recipe.epochs
        )
        optimizer.zero_grad()
        backward(total)
        optimizer.step()
        self.updates += 1

    def losses(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(classification loss, regulariser) of features `[B, D]`, scalars; 0 where the method has no regulariser."""
        logits, method = F.linear(features, self.weight, self.bias), self.recipe.method
        if method == "focal":
            loss = focal(logits, labels, self.weights)
        else:
            loss = F.cross_entropy(logits, labels, self.weights if method == "class_weight" else None)
        return loss, self._regulariser(features, logits)

    def _regulariser(self, features: Tensor, logits: Tensor) -> Tensor:
        recipe = self.recipe
        if recipe.method == "retention":
            chosen = {label: getattr(self, f"neurons_{label}") for label in self.edited}
            return retention(features, self.weight, logits, chosen, self.targets, recipe.reduce)
        if recipe.method in ("retention_mean", "log_ratio"):
            term = retention_mean if recipe.method == "retention_mean" else log_ratio
            return term(features, self.weight, logits, self.union, float(recipe.target))
        return logits.new_zeros(())

    def _strength(self) -> float:
        rising = self.recipe.warmup * self.batches
        return self.recipe.strength * (min(1.0, self.updates / rising) if rising else 1.0)

    def _embed(self, backbone: Classifier, images: Tensor) -> Tensor:
        half = torch.autocast(self.device.type, self.lower or torch.bfloat16, enabled=self.lower is not None)
        with torch.no_grad(), half:
            return backbone.embed(images)[0].float()

    def on_train_epoch_end(self) -> None:
        """Judge this epoch's head; keep it where it is the best; stop after `patience` epochs without a better one."""
        means = current().exchange([value / self.batches for value in self.seen])
        better = self._judge(*(sum(values) / len(values) for values in zip(*means, strict=True)))
        self.log_dict({f"edit/{name}": value for name, value in self.history[-1].items()}, rank_zero_only=True)
        epoch, recipe = len(self.history) - 1, self.recipe
        if better or recipe.monitor == "last":
            self.best, self.epoch = Head(*(part.detach().cpu().clone() for part in (self.weight, self.bias))), epoch
        elif recipe.patience is not None and epoch >= max(recipe.min_epochs, self.epoch + recipe.patience):
            self.trainer.should_stop = True

    def _judge(self, loss: float, regulariser: float) -> bool:
        # adds to the history; whether the monitored figure is above all before it
        with torch.no_grad():
            found = {"loss": loss, "regulariser": regulariser, **self.audit.of(self.weight, self.bias)}
        monitor = self.recipe.monitor
        better = monitor != "last" and all(found[monitor] > past[monitor] for past in self.history)
        self.history.append(found)
        return better

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam; its learning rate is set before every update."""
        return torch.optim.Adam(self.parameters(), lr=self.recipe.lr, weight_decay=self.recipe.weight_decay, fused=True)
