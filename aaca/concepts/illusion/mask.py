"""Where in an image a neuron is active: a mask from its activation map."""

import torch
import torch.nn.functional as F
from torch import Tensor


def soft_mask(maps: Tensor, size: int, threshold: float, floor: float) -> Tensor:
    """`[B, S, S]` of maps `[B, h, w]`: `floor` where a map is less than `threshold` deviations above its mean, else 1.

    Maps are resized bilinearly, corners on corners (NeuroInspect, CLIP-Illusion). A constant map is nowhere above.
    """
    large = F.interpolate(maps[:, None].float(), size=(size, size), mode="bilinear", align_corners=True)[:, 0]
    mean = large.mean(dim=(1, 2), keepdim=True)
    deviation = large.std(dim=(1, 2), keepdim=True, unbiased=False).clamp(min=torch.finfo(large.dtype).tiny)
    return torch.where((large - mean) / deviation < threshold, floor, 1.0)


def neuron_maps(features: Tensor, width: int, prefix: int) -> Tensor | None:
    """The maps `[B, D, h, w]` of a backbone's last features, or None where its D = `width` neurons have none.

    Features are `[B, D, h, w]`, `[B, h, w, D]`, or tokens `[B, prefix + h², D]` of a square grid.
    """
    if features.ndim == 4 and features.shape[1] == width:
        return features
    if features.ndim == 4 and features.shape[3] == width:
        return features.permute(0, 3, 1, 2)
    if features.ndim == 3 and features.shape[2] == width:
        tokens = features[:, prefix:]
        side = round(tokens.shape[1] ** 0.5)
        if side * side == tokens.shape[1]:
            return tokens.transpose(1, 2).reshape(len(tokens), width, side, side)
    return None
