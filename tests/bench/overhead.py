"""`make bench`: what the framework costs on top of bare PyTorch, as median ratios of interleaved pairs of runs.

1. One training epoch through `FineTune` against a plain loop: same model, batches, augmentation, optimiser.
2. Scoring a pool through `Extract` (features written to disk) against the bare forward passes over it.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from torch.optim import AdamW

from aaca.data.module import ImageDataModule
from aaca.data.table import ImageTable
from aaca.data.transforms import BatchAugment, normalise
from aaca.models.classifier import Classifier
from aaca.models.timm_model import TimmModel
from aaca.runtime.log import setup_logging
from aaca.training.extract import extract_features
from aaca.training.finetune import FineTune
from aaca.training.recipe import Recipe
from aaca.training.trainer import TrainerSpec

PAIRS, TRAIN, POOL, SIZE, CLASSES = 7, 2400, 20_000, 64, 4
SPEC = TrainerSpec(accelerator="cpu")
SMALL = {"layers": [1, 1, 1, 1], "channels": [16, 32, 64, 128], "stem_type": "deep", "stem_width": 8}


def table(folder: Path, n: int) -> ImageTable:
    """n random images in one array file."""
    np.save(folder / "images.npy", np.random.default_rng(0).integers(0, 255, (n, SIZE, SIZE, 3), dtype=np.uint8))
    rows = np.arange(n)
    frame = pd.DataFrame({"id": rows.astype(str), "label": rows % CLASSES, "path": "images.npy", "row": rows})
    return ImageTable.build(frame, [str(label) for label in range(CLASSES)], folder)


def recipe() -> Recipe:
    """The demo's recipe, one epoch of it."""
    flat = {"mixup": 0.0, "cutmix": 0.0, "smoothing": 0.0, "drop_path": 0.0, "layer_decay": 1.0}
    return Recipe(augment=BatchAugment(), epochs=1, lr=3e-3, warmup_epochs=0, **flat)


def model() -> Classifier:
    """The demo's classifier from a fixed seed."""
    torch.manual_seed(0)
    return TimmModel("resnet18", SIZE, kwargs=SMALL).build(CLASSES)


def data(images: ImageTable) -> ImageDataModule:
    """Batches for both sides of the comparison."""
    source = model()
    return ImageDataModule(
        SIZE, source.mean, source.std, 64, train=images, val=images, predict=images, augment=BatchAugment()
    )


class EpochTime(pl.Callback):
    """Seconds from the first batch's fetch to the end of the epoch."""

    seconds = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self.began = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop it."""
        self.seconds = time.perf_counter() - self.began


def framework_epoch(images: ImageTable) -> float:
    """Seconds of one epoch through FineTune and Lightning."""
    clock, batches = EpochTime(), data(images)
    module = FineTune(model().train(), recipe(), CLASSES, batches.batches_per_epoch(1))
    loop = SPEC.make("bench", callbacks=[clock], limit_val_batches=0)
    loop.fit(module, datamodule=batches)
    return clock.seconds


def bare_epoch(images: ImageTable) -> float:
    """Seconds of one epoch in a plain loop."""
    classifier, batches, augment = model().train(), data(images), BatchAugment()
    optimizer = AdamW(classifier.parameters(), lr=3e-3, weight_decay=0.05, fused=True)
    loss_function = torch.nn.CrossEntropyLoss()
    began = time.perf_counter()
    for raw, labels, _ in batches.train_dataloader():
        pixels = normalise(augment.per_batch(raw.float().div_(255)), batches.mean, batches.std)
        loss = loss_function(classifier(pixels), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - began


def framework_pool(images: ImageTable) -> float:
    """Seconds of a whole feature pass, store and checks included."""
    classifier = model().eval()
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        extract_features(classifier, images, Path(folder), SPEC, batch_size=256)
        return time.perf_counter() - began


@torch.inference_mode()
def bare_pool(images: ImageTable) -> float:
    """Seconds of the bare forward passes over the pool."""
    classifier, batches = model().eval(), data(images)
    batches.batch_size = 256
    began = time.perf_counter()
    for raw, _, _ in batches.predict_dataloader():
        classifier.embed(normalise(raw.float().div_(255), batches.mean, batches.std))
    return time.perf_counter() - began


def compare(name: str, ours: Callable[[], float], bare: Callable[[], float]) -> None:
    """Print the median ratio of interleaved pairs, and its range."""
    ours(), bare()  # warm-up
    pairs = [(ours(), bare()) for _ in range(PAIRS)]
    ratios = sorted(a / b for a, b in pairs)
    a, b = (statistics.median(column) for column in zip(*pairs, strict=True))
    spread = f"{ratios[0]:.3f}…{ratios[-1]:.3f}"
    print(
        f"{name:<16} {a:6.2f} s against {b:6.2f} s bare   "
        f"ratio {statistics.median(ratios):.3f}  ({spread}, {PAIRS} pairs)"
    )


def answers() -> None:
    """Print how long the command line takes to answer, as a whole process (the promise: under 1.5 s)."""
    command = Path(sys.executable).with_name("aaca")
    for arguments in ([], ["--help"], ["debug", "--help"], ["debug", "--cfg", "job"]):
        seconds = []
        for _ in range(PAIRS):
            began = time.perf_counter()
            subprocess.run([command, *arguments], check=True, capture_output=True)
            seconds.append(time.perf_counter() - began)
        print(f"{' '.join(['aaca', *arguments]):<22} {statistics.median(seconds):.2f} s, at most {max(seconds):.2f} s")


def main() -> None:
    """Both comparisons, and the command line's answers."""
    setup_logging()
    answers()
    with tempfile.TemporaryDirectory() as folder:
        train = table(Path(folder), TRAIN)
        compare("training epoch", lambda: framework_epoch(train), lambda: bare_epoch(train))
    with tempfile.TemporaryDirectory() as folder:
        pool = table(Path(folder), POOL)
        compare("scoring a pool", lambda: framework_pool(pool), lambda: bare_pool(pool))


if __name__ == "__main__":
    main()
