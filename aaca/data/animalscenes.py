"""`AnimalScenes`: animal silhouettes on real ground textures; the shape is the class, the ground is the shortcut."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL
from PIL import Image
from rich.progress import track

from aaca.data.animal_masks import MASKS_FILE, NAMES, SAME, Silhouettes, load_silhouettes
from aaca.data.benchmark import SPLITS, Benchmark, BenchmarkSource
from aaca.data.splits import check_per_class, stable_ranks
from aaca.data.table import ImageTable
from aaca.runtime.errors import ConfigError, nearest
from aaca.runtime.files import file_sha256
from aaca.world.pack import PACK, Piece, load_pack
from aaca.world.scenes import stream

VERSION = 1
"""Raised whenever the same arguments give other pixels."""

GROUNDS = {"bird": "sand", "cat": "brick", "elephant": "rock", "giraffe": "wood", "horse": "grass", "sheep": "snow"}
"""Six shapes that differ well, each tied to a ground."""

PER_CLASS: dict[str, int | None] = {"train": 600, "pool": 1000, "audit": 300, "test": 150}
"""Images a class; of `test` a class and slice."""

SHARES = {"train": 0.45, "pool": 0.25, "audit": 0.1, "test": 0.2}
"""Shares of each class's masks; the splits share none."""

TEXTURES = {"train": ("train",), "pool": ("train",), "audit": ("train", "val"), "test": ("test",)}
"""The pack's splits whose ground textures each split shows."""

SLICES = ("aligned", "conflicting", "balanced")


class AnimalScenes(BenchmarkSource):
    """Some 900 different masks a class (near-duplicates merged, `animal_masks.SAME`), so the benchmark for statistics.

    A mask is filled with a shaded, grained colour that says nothing about the class, and pasted on a texture. The
    class's own ground appears with probability p, else one of the others. In `test` every mask appears once in each
    slice, same pose: on its own ground (`aligned`), on another (`conflicting`), on any (`balanced`).

    Args:
        image_size: pixels a side.
        grounds: class → its ground (the planted bug), in label order; None takes six classes and six grounds.
        per_class: images a class (of `test` a class and slice); null = each mask once, more repeat masks in new poses.
        p_train: how often a class shows its ground in train.
        p_pool: the same for the pool.
        p_audit: the same for the audit split.
        seed: of all choices, the split of the masks included.

    """

    def __init__(
        self,
        image_size: int = 64,
        grounds: dict[str, str] | None = None,
        per_class: dict[str, int | None] | None = None,
        p_train: float = 0.95,
        p_pool: float = 0.8,
        p_audit: float = 0.8,
        seed: int = 0,
    ) -> None:
        self.image_size, self.seed = image_size, seed
        self.grounds = dict(GROUNDS if grounds is None else grounds)
        self.per_class = check_per_class(PER_CLASS if per_class is None else {**PER_CLASS, **per_class})
        self.p = {"train": p_train, "pool": p_pool, "audit": p_audit}
        if image_size < 16:
            raise ConfigError(f"dataset.image_size: {image_size}; expected 16 or more")
        for split, p in self.p.items():
            if not 0 <= p <= 1:
                raise ConfigError(f"dataset.p_{split}: {p}; expected a probability in 0…1")
        if len(self.grounds) < 2:
            raise ConfigError("dataset.grounds: expected at least 2 classes, or null for the default six")
        scenes = load_pack().labels("scene")
        for name, ground in self.grounds.items():
            if name not in NAMES:
                raise ConfigError(f"dataset.grounds.{name}: no such class; {nearest(name, NAMES)}")
            if ground not in scenes:
                raise ConfigError(f"dataset.grounds.{name}: no ground {ground!r}; {nearest(ground, scenes)}")

    def at_most(self, split: str) -> int | None:
        """What `per_class` asks for."""
        return self.per_class[split]

    def fingerprint(self) -> dict[str, Any]:
        """All arguments, the masks' and the pack's hashes, the renderer's and Pillow's versions."""
        return {
            "dataset": "animalscenes",
            "image_size": self.image_size,
            "grounds": list(self.grounds.items()),
            "per_class": self.per_class,
            "p": self.p,
            "seed": self.seed,
            "masks": [MASKS_FILE[1], SAME],
            "pack": file_sha256(PACK / "manifest.json"),
            "renderer": VERSION,
            "pillow": PIL.__version__,
        }

    def build(self, folder: Path) -> Benchmark:
        """Write `<split>.npy` (uint8 `[N, S, S, 3]`), the table, `benchmark.json`. Raises `DataError` without masks."""
        masks = load_silhouettes()
        folder.mkdir(parents=True, exist_ok=True)
        frames = []
        for split in SPLITS:
            rows = [row for name in self.grounds for row in self._plan(split, name, masks[name])]
            # Classes alternate, so that the first rows of an array hold all of them.
            rows.sort(key=lambda row: (SLICES.index(row["slice"]) if split == "test" else 0, row["index"]))
            images = np.lib.format.open_memmap(
                folder / f"{split}.npy", mode="w+", dtype=np.uint8, shape=(len(rows), *[self.image_size] * 2, 3)
            )
            for at, row in enumerate(track(rows, f"render {split}", transient=True)):
                row["row"], row["path"] = at, f"{split}.npy"
                images[at] = self._render(row, split, masks[row["class"]].masks[row.pop("mask")])
            images.flush()
            frames.append(pd.DataFrame(rows).drop(columns=["class", "index"]))
        table = ImageTable.build(pd.concat(frames, ignore_index=True), list(self.grounds), folder)
        benchmark = Benchmark(
            "animalscenes",
            table,
            description="Silhouettes of animals on ground textures; a planted bug ties every class to a ground. "
            "Masks and textures of test occur in no other split.",
            headline_slice="balanced",
            confounders=[
                {"class": name, "kind": "scene", "value": ground, "p": self.p["train"]}
                for name, ground in self.grounds.items()
            ],
        ).check()
        benchmark.save(folder)
        return benchmark

    def _plan(self, split: str, name: str, masks: Silhouettes) -> Iterator[dict[str, Any]]:
        """The rows of one class of a split: which mask on which ground."""
        own = self._masks(split, masks)
        for index in range(self.per_class[split] or len(own)):
            mask = own[index % len(own)]
            for slice_ in SLICES if split == "test" else ("all",):
                scene = self._scene(split, slice_, name, index)
                yield {
                    "id": f"animalscenes/{split}/{slice_}/{name}/{index:06d}",
                    "label": list(self.grounds).index(name),
                    "split": split,
                    "slice": slice_,
                    "group": f"{name} on {scene if scene == self.grounds[name] else 'other'}",
                    "source": f"animal/{name}/{masks.rows[mask]:04d}",
                    "caption": f"a silhouette of {'an' if name[0] in 'aeiou' else 'a'} {name} on {scene}",
                    "scene": scene,
                    "class": name,
                    "index": index,
                    "mask": mask,
                }

    def _masks(self, split: str, masks: Silhouettes) -> np.ndarray:
        """Positions of the masks that belong to a split, in seeded order."""
        order = np.argsort(stable_ranks(map(str, masks.rows), self.seed), kind="stable")
        bounds = dict(zip(SHARES, np.cumsum([*SHARES.values()]), strict=True))
        stop = round(bounds[split] * len(order))
        return order[round((bounds[split] - SHARES[split]) * len(order)) : stop]

    def _scene(self, split: str, slice_: str, name: str, index: int) -> str:
        draw = stream(self.seed, "animal ground", split, slice_, name, index)
        scenes = load_pack().labels("scene")
        if slice_ == "balanced":
            return scenes[draw.integers(len(scenes))]
        aligned = draw.random() < {"aligned": 1.0, "conflicting": 0.0}.get(slice_, self.p.get(split, 1.0))
        others = [scene for scene in scenes if scene != self.grounds[name]]
        return self.grounds[name] if aligned else others[draw.integers(len(others))]

    def _render(self, row: dict[str, Any], split: str, mask: np.ndarray) -> np.ndarray:
        draw = stream(self.seed, "animal pose", split, row["class"], row["index"])
        grain = _texture(split, load_pack().labels("scene")[draw.integers(len(load_pack().labels("scene")))], draw)
        pose = draw.random(8)
        ground = _texture(split, row["scene"], draw)
        return compose(mask, ground.pixels(), grain.pixels(), pose, self.image_size)


