"""What attribution needs to know of a timm vision transformer: its grid, its prefix tokens, its attention matrices."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from aaca.models.classifier import Classifier
from aaca.runtime.errors import ConfigError


def is_transformer(classifier: Classifier) -> bool:
    """Whether the backbone is a plain vision transformer of timm: blocks of global attention over patch tokens."""
    backbone = classifier.backbone
    blocks = getattr(backbone, "blocks", None)
    return bool(
        hasattr(backbone, "patch_embed")
        and isinstance(blocks, nn.Sequential | nn.ModuleList)
        and all(hasattr(getattr(block, "attn", None), "attn_drop") for block in blocks)
        and hasattr(backbone, "num_prefix_tokens")
    )


def check_transformer(classifier: Classifier, method: str) -> None:
    """Raise `ConfigError` unless `is_transformer`."""
    if not is_transformer(classifier):
        raise ConfigError(
            f"attribution: {method} needs a vision transformer with attention over patches, and "
            f"{type(classifier.backbone).__name__} is none; expected attribution=gradcam or occlusion"
        )


def grid_of(classifier: Classifier) -> tuple[int, int]:
    """(h, w): patches of an image."""
    rows, columns = classifier.backbone.patch_embed.grid_size
    return int(rows), int(columns)


def prefix_of(classifier: Classifier) -> int:
    """Tokens before the patches: class token, registers."""
    return int(classifier.backbone.num_prefix_tokens)


def reading_row(classifier: Classifier, tokens: int, device: torch.device) -> Tensor:
    """Weights `[tokens]` with which the head reads the last block's tokens: the class token, or the mean of patches."""
    pool, prefix = classifier.backbone.global_pool, prefix_of(classifier)
    row = torch.zeros(tokens, device=device)
    if pool == "token":
        row[0] = 1
    elif pool == "avg":
        start = 0 if getattr(classifier.backbone, "pool_include_prefix", False) else prefix
        row[start:] = 1 / (tokens - start)
    else:
        raise ConfigError(f"attribution: a head that pools by {pool!r}; expected model.global_pool=token or avg")
    return row


@contextmanager
def attention_of(classifier: Classifier) -> Iterator[list[Tensor]]:
    """Collects the attention matrices `[B, heads, N, N]` of every block during a forward pass, first block first.

    The fused kernel keeps no matrix, so it is off inside.
    """
    blocks: list[Any] = list(classifier.backbone.blocks)
    fused = [block.attn.fused_attn for block in blocks]
    seen: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Tensor) -> None:
        seen.append(output)

    handles = [block.attn.attn_drop.register_forward_hook(keep) for block in blocks]
    for block in blocks:
        block.attn.fused_attn = False
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
        for block, value in zip(blocks, fused, strict=True):
            block.attn.fused_attn = value
