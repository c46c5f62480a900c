"""`EditRecipe`: how a head is edited, checked before anything runs; learning rates of its updates."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from aaca.runtime.errors import ConfigError, nearest
from aaca.training.edit_losses import Reduce

Method = Literal[
    "retention", "retention_mean", "log_ratio", "project", "mask_refit", "zero", "ce", "class_weight", "focal"
]
Schedule = Literal["warmup_flat_cosine", "sawtooth", "constant"]
Monitor = Literal["last", "accuracy", "class_accuracy", "min_class_accuracy", "worst_group"]
CLOSED_FORM = ("project", "zero")
CONTROLS = ("ce", "class_weight", "focal")
WARM, FLAT = 0.05, 0.75


@dataclass(frozen=True, kw_only=True)
class EditRecipe:
    """How a head is edited (NeuroInspect; defaults are those of its Flowers run, but for `monitor` and `min_epochs`).

    `method`: `retention`, `retention_mean`, `log_ratio`: cross entropy + `strength` (λ3) × the loss of that name;
    `project`: the chosen columns become their mean over classes (closed form of strength → ∞); `zero`: they become 0;
    `mask_refit`: they become 0 and the rest goes on training; `ce`, `class_weight`, `focal`: training that ignores the
    neurons, as controls. `target` (o): what ratios should be; auto: 1 + (least importance of the class's neurons − 1)/3
    at the mean audit feature, for `retention`. `reduce`: over the batch, for `retention`. `warmup`: epochs over which
    `strength` grows from 0. `monitor`: the audit figure whose best epoch is kept (the un-edited head is epoch 0, ties
    go to the earlier), or the last epoch. `patience`: epochs without a better one before it stops, never before
    `min_epochs`; null: it never does. `features`: stored ones, or of images that are augmented anew each epoch.
    """

    method: Method = "retention"
    strength: float = 0.01
    target: float | Literal["auto"] = 1.0
    reduce: Reduce = "norm"
    lr: float = 1e-3
    weight_decay: float = 0.0
    epochs: int = 20
    batch_size: int = 128
    schedule: Schedule = "warmup_flat_cosine"
    warmup: float = 0.0
    monitor: Monitor = "accuracy"
    patience: int | None = 5
    min_epochs: int = 10
    features: Literal["cached", "live"] = "cached"

    def __post_init__(self) -> None:
        """Raise `ConfigError` on a value that nothing can be edited with."""
        choices = {"method": Method, "reduce": Reduce, "schedule": Schedule, "monitor": Monitor}
        for name, kind in (*choices.items(), ("features", Literal["cached", "live"])):
            value = getattr(self, name)
            if value not in get_args(kind):
                raise ConfigError(f"repair.{name}: no {value!r}; {nearest(str(value), get_args(kind))}")
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"repair.{name}: {getattr(self, name)}; expected at least 1")
        for name in ("strength", "weight_decay", "warmup", "min_epochs"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"repair.{name}: {getattr(self, name)}; expected 0 or more")
        if not 0 < self.lr < math.inf:
            raise ConfigError(f"repair.lr: {self.lr}; expected a learning rate above 0")
        if self.patience is not None and self.patience < 1:
            raise ConfigError(f"repair.patience: {self.patience}; expected at least 1, or null for no early stop")
        if self.target == "auto":
            if self.method in ("retention_mean", "log_ratio"):
                raise ConfigError(
                    f"repair.target: auto is of one class's ratio; {self.method} expects a number above 0"
                )
        elif isinstance(self.target, str) or not 0 < self.target < math.inf:
            raise ConfigError(f"repair.target: {self.target}; expected a number above 0, or auto")

    @property
    def needs_neurons(self) -> bool:
        """Whether the chosen neurons change what is done."""
        return self.method not in CONTROLS

    @property
    def trains(self) -> bool:
        """Whether there are updates."""
        return self.method not in CLOSED_FORM


def lr_factor(schedule: Schedule, update: int, batches: int, epochs: int) -> float:
    """Learning rate of an update (from 0) as a share of the highest, at `batches` updates an epoch.

    `warmup_flat_cosine`: over the first 5 % of all updates linearly from 0, then flat, over the last 25 % half a cosine
    to 0. `sawtooth` is what the released code did: the number within the epoch is taken for that of all updates.
    """
    total = batches * epochs
    step = update % batches if schedule == "sawtooth" else update
    if schedule == "constant":
        return 1.0
    if step < WARM * total:
        return step / (WARM * total)
    return 0.5 * (1 + math.cos(math.pi * max(0.0, step / total - FLAT) / (1 - FLAT)))
