"""`ConceptDistillation`: fine-tuning with a concept loss at one layer (Concept Distillation, NeurIPS 2023)."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from aaca.concepts.activations import Pool, captured, evaluating, pooled
from aaca.data.module import Batch
from aaca.models.classifier import Classifier
from aaca.runtime.errors import ConfigError, nearest
from aaca.runtime.ranks import current
from aaca.training.concept_loss import TINY, Distance, concept_terms, logit_gradients_at, prototype_gradients
from aaca.training.finetune import FineTune
from aaca.training.prototypes import PrototypeBank
from aaca.training.recipe import Recipe

Target = Literal["random_sign", "logit", "ce", "proto"]
"""Whose gradient by the activation must not point along a concept: ±logits, the true logit, the loss, prototypes."""


@dataclass(frozen=True)
class ConceptObjective:
    """What the concept loss asks of P concepts at one layer.

    `directions`: classifier → `[P, D]`, asked at the start and every `refresh_epochs` (0: never again), mixed by `ema`.
    `images`: classifier → (activations `[N, D]`, labels `[N]`) of training images, for prototypes. `counts` bool
    `[C, P]`: which concepts matter for images of which class. `strength`: λ, of a mean over images and concepts.
    """

    layer: str
    pool: Pool
    target: Target
    distance: Distance
    strength: float
    desensitise: Tensor
    weights: Tensor
    counts: Tensor
    directions: Callable[[Classifier], Tensor]
    images: Callable[[Classifier], tuple[Tensor, Tensor]]
    refresh_epochs: int = 1
    ema: float = 0.3
    prototypes: int = 7
    alpha: float = 0.3
    frozen: tuple[str, ...] = ()  # modules that stay as they are

    def __post_init__(self) -> None:
        """Raise `ConfigError` on what cannot teach anything."""
        if self.target not in get_args(Target):
            raise ConfigError(f"repair.target: {self.target!r}; {nearest(self.target, get_args(Target))}")
        if self.target == "proto" and self.layer in self.frozen:
            raise ConfigError(
                f"repair.freeze: prototypes' gradients see only what comes before {self.layer}, which is held fixed: "
                "nothing would be learnt; expected repair.freeze=false, or repair.target=random_sign"
            )


class ConceptDistillation(FineTune):
    """`FineTune` whose loss also says which directions of a layer not to use (or to use).

    Loss: L + λ · mean over images and concepts of |cos(∂target/∂a, v)| (1 − it, to sensitise). For `proto` the gradient
    is in closed form, so the step has no second backward pass. Vectors and prototypes are in checkpoints.
    """

    directions: Tensor
    ready: Tensor
    desensitise: Tensor
    weights: Tensor
    counts: Tensor

    def __init__(
        self,
        classifier: Classifier,
        recipe: Recipe,
        n_classes: int,
        batches: int,
        val_groups: Tensor | None = None,
        *,
        objective: ConceptObjective,
        size: int,
    ) -> None:
        if recipe.mixes:
            raise ConfigError("recipe.mixup, recipe.cutmix: a mixed image has no class of its own; expected 0")
        super().__init__(classifier, recipe, n_classes, batches, val_groups, objective.frozen)
        self.asked = objective
        self.bank = (
            PrototypeBank(n_classes, size, objective.prototypes, objective.alpha)
            if objective.target == "proto"
            else None
        )
        self.register_buffer("directions", torch.zeros(len(objective.weights), size))
        self.register_buffer("ready", torch.tensor(False))
        self.register_buffer("desensitise", objective.desensitise, persistent=False)
        self.register_buffer("weights", objective.weights, persistent=False)
        self.register_buffer("counts", objective.counts, persistent=False)
        self.n_classes = n_classes
        self.laid: dict[str, tuple[tuple[int, int], Tensor]] = {}

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Before the first batch of an epoch whose turn it is: new concept vectors, new prototypes."""
        super().on_train_batch_start(batch, batch_idx)
        every = self.asked.refresh_epochs
        if batch_idx == 0 and (not bool(self.ready) or (every and self.current_epoch % every == 0)):
            self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Concept vectors and prototypes of the classifier as it is now; the first time whole, later mixed in.

        Rank 0 decides: batch statistics may differ between ranks by the last batch.
        """
        new = self.asked.directions(self.classifier).to(self.directions)
        mixed = F.normalize(torch.lerp(self.directions, new, self.asked.ema), dim=1) if bool(self.ready) else new
        self.directions.copy_(mixed)
        if self.bank is not None:
            self.bank.refresh(*self.asked.images(self.classifier))
        self.ready.fill_(True)
        if current().world > 1:
            for buffer in (self.directions, *((self.bank.prototypes, self.bank.centres) if self.bank else ())):
                torch.distributed.broadcast(buffer, src=0)

    def objective(self, images: Tensor, targets: Tensor, rows: Tensor) -> Tensor:
        """The recipe's loss plus λ times the concept loss."""
        again = nullcontext() if self.bank else twice_differentiable()  # prototypes need no second derivative
        with captured(self.classifier, [self.asked.layer]) as seen, again:
            logits = self.classifier(images)
        loss: Tensor = self.loss(logits, targets)
        gradients, order = self.sensitivities(logits, seen[self.asked.layer], targets)
        directions = self._laid("directions", self.directions, order)
        terms = gradients, directions, self.desensitise, self.weights, self.counts[targets], self.asked.distance
        found, total = concept_terms(*terms)
        world = current().world
        if world > 1:  # the mean over all devices' images: DDP takes the mean of the ranks' gradients
            total = total.detach().clone()
            torch.distributed.all_reduce(total)
        concept = found * world / total.clamp(min=TINY)
        self.log("concept_loss", concept.detach(), on_step=False, on_epoch=True, sync_dist=True, batch_size=len(rows))
        return loss + self.asked.strength * concept

    def sensitivities(self, logits: Tensor, activation: Tensor, targets: Tensor) -> tuple[Tensor, Tensor | None]:
        """The gradient of the target by the activation, `[B, D]`, and the order of its numbers (None: as usual).

        Pooled ones are along a shift of all places alike.
        """
        asked = self.asked
        if asked.target == "proto":
            assert self.bank is not None
            flat, order = flattened(activation) if asked.pool == "none" else (pooled(activation, asked.pool), None)
            centres = self._laid("centres", self.bank.centres, order)
            k = self.bank.k if asked.distance == "sq_dot" else 0
            return prototype_gradients(flat, centres, targets, k), order
        if asked.target == "ce":
            loss = F.cross_entropy(logits, targets, reduction="sum")
            (found,) = torch.autograd.grad(loss, activation, create_graph=True)
        else:
            found = logit_gradients_at(logits, activation, self._signs(logits, targets))
        return flattened(found) if asked.pool == "none" else (pooled(found, "gap"), None)

    def _laid(self, name: str, rows: Tensor, order: Tensor | None) -> Tensor:
        # `rows` `[N, D]` in that order, kept until they change: at a refresh, or when they are loaded or moved
        if order is None:
            return rows
        state = id(rows), rows._version
        if name not in self.laid or self.laid[name][0] != state:
            self.laid[name] = state, rows[:, order]
        return self.laid[name][1]

    def _signs(self, logits: Tensor, targets: Tensor) -> Tensor:
        # the stream of this batch (data module): the same on a resumed run
        if self.asked.target == "logit":
            return F.one_hot(targets, self.n_classes).to(logits.dtype)
        return torch.randint(0, 2, logits.shape, device=logits.device).to(logits.dtype) * 2 - 1


