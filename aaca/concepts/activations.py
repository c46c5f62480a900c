"""Activations of named modules, and gradients of logits by them; modes and hooks are left as they were found."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from aaca.runtime.errors import ConfigError, nearest

Pool = Literal["none", "gap", "max"]
POOLS = get_args(Pool)
"""What becomes of places: all kept and flattened; their mean; their maximum."""


def module_of(model: nn.Module, layer: str, key: str = "layer") -> nn.Module:
    """The module of that name. Raises `ConfigError`, naming the config `key`, with the nearest valid one."""
    modules = dict(model.named_modules())
    if layer not in modules or not layer:
        raise ConfigError(f"{key}: no module {layer!r}; {nearest(layer, [name for name in modules if name])}")
    return modules[layer]


@contextmanager
def captured(model: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Within it, every forward pass leaves the outputs of `layers` in the dictionary (the last ones, graph and all)."""
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> object:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
            if torch.is_grad_enabled() and not output.requires_grad:
                output.requires_grad_()  # nothing before it learns, and yet what follows can be differentiated by it
            seen[name] = output
            return output.clone()  # what follows may write over it (a ReLU in place, a shortcut added)

        return hook

    hooks = [module_of(model, name).register_forward_hook(keep(name)) for name in layers]  # type: ignore[arg-type]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within it, all modules are in evaluation mode; each gets its own mode back."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def pooled(activation: Tensor, pool: Pool = "none") -> Tensor:
    """`[N, D]` of an activation `[N, C, H, W]`, `[N, T, C]` (tokens) or `[N, C]`; by `gap` and `max` D is C."""
    if pool not in POOLS:
        raise ConfigError(f"repair.pool: {pool!r}; {nearest(pool, POOLS)}")
    if pool == "none" or activation.ndim == 2:
        return activation.flatten(1)
    places = activation.flatten(2) if activation.ndim == 4 else activation.transpose(1, 2)
    return places.mean(dim=2) if pool == "gap" else places.amax(dim=2)


def activations_of(
    model: nn.Module, images: Tensor, layers: Sequence[str], pool: Pool = "none", batch_size: int = 128
) -> dict[str, Tensor]:
    """Layer → activations float32 `[N, D]` on the CPU, of images as the model takes them, in evaluation mode."""
    found: dict[str, list[Tensor]] = {name: [] for name in layers}
    device = next(model.parameters()).device
    with evaluating(model), torch.no_grad(), captured(model, layers) as seen:
        for batch in torch.split(images, batch_size):
            model(batch.to(device))
            for name in layers:
                found[name].append(pooled(seen[name], pool).float().cpu())
    return {name: torch.cat(parts) for name, parts in found.items()}


def logit_gradients(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    layers: Sequence[str],
    batch_size: int = 128,
    flatten: bool = True,
) -> dict[str, Tensor]:
    """Layer → ∂ logit of each image's target class / ∂ activation, float32 on the CPU, `[N, D]` or as activations."""
    found: dict[str, list[Tensor]] = {name: [] for name in layers}
    device = next(model.parameters()).device
    with evaluating(model), torch.enable_grad(), captured(model, layers) as seen:
        for batch, target in zip(torch.split(images, batch_size), torch.split(targets, batch_size), strict=True):
            logits = model(batch.to(device).requires_grad_())
            chosen = logits.gather(1, target.to(device)[:, None]).sum()
            gradients = torch.autograd.grad(chosen, [seen[name] for name in layers])
            for name, gradient in zip(layers, gradients, strict=True):
                found[name].append((gradient.flatten(1) if flatten else gradient).float().cpu())
    return {name: torch.cat(parts) for name, parts in found.items()}
