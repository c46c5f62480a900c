"""What an image of a neuron is asked for: its activation, a class's logit and likeness to a text, each sample apart."""

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from aaca.runtime.errors import ConfigError

Combine = Literal["product", "additive", "product_softplus"]
Coupling = Literal["per_sample", "batch_mean"]


@dataclass(frozen=True, kw_only=True)
class Objective:
    """J to maximise, of v = a / n + γ · z (activation a, its unit n, class logit z) and the cosine s with a text.

    product: (s + ε) · v (NeuroInspect, CLIP-Illusion), where neither factor turns the sign of the other's gradient:
    while v < 0 the text term is 0, and while s < 0 it does not push v down. product_softplus: the same of
    softplus(v). additive: s + ε · v. Without a text J = v.

    batch_mean is the published program's: mean(s + ε) · mean(v) as the mean over the batch, samples coupled, signs as
    they come.
    """

    gamma: float
    epsilon: float
    combine: Combine = "product"
    coupling: Coupling = "per_sample"

    def __post_init__(self) -> None:
        """Raise `ConfigError` for a coupling that was only ever published with the product."""
        if self.coupling == "batch_mean" and self.combine != "product":
            raise ConfigError(f"combine: {self.combine!r} with coupling batch_mean; expected 'product'")

    def __call__(self, activation: Tensor, logit: Tensor, text: Tensor | None, unit: Tensor | float = 1.0) -> Tensor:
        """J `[B]` of activations, logits, cosines `[B]` (None: no text) and the activations' units `[B]`."""
        value = activation / unit + self.gamma * logit
        if text is None:
            return value
        if self.coupling == "batch_mean":
            return (text + self.epsilon).mean() * value
        if self.combine == "additive":
            return text + self.epsilon * value
        if self.combine == "product_softplus":
            value = F.softplus(value)
        return self._product(text, value)

    def _product(self, text: Tensor, value: Tensor) -> Tensor:
        positive = value.clamp(min=0)
        likeness = text.clamp(min=0) * positive + text.clamp(max=0) * positive.detach()
        return likeness + self.epsilon * value
