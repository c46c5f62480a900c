"""Progress where there is no terminal to draw a bar on: a line every few seconds."""

import logging
import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar

log = logging.getLogger(__name__)


class ProgressLines(ProgressBar):
    """Logs `label`, epoch or batch, and the latest metrics, at most once in `every` seconds, from rank 0."""

    def __init__(self, label: str, every: float = 15.0) -> None:
        super().__init__()
        self.label, self.every = label, every
        self.last = time.monotonic()

    def disable(self) -> None:
        """Lightning calls this on ranks other than 0."""
        self.every = float("inf")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say which epoch ended."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        shown = "  ".join(f"{name} {value:.3f}" for name, value in metrics.items())
        self._say(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {shown}")

    def on_predict_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Say how many batches are done."""
        self._say(f"batch {batch_idx + 1}/{trainer.num_predict_batches[0]}")

    def _say(self, text: str) -> None:
        now = time.monotonic()
        if now - self.last >= self.every:
            self.last = now
            log.info("  %s  %s", self.label, text)
