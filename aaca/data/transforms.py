"""Pixels on their way into a model: training augmentation (an image at a time, or a batch at once) and evaluation."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from timm.data import create_transform
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from aaca.runtime.errors import ConfigError

ImageTransform = Callable[[Image.Image], Tensor]


class Augment(ABC):
    """Training augmentation: the role of `recipe.augment`."""

    @abstractmethod
    def per_image(self, size: int, mean: Sequence[float], std: Sequence[float]) -> ImageTransform | None:
        """PIL image → normalised float `[3, size, size]`, for dataloader workers; None where the batch form is used."""

    @abstractmethod
    def per_batch(self, images: Tensor) -> Tensor:
        """Augment a float batch `[B, 3, S, S]` in [0, 1] on its device; identity where the per-image form is used."""


class TimmAugment(Augment):
    """timm's `create_transform`, one image at a time: the MAE fine-tuning augmentation with its defaults.

    RandomResizedCrop(`scale_min`…1), flip 0.5, RandAugment, no colour jitter, bicubic, RandomErasing in pixel mode.
    """

    def __init__(
        self,
        randaugment: str | None = "rand-m9-mstd0.5-inc1",
        erasing: float = 0.25,
        scale_min: float = 0.08,
        hflip: float = 0.5,
    ) -> None:
        if not 0 < scale_min <= 1:
            raise ConfigError(f"recipe.augment.scale_min: expected a share of the area in (0, 1], got {scale_min}")
        self.randaugment = randaugment
        self.erasing = erasing
        self.scale_min = scale_min
        self.hflip = hflip

    def per_image(self, size: int, mean: Sequence[float], std: Sequence[float]) -> ImageTransform:
        """timm's training transform for this size and normalisation."""
        transform: ImageTransform = create_transform(
            input_size=size,
            is_training=True,
            scale=(self.scale_min, 1.0),
            hflip=self.hflip,
            color_jitter=None,
            auto_augment=self.randaugment,
            interpolation="bicubic",
            re_prob=self.erasing,
            re_mode="pixel",
            re_count=1,
            mean=tuple(mean),
            std=tuple(std),
        )
        return transform

    def per_batch(self, images: Tensor) -> Tensor:
        """Nothing is left to do."""
        return images


class BatchAugment(Augment):
    """Random resized crop, flip and brightness for a whole batch in one resampling: fast where images are small.

    Every image draws its own: crop of `scale_min`…1 of the area, flip with probability `hflip`, brightness factor
    1 ± `brightness`.
    """

    def __init__(self, scale_min: float = 0.7, hflip: float = 0.5, brightness: float = 0.2) -> None:
        if not 0 < scale_min <= 1:
            raise ConfigError(f"recipe.augment.scale_min: expected a share of the area in (0, 1], got {scale_min}")
        self.scale_min = scale_min
        self.hflip = hflip
        self.brightness = brightness

    def per_image(self, size: int, mean: Sequence[float], std: Sequence[float]) -> None:
        """Images travel as they are; the batch form does the work."""
        return None

    def per_batch(self, images: Tensor) -> Tensor:
        """The augmented batch, `[B, 3, S, S]` in [0, 1]."""
        n, device = len(images), images.device
        side = torch.empty(n, device=device).uniform_(self.scale_min, 1.0).sqrt()
        flip = torch.where(torch.rand(n, device=device) < self.hflip, -1.0, 1.0)
        shift = (torch.rand(n, 2, device=device) * 2 - 1) * (1 - side)[:, None]
        theta = torch.zeros(n, 2, 3, device=device)
        theta[:, 0, 0] = side * flip
        theta[:, 1, 1] = side
        theta[:, :, 2] = shift
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        cropped = F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
        gain = torch.empty(n, 1, 1, 1, device=device).uniform_(1 - self.brightness, 1 + self.brightness)
        return (cropped * gain).clamp_(0, 1)


class EvalTransform:
    """uint8 `[H, W, 3]` → uint8 `[3, size, size]`: shorter side to size/0.875 (bicubic), centre crop; MAE's evaluation.

    Above 224 px the crop takes the whole image, as in MAE; an image that already is size × size is left as it is.
    """

    def __init__(self, size: int) -> None:
        crop_share = 224 / 256 if size <= 224 else 1.0
        bicubic = InterpolationMode.BICUBIC
        self.size = size
        self.resize = v2.Resize(math.floor(size / crop_share), interpolation=bicubic, antialias=True)
        self.crop = v2.CenterCrop(size)

    def __call__(self, image: np.ndarray) -> Tensor:
        """The centre of one image."""
        pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        if pixels.shape[1:] == (self.size, self.size):
            return pixels
        return torch.as_tensor(self.crop(self.resize(pixels)))


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(images − mean) / std by channel, of a float batch `[B, 3, S, S]`, in place."""
    m = torch.tensor(mean, device=images.device).view(1, 3, 1, 1)
    s = torch.tensor(std, device=images.device).view(1, 3, 1, 1)
    return images.sub_(m).div_(s)