def flattened(values: Tensor) -> tuple[Tensor, Tensor | None]:
    """`[B, D]` of values `[B, …]`, and the order of its numbers: channels last stay last, so that nothing is copied."""
    if values.ndim != 4 or values.is_contiguous() or not values.is_contiguous(memory_format=torch.channels_last):
        return values.flatten(1), None
    order = torch.arange(values[0].numel(), device=values.device).view(values.shape[1:]).permute(1, 2, 0).flatten()
    return values.permute(0, 2, 3, 1).flatten(1), order


def twice_differentiable() -> AbstractContextManager[None]:
    """Attention by plain products: torch's fused kernels have no second derivative."""
    found: AbstractContextManager[None] = sdpa_kernel(SDPBackend.MATH)
    return found


def frozen_through(classifier: Classifier, layer: str, images: Tensor, freeze: bool = True) -> tuple[str, ...]:
    """Names of the modules that have finished when `layer` has, in order of their first call; `layer` is the last.

    To `freeze`, neither their parameters ask for gradients any more, nor those that a module around them holds itself
    (a transformer's positions). `images`: any normalised batch.
    """
    order: list[str] = []
    begun: list[str] = []
    hooks: list[Any] = []
    for name, module in classifier.named_modules():
        hooks.append(module.register_forward_pre_hook(lambda *_, name=name: begun.append(name)))
        hooks.append(module.register_forward_hook(lambda *_, name=name: _once(order, name, begun)))
    try:
        with torch.no_grad(), evaluating(classifier):
            classifier(images)
    finally:
        for hook in hooks:
            hook.remove()
    if layer not in order:
        raise ConfigError(f"repair.layer: {layer!r} takes no part in a forward pass; {nearest(layer, order)}")
    done = tuple(order[: order.index(layer) + 1])
    for name in begun[: begun.index(f"end of {layer}")] if freeze else ():
        if not name.startswith("end of "):
            for parameter in classifier.get_submodule(name).parameters(recurse=False):
                parameter.requires_grad_(False)
    return done


def _once(order: list[str], name: str, begun: list[str]) -> None:
    begun.append(f"end of {name}")
    if name and name not in order:
        order.append(name)


def default_layer(classifier: Classifier) -> str:
    """Where concepts are read when nobody says: a late layer with a non-linear part behind it.

    The last stage but one of a convolutional net, the last block but one of a transformer, the digits' second
    convolution before its ReLU. Behind the very last stage the logits are linear, and so their gradient is the same for
    all images.
    """
    net: Any = classifier.backbone
    blocks = getattr(net, "blocks", None)
    if isinstance(blocks, nn.Sequential | nn.ModuleList) and hasattr(net, "pos_embed"):
        return f"backbone.blocks.{max(0, len(blocks) - 2)}"
    stages = [entry["module"] for entry in getattr(net, "feature_info", [])]
    if len(stages) >= 2:
        return f"backbone.{stages[-2]}"
    if hasattr(net, "conv2") and not stages:
        return "backbone.conv2"
    raise ConfigError("repair.layer: auto does not know this model; expected the name of a module, such as layer3")
