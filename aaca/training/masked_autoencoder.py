"""`MaskedAutoencoder`: a ViT learns from unlabelled images by filling in what it does not see (He et al. 2022)."""

from typing import Any

import torch
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from aaca.training.pretrain import Pretraining, Schedule


class MaskedAutoencoder(Pretraining):
    """Mean squared error of the hidden patches, each normalised by its own mean and deviation (equation in section 3).

    `encoder` sees a random 1 − `mask` of the patches; a small decoder that is thrown away afterwards sees what it makes
    of them, with a learned token in the place of every hidden patch.
    """

    def __init__(
        self, encoder: VisionTransformer, schedule: Schedule, mask: float = 0.75, width: int = 64, depth: int = 2
    ) -> None:
        super().__init__(schedule)
        self.encoder = encoder
        self.patch = encoder.patch_embed.patch_size[0]
        patches = encoder.patch_embed.num_patches
        self.kept = max(1, round(patches * (1 - mask)))
        self.enter = nn.Linear(encoder.embed_dim, width)
        self.hidden = nn.Parameter(torch.zeros(1, 1, width))
        self.places = nn.Parameter(torch.zeros(1, patches + 1, width))
        self.decoder = nn.Sequential(*(Block(width, num_heads=4, qkv_bias=True) for _ in range(depth)))
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, self.patch**2 * 3))
        nn.init.normal_(self.hidden, std=0.02)
        nn.init.normal_(self.places, std=0.02)

    def losses(self, batch: Any) -> dict[str, Tensor]:
        """The one loss."""
        images = batch[0]
        target = normalised_patches(images, self.patch)
        order = torch.rand(target.shape[:2], device=images.device).argsort(dim=1)
        error = (self.fill_in(images, order) - target).square().mean(dim=2)
        masked = torch.ones_like(error).scatter(1, order[:, : self.kept], 0.0)
        return {"loss": (error * masked).sum() / masked.sum()}

    def fill_in(self, images: Tensor, order: Tensor) -> Tensor:
        """Patches `[B, P, 3·p²]` as the decoder paints them; the first `kept` of `order` `[B, P]` are seen."""
        seen = order[:, : self.kept]
        encoded = self.encode(images, seen)
        tokens = self.enter(encoded)
        full = self.hidden.expand(len(images), order.shape[1], -1).clone()
        full = full.scatter(1, seen[:, :, None].expand(-1, -1, full.shape[2]), tokens[:, 1:])
        decoded = self.decoder(torch.cat([tokens[:, :1], full], dim=1) + self.places)
        return self.leave(decoded[:, 1:])

    def encode(self, images: Tensor, seen: Tensor) -> Tensor:
        """Class token and seen patches `[B, 1 + kept, D]` after the encoder's blocks and final norm."""
        encoder = self.encoder
        tokens = encoder.patch_embed(images) + encoder.pos_embed[:, 1:]
        tokens = tokens.gather(1, seen[:, :, None].expand(-1, -1, tokens.shape[2]))
        first = (encoder.cls_token + encoder.pos_embed[:, :1]).expand(len(images), -1, -1)
        return encoder.norm(encoder.blocks(torch.cat([first, tokens], dim=1)))


def normalised_patches(images: Tensor, patch: int) -> Tensor:
    """Patches `[B, P, 3·p²]` of `[B, 3, S, S]`, row by row, each with mean 0 and variance 1."""
    patches = nn.functional.unfold(images, patch, stride=patch).transpose(1, 2)
    mean, variance = patches.mean(dim=2, keepdim=True), patches.var(dim=2, keepdim=True)
    return (patches - mean) / (variance + 1e-6).sqrt()
