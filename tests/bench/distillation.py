"""What Concept Distillation costs: a step with the prototype loss beside a plain one; vectors beside captum's.

python tests/bench/distillation.py [steps]
"""

import statistics
import sys
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from captum.concept._utils.classifier import DefaultClassifier
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from aaca.concepts.cav import fit_cav
from aaca.models.digit_cnn import DigitCnn
from aaca.training.concept_distillation import ConceptDistillation, ConceptObjective, Target
from aaca.training.finetune import FineTune
from tests.toys import plain_recipe

BATCH, CLASSES, CONCEPTS = 64, 10, 10


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def module_of(target: Target | None) -> FineTune:
    """The digits' network with ten concepts at conv2; None: without any."""
    torch.manual_seed(0)
    classifier = DigitCnn().build(CLASSES)
    if target is None:
        return FineTune(classifier, plain_recipe(), CLASSES, 1)
    objective = ConceptObjective(
        layer="backbone.conv2",
        pool="none",
        target=target,
        distance="abs_cos",
        strength=200.0,
        desensitise=torch.ones(CONCEPTS, dtype=torch.bool),
        weights=torch.ones(CONCEPTS),
        counts=torch.ones(CLASSES, CONCEPTS, dtype=torch.bool),
        directions=lambda _: nn.functional.normalize(torch.randn(CONCEPTS, 3200), dim=1),
        images=lambda _: (torch.randn(100, 3200), torch.arange(100) % CLASSES),
    )
    module = ConceptDistillation(classifier, plain_recipe(), CLASSES, 1, objective=objective, size=3200)
    module.log = lambda *_, **__: None  # type: ignore[method-assign]
    module.refresh()
    return module


def stepper(module: FineTune) -> Callable[[Tensor, Tensor], None]:
    """Forward, backward and Adam's update of a batch."""
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-4)

    def step(images: Tensor, labels: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        module.objective(images, labels, labels).backward()
        optimizer.step()

    return step


def training(count: int) -> None:
    """Plain steps and those with a concept loss, batch by batch in turn; the median of the ratios of neighbours."""
    images, labels = torch.randn(BATCH, 3, 28, 28), torch.randint(CLASSES, (BATCH,))
    plain = stepper(module_of(None))
    for target in ("proto", "random_sign"):
        step = stepper(module_of(target))  # type: ignore[arg-type]
        pairs = [(seconds(lambda: plain(images, labels)), seconds(lambda s=step: s(images, labels))) for _ in range(count)]  # type: ignore[misc] # fmt: skip # noqa: E501
        ratios = sorted(mine / theirs for theirs, mine in pairs[5:])
        quarter = len(ratios) // 4
        print(f"{count} steps: plain {1e3 * statistics.median(pair[0] for pair in pairs):.1f} ms;", end=" ")
        print(f"with {target}: median ratio {statistics.median(ratios):.3f}", end=" ")
        print(f"(half of them {ratios[quarter]:.3f}…{ratios[-quarter - 1]:.3f})")


def vectors(concepts: int, layers: tuple[int, ...], images: int = 100) -> None:
    """`concepts` vectors in each of `layers` (sizes) by our default, five folds and all, and by captum's default."""
    rng = np.random.default_rng(0)
    negatives = [rng.normal(size=(images, size)).astype(np.float32) for size in layers]
    positives = [
        [(rng.normal(size=(images, size)) + rng.normal(size=size)).astype(np.float32) for size in layers]
        for _ in range(concepts)
    ]

    def ours() -> None:
        for own in positives:
            for positive, negative in zip(own, negatives, strict=True):
                fit_cav(positive, negative)

    def captum() -> None:
        warnings.simplefilter("ignore")  # it says on every fit that it keeps what it is given in memory
        for own in positives:
            for positive, negative in zip(own, negatives, strict=True):
                values = torch.from_numpy(np.concatenate([positive, negative]).astype(np.float32))
                labels = torch.tensor([0] * images + [1] * images)
                classifier = DefaultClassifier()
                classifier.train_and_eval(DataLoader(TensorDataset(values, labels), batch_size=2 * images))

    theirs, mine = seconds(captum), seconds(ours)
    print(
        f"{concepts} concepts × {len(layers)} layers {layers}: captum {theirs:.1f} s, ours {mine:.2f} s (five folds",
        end=" ",
    )
    print(f"of held-out accuracy with them): {theirs / mine:.1f} times as fast")


if __name__ == "__main__":
    arguments = [int(value) for value in sys.argv[1:]]
    training(*(arguments or [200]))
    vectors(100, (512, 1024, 3200))
