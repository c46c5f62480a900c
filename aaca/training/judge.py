"""`JudgePretraining`: a referee that names class, ground and co-object of an image; no method ever trains on it."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from aaca.models.judge import ASPECTS, Judge
from aaca.training.contrastive import resize
from aaca.training.pretrain import Pretraining, Schedule


class JudgePretraining(Pretraining):
    """Cross-entropy of each aspect, with label smoothing. `labels` `[N, 3]` are the aspects of the table's rows.

    Colours, contrast and sharpness are disturbed: the judge learns from few sources and looks at generated images.
    """

    labels: Tensor

    def __init__(self, judge: Judge, labels: Tensor, schedule: Schedule) -> None:
        super().__init__(schedule)
        self.judge = judge.to(memory_format=torch.channels_last)
        self.register_buffer("labels", labels, persistent=False)

    def losses(self, batch: Any) -> dict[str, Tensor]:
        """Sum of the three, and each accuracy."""
        images, _, rows = batch
        images = resize(disturb(images), self.judge.image_size).contiguous(memory_format=torch.channels_last)
        logits, labels = self.judge(images), self.labels[rows]
        parts = [
            F.cross_entropy(one, labels[:, index], label_smoothing=0.1) for index, one in enumerate(logits.values())
        ]
        hits = {
            name: (logits[name].argmax(dim=1) == labels[:, index]).float().mean() for index, name in enumerate(ASPECTS)
        }
        return {"loss": torch.stack(parts).sum(), **hits}


def disturb(images: Tensor) -> Tensor:
    """Each image `[3, S, S]` of the batch with its own gain a channel, contrast, share of grey, and blur."""
    n, device = len(images), images.device

    def uniform(low: float, high: float, channels: int = 1) -> Tensor:
        return torch.empty(n, channels, 1, 1, device=device).uniform_(low, high)

    mean = images.mean(dim=(2, 3), keepdim=True)
    changed = (images - mean) * uniform(0.6, 1.4) + mean * uniform(0.75, 1.25, 3)
    grey = changed.mean(dim=1, keepdim=True)
    changed = torch.lerp(changed, grey.expand_as(changed), uniform(-0.3, 0.8).clamp(min=0))
    small = F.interpolate(changed, scale_factor=0.5, mode="area")
    blurred = F.interpolate(small, size=images.shape[-2:], mode="bilinear", align_corners=False)
    return torch.lerp(changed, blurred, uniform(-1.0, 1.0).clamp(min=0)).clamp(-1, 1)
