"""ClArC (Anders et al. 2022): take a concept's direction out of a layer (P-), or put it into all images (A-)."""

from collections.abc import Callable, Sequence
from copy import deepcopy

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

    The repaired network is of the same architecture, and needs nothing at test time. A layer without a bias needs the
    `norm` that follows it: what would be its bias goes into the running mean.
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


@torch.no_grad()
def project_in(readers: Sequence[nn.Module], directions: Tensor) -> None:
    """Fold a ↦ a − VVᵀa into the layers that read a, convolutions or linear ones: they no longer see the span.

    What the projection takes from their mean, the training that follows puts right. Their weights have to stay as they
    are from now on.
    """
    for reader in readers:
        weight: Tensor = reader.weight  # type: ignore[assignment]
        basis = span(directions).to(weight)
        rows = weight.transpose(0, 1).flatten(1)  # [C, …]
        rows = rows - basis.T @ (basis @ rows)
        weight.copy_(rows.view(weight.shape[1], weight.shape[0], *weight.shape[2:]).transpose(0, 1))


@torch.no_grad()
def readers_of(classifier: Classifier, layer: str, images: Tensor) -> list[str]:
    """The convolutions and linear layers whose input is the output of `layer`; empty where anything else reads it, too.

    Whether nothing else does is tried: on a copy that is projected, a change along the direction must change nothing.
    """
    copied = deepcopy(classifier).eval()
    found: list[str] = []
    seen: list[Tensor] = []
    hooks = [copied.get_submodule(layer).register_forward_hook(lambda _module, _inputs, output: seen.append(output))]
    for name, module in copied.named_modules():
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1):
            hooks.append(
                module.register_forward_pre_hook(
                    lambda _module, inputs, name=name: found.append(name) if seen and inputs[0] is seen[-1] else None
                )
            )
    copied(images)
    for hook in hooks:
        hook.remove()
    channels = seen[-1].shape[1] if seen[-1].ndim != 3 else seen[-1].shape[2]
    if not found or any(_width(copied.get_submodule(name)) != channels for name in found):
        return []
    direction = torch.randn(1, channels, generator=torch.Generator().manual_seed(0))
    project_in([copied.get_submodule(name) for name in found], direction)
    plain = copied(images)
    added = direction.view(1, -1, *([1] * (seen[-1].ndim - 2))) if seen[-1].ndim != 3 else direction.view(1, 1, -1)
    hook = copied.get_submodule(layer).register_forward_hook(lambda _module, _inputs, output: output + added)
    moved = copied(images)
    hook.remove()
    return found if torch.allclose(moved, plain, atol=1e-4, rtol=1e-3) else []


@torch.no_grad()
def is_passed_by(classifier: Classifier, layer: str, images: Tensor) -> bool:
    """Whether anything of the images reaches the logits around `layer` (a shortcut): its output held at zero."""
    copied = deepcopy(classifier).eval()
    for module in copied.modules():  # a branch that a fresh network starts with at zero is a branch all the same
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm) and module.weight is not None and not module.weight.any():
            module.weight.fill_(1.0)
    copied.get_submodule(layer).register_forward_hook(lambda _module, _inputs, output: torch.zeros_like(output))
    logits = copied(images)
    return not torch.allclose(logits, logits[:1].expand_as(logits), atol=1e-5, rtol=1e-4)


def _width(module: nn.Module) -> int:
    return module.in_channels if isinstance(module, nn.Conv2d) else module.in_features  # type: ignore[return-value]


def shift_to(activation: Tensor, direction: Tensor, value: Tensor) -> Tensor:
    """a − v(v·a) + v·value of activations `[B, C]`, `[B, C, H, W]` or tokens `[B, T, C]`.

    One direction `[B, C]` and one value `[B]` an image.
    """
    if activation.ndim == 3:
        return shift_to(activation.transpose(1, 2)[..., None], direction, value)[..., 0].transpose(1, 2)
    v = direction.view(*direction.shape, *([1] * (activation.ndim - 2)))
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