def _texture(split: str, scene: str, draw: np.random.Generator) -> Piece:
    """A ground texture: first a group of near-duplicates, then one of it."""
    groups = [group for part in TEXTURES[split] for group in load_pack().groups("scene", scene, part)]
    group = groups[draw.integers(len(groups))]
    return group[draw.integers(len(group))]


def compose(mask: np.ndarray, ground: np.ndarray, grain: np.ndarray, pose: np.ndarray, size: int) -> np.ndarray:
    """One image `[S, S, 3]` uint8: a mask `[28, 28]` with a colour, shade and grain, on a texture `[H, W, 3]`.

    `pose`, 8 numbers in 0…1: mirroring, angle, scale, left, top, hue, contrast, crop.
    """
    flip, angle, scale, left, top, hue, contrast, crop = pose
    scene = _crop(ground, size, crop).astype(np.float32)
    shape = Image.fromarray(mask[:, ::-1] if flip < 0.5 else mask)
    side = round(size * (0.6 + 0.25 * scale))
    shape = shape.rotate(24 * angle - 12, Image.Resampling.BICUBIC).resize((side, side), Image.Resampling.BICUBIC)
    canvas = Image.new("L", (size, size))
    canvas.paste(shape, (round(left * (size - side)), round(top * (size - side))))
    alpha = np.asarray(canvas, dtype=np.float32)[..., None] / 255

    level = float(scene.mean())
    step = 70 + 40 * contrast  # apart from the ground's own brightness, so that the outline shows
    value = level - step if level > 127 else level + step
    tint = np.cos(2 * np.pi * (hue + np.arange(3) / 3)) * 30
    light = np.linspace(1.15, 0.8, size)[:, None, None]
    texture = _crop(grain, size, 1 - crop).astype(np.float32).mean(axis=2, keepdims=True)
    fill = (value + tint) * light + 0.2 * (texture - texture.mean())
    return np.clip(np.rint(alpha * fill + (1 - alpha) * scene), 0, 255).astype(np.uint8)


def _crop(texture: np.ndarray, size: int, where: float) -> np.ndarray:
    """A square of half to all of the texture's shorter side, from its diagonal, scaled to `size`."""
    height, width = texture.shape[:2]
    side = int(min(height, width) * (0.5 + 0.5 * ((where * 7) % 1)))
    y, x = round(where * (height - side)), round(((where * 3) % 1) * (width - side))
    window = Image.fromarray(texture[y : y + side, x : x + side])
    return np.asarray(window.resize((size, size), Image.Resampling.BOX))
