"""Accuracy by group as a torchmetrics metric, exact on any number of processes."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from aaca.runtime.errors import DataError

_STATES = ("correct", "group", "ids")


class WorstGroupAccuracy(Metric):
    """Accuracy, and accuracy in the group where it is lowest. Each id counts once.

    Lightning pads the last batch of a distributed evaluation with repeated images; `compute` keeps one row an id, so
    the result equals that of one process. States are lists of rows, gathered by concatenation.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in _STATES:
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, preds: Tensor, target: Tensor, group: Tensor, ids: Tensor) -> None:
        """Add a batch: labels `[B]` or logits `[B, C]`, true labels `[B]`, groups `[B]` ≥ 0, ids `[B]` (integers)."""
        labels = preds.argmax(dim=1) if preds.ndim == 2 else preds
        shapes = {tuple(part.shape) for part in (labels, target, group, ids)}
        if len(shapes) != 1 or labels.ndim != 1:
            raise DataError(
                f"WorstGroupAccuracy: labels, target, group and ids must be [B] alike, got {sorted(shapes)}"
            )
        if len(group) and int(group.min()) < 0:
            raise DataError("WorstGroupAccuracy: groups must be 0 or more")
        self.correct.append((labels == target).long())  # type: ignore[union-attr, operator]
        self.group.append(group.long())  # type: ignore[union-attr, operator]
        self.ids.append(ids.long())  # type: ignore[union-attr, operator]

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather the rows of all processes. A process without a batch joins with an empty list of integers."""
        for name in _STATES:
            if isinstance(getattr(self, name), list) and not getattr(self, name):
                # torchmetrics would send an empty float tensor, which the others' integers do not match
                setattr(self, name, [torch.empty(0, dtype=torch.long, device=self.device)])
        super().sync(*args, **kwargs)

    def compute(self) -> dict[str, Tensor]:
        """Results over all processes; float64 accuracies in [0, 1].

        `accuracy`, `worst_group_accuracy`, `worst_group` (index; ties: lowest), `n` (distinct ids), and by group
        `per_group` `[G]` (NaN where a group has no image) and `per_group_n` `[G]`, with G the largest group + 1.
        Raises `DataError` when no image was seen.
        """
        correct, group, ids = (_rows(getattr(self, name)) for name in _STATES)
        if len(ids) == 0:
            raise DataError("WorstGroupAccuracy: no image was seen; expected at least one")
        order = torch.argsort(ids, stable=True)
        first = torch.ones_like(ids, dtype=torch.bool)
        first[1:] = ids[order][1:] != ids[order][:-1]
        kept = order[first]
        correct, group = correct[kept].double(), group[kept]
        n = torch.bincount(group)
        per_group = torch.bincount(group, weights=correct) / n
        worst = int(per_group.nan_to_num(nan=2.0).argmin())
        return {
            "accuracy": correct.mean(),
            "worst_group_accuracy": per_group[worst],
            "worst_group": torch.tensor(worst, device=group.device),
            "n": torch.tensor(len(kept), device=group.device),
            "per_group": per_group,
            "per_group_n": n,
        }


def _rows(state: Any) -> Tensor:
    # one tensor after a sync, a list before it
    return state if isinstance(state, Tensor) else dim_zero_cat(state) if state else torch.empty(0, dtype=torch.long)
