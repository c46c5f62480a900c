"""What neuron inspection costs: counterfactuals of all mistakes at once beside the paper's loop, one after another.

python tests/bench/inspection.py [mistakes] [neurons]
"""

import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from aaca.discover.neurons.counterfactual import CounterfactualRule, counterfactuals
from aaca.models.head import Head

CLASSES = 101


def timed(work: Callable[[], tuple[Tensor, Tensor]]) -> tuple[float, Tensor, Tensor]:
    began = time.perf_counter()
    change, steps = work()
    return time.perf_counter() - began, change, steps


def one_by_one(features: Tensor, targets: Tensor, head: Head, rule: CounterfactualRule) -> tuple[Tensor, Tensor]:
    """The paper's loop on cached features: autograd and torch.optim.SGD, a mistake at a time."""
    changes, steps = [], []
    for row, target in zip(features, targets, strict=True):
        change = torch.zeros(1, len(row), requires_grad=True)
        optimizer = torch.optim.SGD([change], lr=rule.lr, momentum=rule.momentum)
        for step in range(rule.max_steps + 1):
            logits = torch.nn.functional.linear(row + change, head.weight, head.bias)
            if int(logits.argmax()) == int(target) or step == rule.max_steps:
                break
            loss = torch.nn.functional.cross_entropy(logits, target[None])
            loss = loss + (rule.alpha * change.norm(p=1) + rule.beta * change.norm(p=2)) / len(row)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        changes.append(change.detach())
        steps.append(step)
    return torch.cat(changes), torch.tensor(steps)


def compare(mistakes: int, neurons: int) -> None:
    """Print seconds of both, and how far apart their results are."""
    generator, rule = torch.Generator().manual_seed(0), CounterfactualRule()
    head = Head(torch.randn(CLASSES, neurons, generator=generator) / neurons**0.5 * 2, torch.zeros(CLASSES))
    features = torch.randn(mistakes, neurons, generator=generator).relu()
    targets = head.logits(features).topk(5, dim=1).indices[:, 4]  # the fifth guess is right

    def together() -> tuple[Tensor, Tensor]:
        found = counterfactuals(features, targets, head, rule, None)
        return found.change, found.steps

    together()  # threads and buffers exist
    runs = sorted((timed(together) for _ in range(5)), key=lambda run: run[0])
    mine, change, steps = runs[2]  # the median
    theirs, expected, theirs_steps = timed(lambda: one_by_one(features, targets, head, rule))
    print(
        f"{mistakes} mistakes × {neurons} neurons × {CLASSES} classes, {float(steps.float().mean()):.1f} steps a row,"
    )
    print(f"{torch.get_num_threads()} thread(s): one by one {theirs:.2f} s, together {mine:.3f} s,", end=" ")
    print(f"{theirs / mine:.1f} times as fast; steps equal: {torch.equal(steps, theirs_steps)},", end=" ")
    print(f"max|Δw| {float((change - expected).abs().max()):.1e}")


if __name__ == "__main__":
    arguments = [int(value) for value in sys.argv[1:]]
    compare(*(arguments + [200, 2048][len(arguments) :]))
