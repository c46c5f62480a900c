"""`ContrastivePretraining`: image and caption meet in one space (CLIP), on captioned scenes."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from torch import Tensor

from aaca.data.captioned import Captions
from aaca.runtime.seeding import purpose_seed
from aaca.training.pretrain import Pretraining, Schedule

Tokenizer = Callable[[list[str]], Tensor]


class ContrastivePretraining(Pretraining):
    """CLIP's symmetric InfoNCE (Radford et al. 2021, figure 3); captions that read alike count as each other's match.

    A small world says the same of many images. Equal captions have equal vectors, so the loss is InfoNCE's all the
    same; but `hits` counts what it should.
    """

    def __init__(
        self, clip: CLIP, tokenizer: Tokenizer, captions: Captions, image_size: int, schedule: Schedule, seed: int
    ) -> None:
        super().__init__(schedule)
        self.clip = clip.to(memory_format=torch.channels_last)
        self.tokenizer, self.captions, self.image_size, self.seed = tokenizer, captions, image_size, seed

    def losses(self, batch: Any) -> dict[str, Tensor]:
        """`loss` and the share of images whose caption is found among the batch's (`hits`)."""
        images, _, rows = batch
        texts = self.captions.draw(rows.cpu().numpy(), purpose_seed(self.seed, "caption", self.global_step))
        tokens = self.tokenizer(texts).to(images.device)
        images = resize(images, self.image_size).contiguous(memory_format=torch.channels_last)
        seen, said, scale = self.clip(images, tokens)
        same = (tokens[:, None] == tokens[None]).all(dim=2)
        targets = same / same.sum(dim=1, keepdim=True)
        logits = scale * seen @ said.T
        loss = (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2
        found = same[torch.arange(len(rows), device=same.device), logits.argmax(dim=1)]
        return {"loss": loss, "hits": found.float().mean()}

    def updated(self, count: int) -> None:
        """CLIP's bound on the temperature: logits are scaled by at most 100."""
        self.clip.logit_scale.clamp_(0, 4.6052)


def resize(images: Tensor, size: int) -> Tensor:
    """`[B, 3, S, S]` to `size` pixels a side, bicubic."""
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, size=(size, size), mode="bicubic", align_corners=False, antialias=True)
