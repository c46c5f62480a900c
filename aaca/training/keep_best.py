"""`KeepBest`: the weights of the best epoch, by a validation figure."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from torch import Tensor


class KeepBest(Callback):
    """Remembers the weights of the epoch whose `figure` is highest (first of equals), restores them at the end.

    `figure`: as it is logged, such as "val/accuracy"; `lower`: the lowest is the best.
    """

    def __init__(self, figure: str, lower: bool = False) -> None:
        self.figure, self.sign = figure, -1.0 if lower else 1.0
        self.score, self.epoch = -float("inf"), -1
        self.weights: dict[str, Tensor] = {}

    def state_dict(self) -> dict[str, Any]:
        """The best so far."""
        return {"score": self.score, "epoch": self.epoch, "weights": self.weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after these."""
        self.score, self.epoch, self.weights = (state_dict[name] for name in ("score", "epoch", "weights"))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep a copy where this epoch is better than all before."""
        score = self.sign * float(trainer.callback_metrics[self.figure])
        if score > self.score:
            self.score, self.epoch = score, trainer.current_epoch
            self.weights = {name: value.detach().cpu().clone() for name, value in pl_module.state_dict().items()}

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the best weights back."""
        pl_module.load_state_dict(self.weights)
