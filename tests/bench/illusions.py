"""What images of neurons cost: 30 neurons in batches beside one neuron after the other, the same images of each.

python tests/bench/illusions.py [iterations] [neurons] [device]
"""

import sys
import time
from collections.abc import Sequence

import torch

from aaca.training.illusion import IllusionRequest, IllusionSpec, requests_for
from aaca.training.illusion_painter import Painter
from tests.shape_toys import small_resnet

COPIES, CLASSES, SIZE = 4, 10, 64


def seconds(paint: Painter, batches: Sequence[Sequence[IllusionRequest]]) -> float:
    began = time.perf_counter()
    for batch in batches:
        paint(batch)
    return time.perf_counter() - began


def race(iterations: int, neurons: int, device: torch.device) -> None:
    """One neuron at a time is four images a batch; then batches of more."""
    torch.manual_seed(0)
    classifier = small_resnet(CLASSES, SIZE).requires_grad_(False).to(device)
    by_class = {label: range(label, neurons, CLASSES) for label in range(min(CLASSES, neurons))}
    requests = requests_for(by_class, COPIES, 0)
    paint = Painter(classifier, IllusionSpec(iterations=iterations), None, None, None, device)
    paint(requests[:COPIES])  # warm
    print(f"{neurons} neurons × {COPIES} copies, {iterations} iterations, {SIZE} px, {device}", end=", ")
    print(f"{torch.get_num_threads()} thread(s)")
    alone = 0.0
    for size in (COPIES, 32, 64, len(requests)):
        batches = [requests[start : start + size] for start in range(0, len(requests), size)]
        took = seconds(paint, batches)
        alone = alone or took
        each = 1e3 * took / (len(requests) * iterations)
        print(f"batches of {size:3d}: {took:6.1f} s, {each:.2f} ms an image and iteration, {alone / took:.2f} times")


if __name__ == "__main__":
    arguments = sys.argv[1:]
    race(
        int(arguments[0]) if arguments else 10,
        int(arguments[1]) if len(arguments) > 1 else 30,
        torch.device(arguments[2] if len(arguments) > 2 else "cpu"),
    )
