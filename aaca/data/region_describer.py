"""`RegionDescriber`: an image and the boxes of its regions as vectors, each number of them with mean 0 and deviation 1.

Unlike the released files', whose numbers are all 0 or more: embeddings of one backbone share a large offset that says
nothing, and a captioner of few images learns names from them several times as well without it (docs/captions.md).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from aaca.world.render import Box

Embed = Callable[[np.ndarray], np.ndarray]
"""Images uint8 `[N, S, S, 3]` to vectors `[N, D]`."""

Boxed = tuple[np.ndarray, Sequence[Box]]
"""An image uint8 `[H, W, 3]` and boxes in it, right and bottom exclusive."""
GEOMETRY = 5
STILL = 1e-6
"""A number whose deviation is below this is as good as constant, and not blown up."""


@dataclass(frozen=True)
class Standard:
    """Mean and standard deviation `[D]` of each number of vectors."""

    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def fit(cls, rows: np.ndarray) -> "Standard":
        """Those of rows `[N, D]`; a number that does not vary has deviation 1."""
        std = rows.std(axis=0)
        return cls(rows.mean(axis=0), np.where(std > STILL, std, 1.0))

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Rows `[..., D]` less the mean, by the deviation."""
        return np.asarray((rows - self.mean) / self.std)

    def to_json(self) -> dict[str, list[float]]:
        """As lists."""
        return {"mean": self.mean.astype(float).tolist(), "std": self.std.astype(float).tolist()}

    @classmethod
    def from_json(cls, told: Mapping[str, Sequence[float]]) -> "Standard":
        """From what `to_json` returns."""
        return cls(np.asarray(told["mean"]), np.asarray(told["std"]))


@dataclass(frozen=True)
class RegionDescriber:
    """Embeds crops of `crop_size` pixels a side; a region's vector ends with five numbers: its box and its area."""

    embed: Embed
    crop_size: int
    images: Standard
    regions: Standard

    @classmethod
    def fit(cls, embed: Embed, crop_size: int, boxed: Sequence[Boxed]) -> "RegionDescriber":
        """Means and deviations are those of these images and their boxes."""
        told = list(_raw(embed, crop_size, boxed))
        wholes, regions = np.stack([whole for whole, _ in told]), np.concatenate([rows for _, rows in told])
        return cls(embed, crop_size, Standard.fit(wholes), Standard.fit(regions))

    @classmethod
    def from_json(cls, embed: Embed, told: Mapping[str, Any]) -> "RegionDescriber":
        """What `to_json` has written, with the same `embed`."""
        parts = {name: Standard.from_json(told[name]) for name in ("images", "regions")}
        return cls(embed, int(told["crop_size"]), **parts)

    def to_json(self) -> dict[str, Any]:
        """All but the embedding."""
        return {"crop_size": self.crop_size, "images": self.images.to_json(), "regions": self.regions.to_json()}

    def __call__(self, boxed: Sequence[Boxed]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Of each image the whole's vector `[D]` and those of its boxes `[n, D + 5]`, in order."""
        told = _raw(self.embed, self.crop_size, boxed)
        return [(self.images(whole), self.regions(rows)) for whole, rows in told]


def _raw(embed: Embed, size: int, boxed: Sequence[Boxed]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    crops = [crop(rgb, box, size) for rgb, boxes in boxed for box in (whole(rgb), *boxes)]
    vectors, at = embed(np.stack(crops)), 0
    for rgb, boxes in boxed:
        own, at = vectors[at : at + len(boxes) + 1], at + len(boxes) + 1
        places = np.array([geometry(box, rgb) for box in boxes]).reshape(len(boxes), GEOMETRY)
        yield own[0], np.concatenate([own[1:], places], axis=1)


def whole(rgb: np.ndarray) -> Box:
    """The box of a whole image."""
    return 0, 0, rgb.shape[1], rgb.shape[0]


def crop(rgb: np.ndarray, box: Box, size: int) -> np.ndarray:
    """A box of an image as `[size, size, 3]` uint8."""
    return np.asarray(Image.fromarray(rgb).resize((size, size), Image.Resampling.BICUBIC, box=box))


def geometry(box: Box, rgb: np.ndarray) -> np.ndarray:
    """A box and its area as shares of the image, `[5]`."""
    height, width = rgb.shape[:2]
    x1, y1, x2, y2 = box[0] / width, box[1] / height, box[2] / width, box[3] / height
    return np.array([x1, y1, x2, y2, (x2 - x1) * (y2 - y1)])
