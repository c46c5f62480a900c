"""What each mistake says of each neuron: the paper's counterfactual, its cheap and data-driven rivals, and controls."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from aaca.discover.neurons.counterfactual import CounterfactualRule, counterfactuals
from aaca.models.head import FeatureBank
from aaca.runtime.errors import ConfigError, nearest
from aaca.runtime.seeding import purpose_seed

Scorer = Literal["counterfactual", "gradient", "contribution", "weight", "importance", "random"]


@dataclass(frozen=True)
class ScoredMistakes:
    """values `[M, D]`: above 0 = the mistake lacks the neuron (insufficient), below = it has too much (excessive).

    used `[M]` bool: rows with anything to say. steps, converged `[M]`: the counterfactual's; None for other scorers.
    """

    values: Tensor
    used: Tensor
    steps: Tensor | None
    converged: Tensor | None


def neuron_scores(
    bank: FeatureBank, rows: Tensor, scorer: Scorer, rule: CounterfactualRule, seed: int
) -> ScoredMistakes:
    """Score the neurons of the images in `rows` `[M]` (mistakes of any classes), each for its own true class c.

    - `counterfactual`: the change w that turns the prediction into c (see `counterfactuals`).
    - `gradient`: its first step, W_c − Σ_k p_k · W_k; ranks as the loop does at a fraction of the cost.
    - `contribution`: see `contributions`.
    - `weight`: W_c. `importance`: `Head.importance` − 1 at the bank's mean feature. `random`: one normal draw a class
      from `seed`. These three are the same for all mistakes of a class.

    Raises `ConfigError` for an unknown scorer.
    """
    steps = converged = None
    labels = bank.labels[rows]
    if scorer == "counterfactual":
        upper = bank.features.quantile(0.99, dim=0) if rule.box == "q99" else None
        found = counterfactuals(bank.features[rows], labels, bank.head, rule, upper)
        values, steps, converged = found.change, found.steps, found.converged
    elif scorer == "gradient":
        values = bank.head.weight[labels] - bank.head.logits(bank.features[rows]).softmax(dim=1) @ bank.head.weight
    elif scorer == "contribution":
        values = contributions(bank, rows)
    elif scorer in ("weight", "importance", "random"):
        values = torch.zeros(len(rows), bank.head.neurons)
        for label in sorted(set(labels.tolist())):
            values[labels == label] = _of_class(bank, label, scorer, seed)
    else:
        raise ConfigError(f"inspect.scorer: {scorer!r}; {nearest(scorer, get_args(Scorer))}")
    return ScoredMistakes(values, values.any(dim=1), steps, converged)


def contributions(bank: FeatureBank, rows: Tensor) -> Tensor:
    """How far each neuron's distance from the class's correct images explains each mistake, `[M, D]`.

    s_ij = (μ_j − f_ij) · (W_cj − W_pj), with μ the mean feature of the correct images of the true class c and p the
    class predicted: what the margin of c over p would gain if the neuron were as in a correct image. s > 0 explains the
    mistake, in two ways. With f < μ the image lacks evidence for c: insufficient, the value is s. With f > μ it has
    evidence for p: excessive, the value is −s. s < 0 is a neuron that is off but speaks for c: the value is 0. A class
    without correct images has no μ: all its rows are 0. A cue that the correct images lack too stays unseen.
    """
    labels, predictions = bank.labels[rows], bank.predictions
    correct = torch.full((len(bank.head.weight), bank.head.neurons), torch.nan)
    for label in sorted(set(labels.tolist())):
        correct[label] = bank.features[(bank.labels == label) & (predictions == label)].mean(dim=0)
    gap = correct[labels] - bank.features[rows]
    margin = bank.head.weight[labels] - bank.head.weight[predictions[rows]]
    return ((gap * margin).clamp(min=0) * gap.sign()).nan_to_num(nan=0.0)


def _of_class(bank: FeatureBank, label: int, scorer: str, seed: int) -> Tensor:
    if scorer == "weight":
        return bank.head.weight[label]
    if scorer == "importance":
        return (bank.head.importance(bank.features.mean(dim=0), label) - 1).float()
    generator = torch.Generator().manual_seed(purpose_seed(seed, "inspect", "random", label))
    return torch.randn(bank.head.neurons, generator=generator)
