"""`InputPenalty`: gradients by pixels that shall not matter cost something (RRR, Ross et al. 2017; CDEP's controls)."""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from aaca.models.classifier import Classifier
from aaca.runtime.errors import ConfigError
from aaca.training.concept_distillation import twice_differentiable
from aaca.training.finetune import FineTune
from aaca.training.recipe import Recipe

Of = Literal["log_probabilities", "loss"]
"""RRR differentiates the sum of the log probabilities, the local penalty of Concept Distillation the loss."""
Region = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(normalised images `[B, 3, S, S]`, rows `[B]`) → (images to look at, where it shall not matter `[B, 1, S, S]`)."""


class InputPenalty(FineTune):
    """`FineTune` plus strength · mean over images of Σ over the region of (∂ of / ∂ pixel)²."""

    def __init__(
        self,
        classifier: Classifier,
        recipe: Recipe,
        n_classes: int,
        batches: int,
        val_groups: Tensor | None = None,
        *,
        of: Of,
        region: Region,
        strength: float,
    ) -> None:
        if recipe.mixes:
            raise ConfigError("recipe.mixup, recipe.cutmix: a mixed image has no region of its own; expected 0")
        super().__init__(classifier, recipe, n_classes, batches, val_groups)
        self.of, self.region, self.strength = of, region, strength

    def objective(self, images: Tensor, targets: Tensor, rows: Tensor) -> Tensor:
        """The recipe's loss plus the penalty."""
        looked, where = self.region(images, rows)
        looked = looked.detach().requires_grad_()
        with twice_differentiable():
            logits = self.classifier(looked)
        same = looked.shape == images.shape and looked.data_ptr() == images.data_ptr()
        loss: Tensor = self.loss(logits if same else self.classifier(images), targets)
        log_probabilities = F.log_softmax(logits, dim=1)
        chosen = log_probabilities if self.of == "log_probabilities" else F.nll_loss(
            log_probabilities, targets, reduction="none"
        )  # fmt: skip
        (gradient,) = torch.autograd.grad(chosen.sum(), looked, create_graph=True)
        penalty = (gradient.square() * where).flatten(1).sum(dim=1).mean()
        return loss + self.strength * penalty


def corners(side: int) -> Region:
    """The four squares of `side` pixels in the corners: where DecoyMNIST's patch may be."""

    def region(images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        where = torch.zeros_like(images[:, :1])
        for top in (slice(0, side), slice(-side, None)):
            for left in (slice(0, side), slice(-side, None)):
                where[:, :, top, left] = 1
        return images, where

    return region


def foreground(pixels: int, black: Tensor) -> Region:
    """`pixels` random places of each image that are not black (`black` `[3]`: how the classifier sees it)."""

    def region(images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        lit = ((images - black.to(images).view(1, 3, 1, 1)).abs().amax(dim=1) > 0.1).flatten(1)
        order = torch.where(lit, torch.rand(lit.shape, device=images.device), -1.0)
        most = order.topk(pixels, dim=1)
        where = torch.zeros_like(order).scatter(1, most.indices, (most.values >= 0).to(order.dtype))
        return images, where.view(len(images), 1, *images.shape[2:])

    return region
