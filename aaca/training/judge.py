"""`JudgePretraining`: a referee that names class, ground and co-object of an image; no method ever trains on it."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from aaca.models.judge import ASPECTS, Judge
from aaca.training.contrastive import resize
from aaca.training.pretrain import Pretraining, Schedule


class JudgePretraining(Pretraining):
    """Cross-entropy of each aspect, with label smoothing. `labels` `[N, 3]` are the aspects of the table's rows."""

    def __init__(self, judge: Judge, labels: Tensor, schedule: Schedule) -> None:
        super().__init__(schedule)
        self.judge = judge.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.register_buffer("labels", labels, persistent=False)

    def losses(self, batch: Any) -> dict[str, Tensor]:
        """Sum of the three, and each accuracy."""
        images, _, rows = batch
        images = resize(images, self.judge.image_size).contiguous(memory_format=torch.channels_last)
        logits, labels = self.judge(images), self.labels[rows]
        parts = [
            F.cross_entropy(one, labels[:, index], label_smoothing=0.1) for index, one in enumerate(logits.values())
        ]
        hits = {
            name: (logits[name].argmax(dim=1) == labels[:, index]).float().mean() for index, name in enumerate(ASPECTS)
        }
        return {"loss": torch.stack(parts).sum(), **hits}
