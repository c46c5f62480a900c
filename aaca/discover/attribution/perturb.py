"""Taking a concept out of an image: what is below a mask is blurred until its shapes are gone."""

import torch
import torch.nn.functional as F
from torch import Tensor

BLUR = 1 / 8
"""Standard deviation of the blur, as a share of the image's side."""


def blur(images: Tensor, share: float = BLUR) -> Tensor:
    """Images `[B, C, S, S]` smoothed by a Gaussian whose deviation is `share` of the side: colours stay, shapes go."""
    side, channels = images.shape[-1], images.shape[1]
    sigma = max(share * side, 0.5)
    reach = min(int(3 * sigma), side - 1)
    places = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-(places**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(channels, 1, -1)
    padded = F.pad(images, (reach, reach, reach, reach), mode="reflect")
    rows = F.conv2d(padded, kernel[:, :, None, :], groups=channels)
    return F.conv2d(rows, kernel[:, :, :, None], groups=channels)


def without(images: Tensor, masks: Tensor) -> Tensor:
    """Images `[B, C, S, S]` blurred where masks `[B, h, w]` in 0…1 say so, softly at their borders."""
    soft = F.interpolate(masks[:, None].to(images.dtype), size=images.shape[-2:], mode="bilinear", align_corners=False)
    return images * (1 - soft) + blur(images) * soft


def without_cells(images: Tensor, cells: Tensor) -> Tensor:
    """Images `[B, C, S, S]` blurred in the cells `[B, h, w]` that are 1, sharply at their borders."""
    hard = F.interpolate(cells[:, None].to(images.dtype), size=images.shape[-2:], mode="nearest")
    return torch.where(hard > 0.5, blur(images), images)
