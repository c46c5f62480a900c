"""`Tuning`: how a repair goes on training from f0: fewer epochs, a rate of its own, everything else as the recipe."""

from dataclasses import replace

from aaca.models.classifier import ClassifierSource
from aaca.repair.base import Repair
from aaca.runtime.errors import ConfigError
from aaca.training.recipe import Recipe


class Tuning(Repair):
    """A repair that trains on with `epochs`, `lr` (constant; None: the recipe's, with its schedule), `batch_size`.

    None keeps the recipe's own.
    """

    mixes_well: bool = True  # whether mixup and cutmix go with it

    def __init__(self, epochs: int | None = None, lr: float | None = None, batch_size: int | None = None) -> None:
        for name, value in (("epochs", epochs), ("lr", lr), ("batch_size", batch_size)):
            if value is not None and value <= 0:
                raise ConfigError(f"repair.{name}: {value}; expected a number above 0")
        self.epochs, self.lr, self.batch_size = epochs, lr, batch_size

    def check(self, model: ClassifierSource, recipe: Recipe) -> None:
        """Raise `ConfigError` for mixed images, where the loss is of single ones."""
        if not self.mixes_well and recipe.mixes:
            raise ConfigError("recipe.mixup, recipe.cutmix: a mixed image has no class of its own; expected 0")

    def tuned(self, recipe: Recipe) -> Recipe:
        """The recipe of this repair."""
        changes: dict[str, float | int | None] = {}
        if self.epochs is not None:
            changes |= {"epochs": self.epochs, "warmup_epochs": min(recipe.warmup_epochs, self.epochs / 4)}
        if self.lr is not None:
            changes |= {"lr": self.lr, "min_lr": self.lr, "warmup_epochs": 0.0}
        if self.batch_size is not None:
            changes["batch_size"] = self.batch_size
        return replace(recipe, **changes)  # type: ignore[arg-type]
