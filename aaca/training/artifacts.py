"""ClArC (Anders et al. 2022): take a concept's direction out of a layer (P-), or put it into all images (A-)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from aaca.models.classifier import Classifier
from aaca.training.finetune import FineTune
from aaca.training.recipe import Recipe


def span(directions: Tensor) -> Tensor:
    """An orthonormal basis `[R, C]` of the span of `directions` `[P, C]`; nearly dependent ones count once."""
    _, sizes, rows = torch.linalg.svd(directions.double(), full_matrices=False)
    return rows[sizes > 1e-6 * sizes[0]].to(directions.dtype)


@torch.no_grad()
def project_out(
    layer: nn.Conv2d | nn.Linear, directions: Tensor, centre: Tensor, norm: nn.BatchNorm2d | None = None
) -> None:
    """Fold a ↦ a − VVᵀ(a − centre) into the layer that makes a: the span of `directions` `[P, C]` is held at `centre`.

    The repaired network is of the same architecture, and needs nothing at test time (P-ClArC, exactly). A layer without
    a bias needs the `norm` that follows it: what would be its bias goes into the running mean.
    """
    basis = span(directions).to(layer.weight)
    inside = basis.T @ basis  # [C, C]
    weight = layer.weight.flatten(1)
    layer.weight.copy_((weight - inside @ weight).view_as(layer.weight))
    held = inside @ centre.to(weight)
    if layer.bias is not None:
        layer.bias.copy_(layer.bias - inside @ layer.bias + held)
    elif norm is not None and norm.running_mean is not None:
        norm.running_mean.sub_(held)
    else:
        raise ValueError("a layer without a bias needs the batch norm behind it")


def shift_to(activation: Tensor, direction: Tensor, value: Tensor) -> Tensor:
    """a − v(v·a) + v·value of activations `[B, C, …]`, one direction `[B, C]` and value `[B]` an image."""
    shape = (*direction.shape, *([1] * (activation.ndim - 2)))
    v = direction.view(shape)
    along = (activation * v).sum(dim=1, keepdim=True)
    return activation + v * (value.view(len(value), *([1] * (activation.ndim - 1))) - along)


class ArtifactAugment(FineTune):
    """A-ClArC: in training, half of the images carry a random concept, at the strength that its images have.

    `directions` `[P, C]` and `values` `[P]`, the mean projection of each concept's images; channel-wise.
    """

    def __init__(
        self,
        classifier: Classifier,
        recipe: Recipe,
        n_classes: int,
        batches: int,
        val_groups: Tensor | None = None,
        *,
        layer: str,
        directions: Tensor,
        values: Tensor,
        share: float,
        frozen: tuple[str, ...] = (),
    ) -> None:
        super().__init__(classifier, recipe, n_classes, batches, val_groups, frozen)
        self.layer, self.share = layer, share
        self.register_buffer("directions", directions, persistent=False)
        self.register_buffer("values", values, persistent=False)

    def objective(self, images: Tensor, targets: Tensor, rows: Tensor) -> Tensor:
        """The recipe's loss of images, half of them with a concept in their activations."""
        hook = self.classifier.get_submodule(self.layer).register_forward_hook(self._carry())
        try:
            loss: Tensor = self.loss(self.classifier(images), targets)
        finally:
            hook.remove()
        return loss

    def _carry(self) -> Callable[[nn.Module, object, Tensor], Tensor]:
        directions, values = self.directions, self.values

        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
            count = len(output)
            which = torch.randint(len(directions), (count,), device=output.device)  # type: ignore[arg-type]
            carries = torch.rand(count, device=output.device) < self.share
            moved = shift_to(output, directions[which], values[which])  # type: ignore[index]
            return torch.where(carries.view(-1, *([1] * (output.ndim - 1))), moved, output)

        return hook
