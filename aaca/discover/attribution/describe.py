"""What the loop over a table keeps of each image: its maps, or what a classifier says without one concept."""

import numpy as np
import torch
from torch import Tensor

from aaca.discover.attribution.base import Attribution
from aaca.discover.attribution.perturb import without
from aaca.models.classifier import Classifier


class Maps:
    """Maps for two classes of every image, `targets` `[N, 2]` (predicted, true), flattened; `logits` `[N, C]` of it."""

    dtype = "float16"

    def __init__(
        self, classifier: Classifier, attribution: Attribution, targets: np.ndarray, logits: np.ndarray
    ) -> None:
        self.classifier, self.attribution = classifier, attribution
        self.targets, self.logits = torch.from_numpy(targets), torch.from_numpy(logits)
        self.cells = attribution.cells(classifier)
        self.dim = 2 * self.cells[0] * self.cells[1]

    def __call__(self, images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(`[B, 2 · h · w]`, `[B, C]`). Where both classes are the same one map is made."""
        places = rows.cpu()
        targets = self.targets[places].to(images.device)
        first = self.attribution.maps(self.classifier, images, targets[:, :1])
        second, other = first.clone(), targets[:, 0] != targets[:, 1]
        if bool(other.any()):
            second[other] = self.attribution.maps(self.classifier, images[other], targets[other, 1:])
        return torch.cat([first, second], dim=1).flatten(1), self.logits[places].to(images.device)


class Without:
    """Logits of every image without what its mask `[N, h, w]` covers; nothing else is kept."""

    dtype, dim = "float32", 1

    def __init__(self, classifier: Classifier, masks: np.ndarray) -> None:
        self.classifier, self.masks = classifier, masks

    def __call__(self, images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(zeros `[B, 1]`, `[B, C]`)."""
        masks = torch.from_numpy(self.masks[rows.cpu().numpy()].astype(np.float32)).to(images.device)
        return images.new_zeros(len(images), 1), self.classifier(without(images, masks))
