"""Small true things for tests: a benchmark of coloured squares, a tiny ViT, a recipe without chance."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from pytorch_lightning.callbacks import Callback

from aaca.data.table import ImageTable
from aaca.data.transforms import BatchAugment
from aaca.models.timm_model import TimmModel
from aaca.training.recipe import Recipe

SIZE = 16
SMOKE = ("size=smoke", "trainer=cpu", "dataset.workers=1", "dataset.image_size=32", "model.image_size=32")
METHODS = ("none", "duplicate", "s_random", "s_similarity", "s_active_learning")


class Killed(BaseException):
    """Not an `Exception`: nothing may catch it, as nothing catches SIGKILL."""


class Stop(Callback):
    """Dies like a killed process would, as far as a loop can tell: at a hook, without a word."""

    def __init__(self, hook: str, count: int) -> None:
        self.left = count
        setattr(self, hook, self.hit)

    def hit(self, *_: object, **__: object) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed


def square_table(folder: Path, n: int, split: str = "train", seed: int = 0, classes: int = 2) -> ImageTable:
    """n noisy images, class k brightest in channel k; group alternates between a and b within a class."""
    generator = np.random.default_rng((seed, n))
    labels = np.arange(n) % classes
    images = generator.integers(0, 90, (n, SIZE, SIZE, 3), dtype=np.uint8)
    images[np.arange(n), 4:12, 4:12, labels] += 120
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"{split}.npy", images)
    frame = pd.DataFrame(
        {
            "id": [f"{split}/{row:04d}" for row in range(n)],
            "label": labels,
            "split": split,
            "group": [f"{label}{'ab'[row // classes % 2]}" for row, label in enumerate(labels)],
            "source": [f"{split}-{row}" for row in range(n)],
            "path": f"{split}.npy",
            "row": np.arange(n),
        }
    )
    return ImageTable.build(frame, [f"class{label}" for label in range(classes)], folder)


def tiny_vit() -> TimmModel:
    """A ViT of a few thousand parameters; layer norm only, so the batch split over ranks does not matter."""
    kwargs = {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
    return TimmModel("vit_tiny_patch16_224", SIZE, kwargs=kwargs)


def plain_recipe(**changes: object) -> Recipe:
    """No augmentation, no mixing, no dropping."""
    values: dict[str, object] = {
        "augment": BatchAugment(scale_min=1.0, hflip=0.0, brightness=0.0),
        "epochs": 2,
        "batch_size": 8,
        "blr": 0.1,
        "warmup_epochs": 0.5,
        "layer_decay": 1.0,
        "drop_path": 0.0,
        "mixup": 0.0,
        "cutmix": 0.0,
        "smoothing": 0.0,
    }
    return Recipe(**{**values, **changes})  # type: ignore[arg-type]


def picture_folder(root: Path, per_class: int = 24, classes: Sequence[str] = ("cat", "dog")) -> Path:
    """root/train|val/<class>/*.png: class k has its own hue, every image its own shade."""
    for split, count in (("train", per_class), ("val", 6)):
        for label, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True, exist_ok=True)
            for index in range(count):
                shade = 3 * index + (100 if split == "val" else 0)
                colour = (200, shade, 10 * label) if label % 2 else (shade, 200, 10 * label)
                Image.new("RGB", (40, 36), colour).save(folder / f"{index}.png")
    return root
