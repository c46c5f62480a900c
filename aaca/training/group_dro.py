"""`GroupDro`: the loss of the worst group, softly (Sagawa et al. 2020, algorithm 1)."""

import torch
from torch import Tensor, nn

from aaca.models.classifier import Classifier
from aaca.runtime.errors import ConfigError
from aaca.runtime.ranks import current
from aaca.training.finetune import FineTune
from aaca.training.recipe import Recipe


class GroupDro(FineTune):
    """Minimises Σ_g q_g · (mean loss of group g in the batch); q_g ∝ q_g · exp(η · that loss) after every batch.

    `groups` int64 `[N]`: of the training rows, 0…G − 1. The q are in checkpoints.
    """

    q: Tensor
    groups: Tensor

    def __init__(
        self,
        classifier: Classifier,
        recipe: Recipe,
        n_classes: int,
        batches: int,
        val_groups: Tensor | None = None,
        *,
        groups: Tensor,
        eta: float,
    ) -> None:
        if recipe.mixes:
            raise ConfigError("recipe.mixup, recipe.cutmix: a mixed image has no group; expected 0")
        super().__init__(classifier, recipe, n_classes, batches, val_groups)
        count = int(groups.max()) + 1
        self.eta = eta
        self.each = nn.CrossEntropyLoss(label_smoothing=recipe.smoothing, reduction="none")
        self.register_buffer("groups", groups, persistent=False)
        self.register_buffer("q", torch.full((count,), 1 / count))

    def objective(self, images: Tensor, targets: Tensor, rows: Tensor) -> Tensor:
        """The weighted loss; groups that no image of the batch (on any device) is of keep their weight."""
        losses = self.each(self.classifier(images), targets)
        own = self.groups[rows]
        sums = torch.zeros_like(self.q).index_add(0, own, losses)
        numbers = torch.zeros_like(self.q).index_add(0, own, torch.ones_like(losses))
        total, seen = sums.detach().clone(), numbers.clone()
        world = current().world
        if world > 1:
            for part in (total, seen):
                torch.distributed.all_reduce(part)
        raised = self.q * torch.exp(self.eta * total / seen.clamp(min=1))
        self.q.copy_(raised / raised.sum())
        # the mean over all devices' images of a group: DDP takes the mean of the ranks' gradients
        return (self.q * sums / seen.clamp(min=1)).sum() * world
