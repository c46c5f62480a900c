"""The change of its features that each mistake needs (NeuroInspect, arXiv 2310.07184): all mistakes at once."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from aaca.models.head import Head
from aaca.runtime.errors import ConfigError, DataError, nearest

Box = Literal["none", "q99"]
CHUNK_VALUES = 2**22
"""Values in one working buffer (four of them, 16 MiB each): rows beyond that wait for the next chunk."""


@dataclass(frozen=True, kw_only=True)
class CounterfactualRule:
    """How a change w is learnt: SGD with momentum on CE(head(f + w), c) + alpha · ‖w‖₁ / D + beta · ‖w‖₂ / D.

    It starts at w = 0. The paper has no `max_steps` and no `box` ("q99": no feature is driven below 0 or above its
    99 % quantile in the bank). Raises `ConfigError` for values out of range.
    """

    alpha: float = 0.1
    beta: float = 0.01
    lr: float = 0.01
    momentum: float = 0.9
    max_steps: int = 1000
    box: Box = "none"

    def __post_init__(self) -> None:
        for name in ("alpha", "beta"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"inspect.{name}: {getattr(self, name)}; expected 0 or more")
        if not self.lr > 0:
            raise ConfigError(f"inspect.lr: {self.lr}; expected more than 0")
        if not 0 <= self.momentum < 1:
            raise ConfigError(f"inspect.momentum: {self.momentum}; expected 0 or more, less than 1")
        if self.max_steps < 1:
            raise ConfigError(f"inspect.max_steps: {self.max_steps}; expected 1 or more")
        if self.box not in get_args(Box):
            raise ConfigError(f"inspect.box: {self.box!r}; {nearest(self.box, get_args(Box))}")


@dataclass(frozen=True)
class Counterfactual:
    """change `[M, D]`: what was added to the features; steps `[M]` int64; converged `[M]` bool: reached the target."""

    change: Tensor
    steps: Tensor
    converged: Tensor


@torch.no_grad()
def counterfactuals(
    features: Tensor, targets: Tensor, head: Head, rule: CounterfactualRule, upper: Tensor | None
) -> Counterfactual:
    """Change features `[M, D]` until the head predicts targets `[M]`: the paper's loop, for all rows together.

    A row leaves as soon as its target is the argmax (it may do so with no step at all); the others go on, so a row's
    result does not depend on its company. `upper` `[D]`: f + w stays between 0 and it; a feature that lies beyond at
    the start may stay but goes no further. Raises `DataError` for shapes that do not fit or values that are not finite.
    """
    _check(features, targets, head, upper)
    change = torch.zeros_like(features)
    steps = torch.zeros(len(features), dtype=torch.int64, device=features.device)
    converged = torch.zeros(len(features), dtype=torch.bool, device=features.device)
    head = Head(head.weight.to(features), head.bias.to(features))
    size = max(1, CHUNK_VALUES // features.shape[1])
    for first in range(0, len(features), size):
        rows = torch.arange(first, min(first + size, len(features)), device=features.device)
        _descend(features[rows], targets[rows], head, rule, upper, rows, Counterfactual(change, steps, converged))
    return Counterfactual(change, steps, converged)


def _descend(
    features: Tensor,
    targets: Tensor,
    head: Head,
    rule: CounterfactualRule,
    upper: Tensor | None,
    rows: Tensor,
    out: Counterfactual,
) -> None:
    # `rows`: where in `out` those still on their way belong; all tensors here shrink together as rows arrive
    change, velocity = torch.zeros_like(features), torch.zeros_like(features)
    for step in range(rule.max_steps + 1):
        logits = head.logits(features + change)
        away = logits.argmax(dim=1) != targets
        if not bool(away.all()):
            there = rows[~away]
            out.change[there], out.steps[there], out.converged[there] = change[~away], step, True
            features, targets, change, velocity = features[away], targets[away], change[away], velocity[away]
            logits, rows = logits[away], rows[away]
        if not len(rows) or step == rule.max_steps:
            break
        velocity.mul_(rule.momentum).add_(_gradient(change, logits, targets, head, rule))
        change.add_(velocity, alpha=-rule.lr)
        if upper is not None:
            lowest, highest = features.clamp(max=0), torch.maximum(features, upper.to(features))
            change = (features + change).clamp(lowest, highest) - features
    out.change[rows], out.steps[rows] = change, rule.max_steps


def _gradient(change: Tensor, logits: Tensor, targets: Tensor, head: Head, rule: CounterfactualRule) -> Tensor:
    # of the objective by the change, [M, D]; both norms have the subgradient 0 at 0, as autograd has it
    size = change.shape[1]
    error = logits.softmax(dim=1)
    error[torch.arange(len(targets), device=targets.device), targets] -= 1
    gradient = error @ head.weight
    gradient.add_(change.sign(), alpha=rule.alpha / size)
    length = change.norm(dim=1, keepdim=True).clamp_min(torch.finfo(change.dtype).tiny)
    return gradient.add_(change / length, alpha=rule.beta / size)


def _check(features: Tensor, targets: Tensor, head: Head, upper: Tensor | None) -> None:
    classes, neurons = head.weight.shape
    if features.ndim != 2 or features.shape[1] != neurons or targets.shape != features.shape[:1]:
        raise DataError(
            f"counterfactuals: features {tuple(features.shape)}, targets {tuple(targets.shape)}; "
            f"expected [M, {neurons}] and [M]"
        )
    if len(targets) and (int(targets.min()) < 0 or int(targets.max()) >= classes):
        raise DataError(f"counterfactuals: a target outside 0 … {classes - 1}")
    if upper is not None and upper.shape != (neurons,):
        raise DataError(f"counterfactuals: bounds {tuple(upper.shape)}; expected [{neurons}]")
    if not bool(torch.isfinite(features).all()):
        raise DataError("counterfactuals: features that are not finite")
