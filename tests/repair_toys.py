"""A small true benchmark for repairs: squares whose class a stripe gives away in training, and a network for it."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from aaca.concepts.images import ConceptImages, ConceptPair
from aaca.data.benchmark import Benchmark
from aaca.data.table import ImageTable
from aaca.models.timm_model import TimmModel
from aaca.repair.base import RepairContext, start_classifier
from aaca.training.fit import FitJob, fit_classifier
from aaca.training.trainer import TrainerSpec
from tests.toys import SIZE, plain_recipe

CPU = TrainerSpec(accelerator="cpu")
SIZES = {"train": 96, "pool": 16, "audit": 64, "test": 32}


def network() -> TimmModel:
    """Batch norm and a residual path, 16 px."""
    return TimmModel("resnet18", SIZE, kwargs={"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]})


def striped(rng: np.random.Generator, label: int, stripe: int) -> np.ndarray:
    """A faint square in channel `label`, a bright stripe above it where `stripe` is 0, below it where it is 1."""
    image = rng.integers(0, 60, (SIZE, SIZE, 3)).astype(np.int64)
    image[5:11, 5:11, label] += 60
    image[slice(0, 3) if stripe == 0 else slice(13, 16), :, 2] += 180
    return image.clip(0, 255).astype(np.uint8)


def stripes(folder: Path, share: float = 0.95) -> Benchmark:
    """Two classes; in train the stripe is the class's own in `share` of the images, elsewhere in half of them."""
    folder.mkdir(parents=True, exist_ok=True)
    frames = []
    for split, count in SIZES.items():
        rng = np.random.default_rng([len(split), count])
        labels = np.arange(count) % 2
        own = np.arange(count) // 2 % 2 == 0
        if split == "train":
            own = np.arange(count) // 2 >= round((1 - share) * count / 2)
        shown = np.where(own, labels, 1 - labels)
        np.save(folder / f"{split}.npy", np.stack([striped(rng, *pair) for pair in zip(labels, shown, strict=True)]))
        slices = np.where(own, "aligned", "conflicting") if split == "test" else "all"
        frame = {
            "id": [f"{split}/{row:03d}" for row in range(count)],
            "label": labels,
            "split": split,
            "slice": slices,
            "group": [f"{label} with stripe {stripe}" for label, stripe in zip(labels, shown, strict=True)],
            "source": [f"{split}-{row}" for row in range(count)],
            "path": f"{split}.npy",
            "row": np.arange(count),
        }
        frames.append(pd.DataFrame(frame))
    table = ImageTable.build(pd.concat(frames, ignore_index=True), ["red", "green"], folder)
    return Benchmark("stripes", table, headline_slice="conflicting").check()


def stripe_pair(n: int = 24, **more: Any) -> ConceptPair:
    """Images with the stripe above against images with the stripe below; both classes alike."""
    rng = np.random.default_rng(7)
    sets = [
        ConceptImages(name, np.stack([striped(rng, row % 2, stripe) for row in range(n)]), "drawn")
        for stripe, name in enumerate(("above", "below"))
    ]
    return ConceptPair(sets[0], sets[1], **more)


def context(folder: Path, source: TimmModel | None = None, **changes: Any) -> RepairContext:
    """All that a repair is given, f0 trained for a moment."""
    source = source or network()
    benchmark = stripes(folder / "data")
    recipe = plain_recipe(epochs=12, batch_size=16, lr=1e-2)
    f0 = folder / "f0"
    f0.mkdir()
    fit_classifier(
        start_classifier(source, 2, recipe, 0),
        FitJob(benchmark.split("train"), benchmark.split("audit"), recipe, CPU, "last", 96, 0, "f0"),
        f0,
    )
    values: dict[str, Any] = {
        "benchmark": benchmark,
        "debug": None,
        "f0_weights": f0 / "model.safetensors",
        "model": source,
        "recipe": recipe,
        "trainer": CPU,
        "rule": "last",
        "epoch_size": 96,
        "seed": 0,
        "pairs": (stripe_pair(),),
    }
    return RepairContext(**{**values, **changes})
