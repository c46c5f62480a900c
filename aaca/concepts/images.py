"""Concept sets as images: what shows a concept (C) and what does not (C'), procedural or from folders, documented."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from aaca.data.images import open_image
from aaca.runtime.errors import ConfigError, DataError, nearest
from aaca.world.scenes import stream
from aaca.world.textures import TEXTURES, texture

Direction = Literal["desensitise", "sensitise"]
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


@dataclass(frozen=True)
class ConceptImages:
    """Images uint8 `[N, S, S, 3]` that show one concept, and where they come from."""

    name: str
    images: np.ndarray
    origin: str


@dataclass(frozen=True)
class ConceptPair:
    """C and C', what the loss shall do with their direction, with which weight, for which classes (None: all)."""

    positive: ConceptImages
    negative: ConceptImages
    direction: Direction = "desensitise"
    weight: float = 1.0
    classes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Raise `ConfigError` on a pair that makes no sense."""
        if self.weight <= 0:
            raise ConfigError(f"concept pair {self.positive.name}: weight {self.weight}; expected a positive number")
        if self.positive.images.shape[1:] != self.negative.images.shape[1:]:
            raise DataError(
                f"concept pair {self.positive.name}: images of {self.positive.images.shape[1:]} and of "
                f"{self.negative.images.shape[1:]}; expected one size"
            )


def flat(colour: tuple[int, int, int], n: int, size: int, seed: int = 0) -> ConceptImages:
    """Patches of one colour (0…255), brightness varied by up to a quarter (`biased_color` of the released code)."""
    name = "flat " + ",".join(map(str, colour))

    def draw(rng: np.random.Generator) -> np.ndarray:
        return np.broadcast_to(np.array(colour) * rng.uniform(0.75, 1.0), (size, size, 3))

    return _made(name, draw, n, seed, "patches of one colour")


def grey(level: int, n: int, size: int, seed: int = 0) -> ConceptImages:
    """Black images with a grey square of 5/28 of the side at a random place: DecoyMNIST's patch as a concept."""
    side = max(1, round(size * 5 / 28))

    def draw(rng: np.random.Generator) -> np.ndarray:
        image = np.zeros((size, size, 3))
        top, left = rng.integers(0, size - side + 1, 2)
        image[top : top + side, left : left + side] = level
        return image

    return _made(f"grey {level}", draw, n, seed, "a grey square on black")


def blobs(n: int, size: int, seed: int = 0) -> ConceptImages:
    """Black and white blobs, without colour and without class: the C' of all colours and textures (`randoms`)."""

    def draw(rng: np.random.Generator) -> np.ndarray:
        field = gaussian_filter(rng.standard_normal((size, size)), size / 14)
        return np.repeat((field > np.quantile(field, rng.uniform(0.4, 0.8)))[..., None] * 255.0, 3, axis=2)

    return _made("blobs", draw, n, seed, "black and white blobs")


def textured(number: int, n: int, size: int, seed: int = 0) -> ConceptImages:
    """A procedural texture over the whole image, at random places of its pattern: TextureMNIST's concepts."""
    if not 0 <= number < len(TEXTURES):
        raise ConfigError(f"texture {number}; expected 0…{len(TEXTURES) - 1}")
    return _made(f"texture {number}", lambda rng: texture(number, size, rng), n, seed, "a texture over the whole image")


def masked(name: str, images: Sequence[np.ndarray], masks: Sequence[np.ndarray], size: int) -> ConceptImages:
    """What lies below a concept's mask, cut out with a margin, everything else grey: crops of a benchmark's own images.

    `images`: uint8 `[H, W, 3]`; `masks`: `[H, W]` in 0…1, each covering something.
    """
    found = []
    for image, mask in zip(images, masks, strict=True):
        rows, columns = (np.flatnonzero(mask.max(axis=axis) > 0.5) for axis in (1, 0))
        if not len(rows):
            raise DataError(f"concept {name}: a mask that covers nothing")
        seen = np.where(mask[..., None] > 0.5, image, 128).astype(np.uint8)
        crop = seen[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        found.append(np.asarray(Image.fromarray(crop).resize((size, size), Image.Resampling.BILINEAR)))
    return ConceptImages(name, np.stack(found), "crops by mask")


def from_folder(folder: Path, size: int, most: int | None = None) -> ConceptImages:
    """The images of a folder (by name, the first `most`), each resized to a square. Raises `DataError` for none."""
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in ENDINGS) if folder.is_dir() else []
    if not files:
        raise DataError(f"{folder}: no concept images; expected files ending in {', '.join(ENDINGS)}")
    resized = [np.asarray(open_image(file).resize((size, size), Image.Resampling.BILINEAR)) for file in files[:most]]
    return ConceptImages(folder.name, np.stack(resized), str(folder))


GENERATORS: dict[str, Callable[..., ConceptImages]] = {"flat": flat, "grey": grey, "blobs": blobs, "texture": textured}
"""Procedural concept sets by the name that a config gives them."""


def generate(kind: str, **arguments: object) -> ConceptImages:
    """A procedural set by name. Raises `ConfigError` with the nearest valid one."""
    if kind not in GENERATORS:
        raise ConfigError(f"concept images: {kind!r}; {nearest(kind, GENERATORS)}")
    return GENERATORS[kind](**arguments)


def _made(
    name: str, draw: Callable[[np.random.Generator], np.ndarray], n: int, seed: int, origin: str
) -> ConceptImages:
    images = [draw(stream(seed, "concept images", name, index)) for index in range(n)]
    return ConceptImages(name, np.stack(images).round().clip(0, 255).astype(np.uint8), origin)
