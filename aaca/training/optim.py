"""Parameter groups with layer-wise learning-rate decay, and MAE's warm-up and half-cosine by fractional epoch."""

import math
from collections.abc import Callable
from typing import Any

from timm.optim import param_groups_layer_decay
from torch import nn

ALWAYS_FREE = ("pos_embed", "cls_token", "reg_token")  # position and class tokens carry no weight decay, as in MAE


def layer_id(name: str, depth: int) -> int:
    """The layer a ViT parameter belongs to: 0 embeddings, k + 1 block k, depth + 1 final norm and head (MAE's rule)."""
    if name.startswith(("cls_token", "reg_token", "pos_embed", "patch_embed", "norm_pre", "mask_token")):
        return 0
    if name.startswith("blocks."):
        return int(name.split(".")[1]) + 1
    return depth + 1


def parameter_groups(backbone: nn.Module, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
    """Optimiser groups with `lr_scale` = layer_decay^(depth + 1 − layer id) and no decay on 1-D and token parameters.

    ViTs are grouped by MAE's rule, in which the final norm shares the head's scale 1 in both pooling modes (timm's own
    grouping puts it into the last block). Other models with layer_decay < 1 are grouped by timm.
    """
    blocks = getattr(backbone, "blocks", None)
    is_vit = isinstance(blocks, nn.Sequential | nn.ModuleList) and hasattr(backbone, "pos_embed")
    if layer_decay < 1 and not is_vit:
        groups: list[dict[str, Any]] = param_groups_layer_decay(
            backbone, weight_decay=weight_decay, layer_decay=layer_decay, no_weight_decay_list=ALWAYS_FREE
        )
        return groups
    depth = len(blocks) if is_vit and blocks is not None else 0
    found: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in backbone.named_parameters():
        if not parameter.requires_grad:
            continue
        layer = layer_id(name, depth) if is_vit else 0
        free = parameter.ndim <= 1 or name in ALWAYS_FREE
        scale = layer_decay ** (depth + 1 - layer) if is_vit else 1.0
        group = found.setdefault(
            (layer, free), {"params": [], "lr_scale": scale, "weight_decay": 0.0 if free else weight_decay}
        )
        group["params"].append(parameter)
    return [found[key] for key in sorted(found)]


def learning_rate(epoch: float, epochs: float, peak: float, minimum: float, warmup: float) -> float:
    """The learning rate at a fractional epoch: linear from 0 to `peak` over `warmup` epochs, then half a cosine."""
    if epoch < warmup:
        return peak * epoch / warmup
    progress = (epoch - warmup) / max(epochs - warmup, 1e-12)
    return minimum + (peak - minimum) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def lr_factor(
    batches: int, accumulate: int, epochs: int, peak: float, minimum: float, warmup: float
) -> Callable[[int], float]:
    """update number → learning rate / peak, set before the update's first micro-batch.

    The fractional epoch of update u is its epoch + (micro-batches before it in the epoch) / `batches`.
    """
    updates = math.ceil(batches / accumulate)

    def factor(update: int) -> float:
        epoch = update // updates + (update % updates) * accumulate / batches
        return learning_rate(epoch, epochs, peak, minimum, warmup) / peak

    return factor
