"""`Recipe`: how a classifier is fine-tuned. One dataclass, the `recipe` config group; defaults are MAE's ViT-B/16."""

from dataclasses import dataclass
from typing import Any

from aaca.data.transforms import Augment
from aaca.runtime.config import identity
from aaca.runtime.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Fine-tuning hyper-parameters (He et al. 2022, "Masked Autoencoders", appendix A; released recipe for ViT-B/16).

    The learning rate is `lr`, or `blr · batch_size · accumulate · devices / 256` where `lr` is None.
    """

    augment: Augment
    epochs: int = 100
    batch_size: int = 64  # images a device and micro-batch
    accumulate: int = 1  # micro-batches an update
    blr: float = 5e-4
    lr: float | None = None
    min_lr: float = 1e-6
    warmup_epochs: float = 5.0
    weight_decay: float = 0.05
    layer_decay: float = 0.65
    drop_path: float = 0.1
    mixup: float = 0.8
    cutmix: float = 1.0
    mixup_prob: float = 1.0
    mixup_switch_prob: float = 0.5
    smoothing: float = 0.1
    clip_grad: float | None = None  # largest gradient norm; None = off, as in MAE
    strict_accumulation: bool = True  # MAE leaves out the last micro-batches of an epoch that do not fill an update

    def __post_init__(self) -> None:
        """Raise `ConfigError` on a value that cannot be trained with."""
        for name in ("epochs", "batch_size", "accumulate"):
            if getattr(self, name) < 1:
                raise ConfigError(f"recipe.{name}: expected at least 1, got {getattr(self, name)}")
        for name in ("drop_path", "smoothing", "mixup_prob", "mixup_switch_prob"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"recipe.{name}: expected a number in [0, 1], got {getattr(self, name)}")
        for name in ("lr", "blr"):
            rate = getattr(self, name)
            if rate is not None and rate <= 0:
                raise ConfigError(f"recipe.{name}: expected a learning rate above 0, got {rate}")
        for name in ("weight_decay", "min_lr", "warmup_epochs", "mixup", "cutmix"):
            if getattr(self, name) < 0:
                raise ConfigError(f"recipe.{name}: expected 0 or more, got {getattr(self, name)}")
        if self.clip_grad is not None and self.clip_grad <= 0:
            raise ConfigError(
                f"recipe.clip_grad: expected a norm above 0, or null for no clipping, got {self.clip_grad}"
            )
        if not 0 < self.layer_decay <= 1:
            raise ConfigError(f"recipe.layer_decay: expected a number in (0, 1], got {self.layer_decay}")
        if self.mixes and self.batch_size % 2:
            raise ConfigError(
                f"recipe.batch_size: mixup and cutmix pair images up; expected an even number, got {self.batch_size}"
            )
        if self.warmup_epochs >= self.epochs and self.warmup_epochs > 0:
            raise ConfigError(f"recipe.warmup_epochs: {self.warmup_epochs} must be below recipe.epochs ({self.epochs})")

    @property
    def mixes(self) -> bool:
        """Whether images of a batch are mixed (soft targets)."""
        return self.mixup > 0 or self.cutmix > 0

    def peak_lr(self, devices: int) -> float:
        """The learning rate after warm-up, on `devices` devices."""
        return self.lr if self.lr is not None else self.blr * self.batch_size * self.accumulate * devices / 256

    def fingerprint(self) -> dict[str, Any]:
        """Every hyper-parameter, and the augmentation's class and arguments."""
        return {**{name: getattr(self, name) for name in self.__dataclass_fields__}, "augment": identity(self.augment)}
