"""`CaptionRecipe`: how a graph captioner is trained, checked before anything runs (the `recipe` group)."""

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from aaca.runtime.errors import ConfigError, nearest

Decode = Literal["greedy", "beam"]
Monitor = Literal["cider", "bleu4", "loss", "last"]
Align = Literal["none", "attention", "leak", "attribution"]
SHORTEST = 3
"""The least `length`: begin, one word, end."""
ALIGN_WEIGHT = 0.3
"""Of an alignment loss, unless `align_weight` says: the weight that docs/captions.md has figures of."""


@dataclass(frozen=True, kw_only=True)
class CaptionRecipe:
    """How a captioner is trained and decoded (defaults: EGA's released configuration; ASG2Caption on COCO is the same).

    `batch_size`: captions a device. `clip_grad`: largest gradient norm; null: off, as released. `length`: most words of
    a caption, with its begin and its end. `nodes`: most nodes of a graph. `decode`, `width`: how captions are written
    for test sets; validation always takes the likeliest word. `monitor`: the validation figure whose best epoch is kept
    (the first of equals), or the last epoch. `align`: what is added to the cross entropy, `align_weight` times
    (null: `ALIGN_WEIGHT` times); at weight 0 it is only measured.
    """

    epochs: int = 100
    batch_size: int = 128
    lr: float = 2e-4
    weight_decay: float = 0.0
    clip_grad: float | None = None
    length: int = 25
    nodes: int = 10
    decode: Decode = "greedy"
    width: int = 5
    monitor: Monitor = "cider"
    align: Align = "none"
    align_weight: float | None = None

    def __post_init__(self) -> None:
        """Raise `ConfigError` on a value that nothing can be trained with."""
        for name, kind in (("decode", Decode), ("monitor", Monitor), ("align", Align)):
            value = getattr(self, name)
            if value not in get_args(kind):
                raise ConfigError(f"training.{name}: no {value!r}; {nearest(str(value), get_args(kind))}")
        for name in ("epochs", "batch_size", "nodes", "width"):
            if getattr(self, name) < 1:
                raise ConfigError(f"training.{name}: {getattr(self, name)}; expected at least 1")
        if self.length < SHORTEST:
            raise ConfigError(
                f"training.length: {self.length}; expected at least {SHORTEST} (a word between begin and end)"
            )
        if not 0 < self.lr < math.inf:
            raise ConfigError(f"training.lr: {self.lr}; expected a learning rate above 0")
        for name, value in (("weight_decay", self.weight_decay), ("align_weight", self.weight)):
            if not 0 <= value < math.inf:
                raise ConfigError(f"training.{name}: {value}; expected 0 or more")
        if self.clip_grad is not None and not 0 < self.clip_grad < math.inf:
            raise ConfigError(f"training.clip_grad: {self.clip_grad}; expected a norm above 0, or null for no clipping")
        if self.align == "none" and self.weight > 0:
            raise ConfigError(
                f"training.align_weight: {self.align_weight} weighs nothing while training.align is none; "
                "expected null, or align: attention, leak or attribution"
            )

    @property
    def weight(self) -> float:
        """Of the alignment loss, where none is given, too."""
        if self.align_weight is not None:
            return self.align_weight
        return 0.0 if self.align == "none" else ALIGN_WEIGHT

    def fingerprint(self) -> dict[str, Any]:
        """What influences the trained weights: all but how captions of test sets are decoded."""
        kept = {name: value for name, value in vars(self).items() if name not in ("decode", "width")}
        return {**kept, "align_weight": self.weight}
