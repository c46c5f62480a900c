"""`Attribution`, the role of the `attribution` config group: where in an image a classifier finds a class."""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from aaca.models.classifier import Classifier
from aaca.runtime.errors import ConfigError


class Attribution(ABC):
    """Relevance of cells of an image for a class. An image's map does not depend on the others of its batch."""

    @abstractmethod
    def relevance(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Tensor:
        """Signed relevance `[B, T, h, w]` of normalised images `[B, 3, S, S]` for target classes `[B, T]`."""

    @abstractmethod
    def cells(self, classifier: Classifier) -> tuple[int, int]:
        """(h, w) of its maps."""

    def maps(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Tensor:
        """Maps `[B, T, h, w]` float32: the positive part of the relevance, summing to 1 (or all 0)."""
        with torch.inference_mode(False), torch.enable_grad():
            raw = self.relevance(classifier, images.clone(), targets.clone()).detach().float()
        return normalised(raw)


def normalised(relevance: Tensor) -> Tensor:
    """The positive part of `[..., h, w]`, summing to 1; 0 everywhere where nothing is positive."""
    positive = relevance.clamp(min=0)
    total = positive.sum(dim=(-2, -1), keepdim=True)
    return torch.where(total > 0, positive / total.clamp(min=torch.finfo(positive.dtype).tiny), 0.0)


def contrast(predicted: Tensor, true: Tensor) -> Tensor:
    """What speaks for the predicted class more than for the true one: relu(A_ŷ − A_y), summing to 1."""
    return normalised(predicted - true)


def target_logits(logits: Tensor, targets: Tensor) -> Tensor:
    """The logits `[B, T]` of target classes `[B, T]`, of logits `[B, C]`."""
    return logits.gather(1, targets)


def gradients_of(logits: Tensor, targets: Tensor, inputs: list[Tensor]) -> list[list[Tensor]]:
    """For every target column the gradients of its logits (summed over images) with respect to `inputs`."""
    wanted, columns = target_logits(logits, targets), range(targets.shape[1])
    last = targets.shape[1] - 1
    return [list(torch.autograd.grad(wanted[:, t].sum(), inputs, retain_graph=t < last)) for t in columns]


def pooled(pixels: Tensor, cells: int) -> Tensor:
    """Means of pixel values `[..., S, S]` over `cells` × `cells` equal areas."""
    shape = pixels.shape
    small = F.adaptive_avg_pool2d(pixels.reshape(-1, 1, *shape[-2:]), cells)
    return small.reshape(*shape[:-2], cells, cells)


def check_cells(cells: int, key: str = "attribution.cells") -> None:
    """Raise `ConfigError` unless a map of `cells` × `cells` makes sense."""
    if not 2 <= cells <= 64:
        raise ConfigError(f"{key}: {cells}; expected 2…64 cells a side")
