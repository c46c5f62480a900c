"""`Judge`: names class, ground and co-object of an image of the embedded world."""

from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from aaca.models.efficientnet_lite import ARCHITECTURE, imagenet_model
from aaca.world.pack import load_pack

NOTHING = "nothing"
ASPECTS: dict[str, tuple[str, ...]] = {
    "class": load_pack().classes,
    "scene": load_pack().labels("scene"),
    "concept": (*load_pack().labels("concept"), NOTHING),
}
"""What the judge says, and its choices."""


STAGES = 5
"""Stages of EfficientNet-Lite0 that the judge has (of seven): the last two hold most weights and see 3 × 3 places."""


class Judge(nn.Module):
    """The first stages of EfficientNet-Lite0 and one linear head an aspect. Images are `[B, 3, S, S]` in [-1, 1]."""

    image_size = 96

    def __init__(self, imagenet: bool = False) -> None:
        super().__init__()
        whole = imagenet_model() if imagenet else timm.create_model(ARCHITECTURE)
        self.trunk = nn.Sequential(whole.conv_stem, whole.bn1, whole.blocks[:STAGES])
        width = 2 * whole.feature_info[STAGES - 2]["num_chs"]
        self.norm = nn.BatchNorm1d(width)
        self.heads = nn.ModuleDict({name: nn.Linear(width, len(choices)) for name, choices in ASPECTS.items()})

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Logits an aspect, from the mean and the largest value of each channel."""
        seen = self.trunk(images)
        features = self.norm(torch.cat([seen.mean(dim=(2, 3)), seen.amax(dim=(2, 3))], dim=1))
        features = F.dropout(features, 0.2, self.training)
        return {name: head(features) for name, head in self.heads.items()}

    @classmethod
    def load(cls, folder: Path) -> "Judge":
        """The trained judge from a folder with `judge.safetensors`."""
        judge = cls()
        judge.load_state_dict({name: value.float() for name, value in load_file(folder / "judge.safetensors").items()})
        return judge.eval()

    @torch.no_grad()
    def verdicts(self, images: np.ndarray, batch_size: int = 64) -> dict[str, np.ndarray]:
        """Probabilities `[N, choices]` an aspect for uint8 images `[N, S, S, 3]`."""
        found: dict[str, list[Tensor]] = {name: [] for name in ASPECTS}
        for start in range(0, len(images), batch_size):
            pixels = torch.from_numpy(np.ascontiguousarray(images[start : start + batch_size]))
            batch = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
            if batch.shape[-1] != self.image_size:
                size = (self.image_size, self.image_size)
                batch = F.interpolate(batch, size=size, mode="bicubic", align_corners=False, antialias=True)
            for name, logits in self(batch).items():
                found[name].append(logits.softmax(dim=1))
        return {name: torch.cat(parts).numpy() for name, parts in found.items()}
