"""What a sweep of head edits costs: 20 settings on one bank of stored features, at the sizes of Waterbirds' ResNet-50.

OMP_NUM_THREADS=1 python tests/bench/edit_sweep.py [images] [features]
"""

import logging
import sys
import time

import numpy as np
import torch

from aaca.models.head import FeatureBank, Head
from aaca.runtime.log import setup_logging
from aaca.training.edit_head import EditRecipe, edit_head
from aaca.training.trainer import TrainerSpec

CLASSES, CHOSEN = 2, 6
SETTINGS = [(method, strength) for method in ("retention", "retention_mean", "log_ratio") for strength in (0.001, 0.01, 0.03, 0.1, 0.3, 1.0)]  # fmt: skip # noqa: E501
SETTINGS += [("mask_refit", 0.0), ("ce", 0.0)]


def bank_of(images: int, size: int, head: Head, seed: int) -> FeatureBank:
    """Features as after a ReLU; what they are does not matter to the time."""
    rng = np.random.default_rng(seed)
    features = torch.from_numpy(np.maximum(rng.normal(size=(images, size)), 0).astype(np.float32))
    labels = torch.from_numpy(rng.integers(0, CLASSES, images))
    groups = np.array([f"{label}|{place}" for label, place in zip(labels, rng.integers(0, 2, images), strict=True)])
    return FeatureBank(head, features, labels, np.arange(images), groups.astype(object), ("land", "water"))


def main(images: int, size: int) -> None:
    """All settings one after the other, 20 epochs each without an early stop."""
    setup_logging()
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)  # it was imported first, with a log of its own
    head = Head(
        torch.randn(CLASSES, size, generator=torch.Generator().manual_seed(0)) / size**0.5, torch.zeros(CLASSES)
    )
    train, val = bank_of(images, size, head, 1), bank_of(images // 4, size, head, 2)
    neurons = {1: list(range(CHOSEN))}
    began, used, updates = time.perf_counter(), time.process_time(), 0
    for method, strength in SETTINGS:
        recipe = EditRecipe(method=method, strength=strength, patience=None)  # type: ignore[arg-type]
        updates += edit_head(train, val, neurons, recipe, TrainerSpec(accelerator="cpu"), 0).updates
    taken, used = time.perf_counter() - began, time.process_time() - used
    print(f"{len(SETTINGS)} settings on {images} × {size} features: {taken:.1f} s in all ({used:.1f} CPU s),", end=" ")
    print(f"{taken / len(SETTINGS):.2f} s a setting, {1e3 * taken / updates:.2f} ms an update ({updates} of them)")


if __name__ == "__main__":
    main(*(int(value) for value in [*sys.argv[1:], *["4795", "2048"][len(sys.argv) - 1 :]]))
