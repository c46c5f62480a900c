"""30 neurons drawn at once against one at a time on a GPU, ResNet-50, 224 px."""

import logging
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from aaca.models.timm_model import TimmModel
from aaca.training.illusion import IllusionSpec, draw_illusions, requests_for
from aaca.training.trainer import TrainerSpec

logging.disable(logging.WARNING)


def compare(precision: str, iterations: int) -> None:
    """Print seconds of both, and of one step at once: start, end and files."""
    torch.manual_seed(0)
    model = TimmModel("resnet50", 224).build(101)
    spec, trainer = IllusionSpec(iterations=iterations, copies=4), TrainerSpec(accelerator="gpu", precision=precision)

    def seconds(neurons: range, batch: int, steps: int = iterations) -> float:
        with tempfile.TemporaryDirectory() as folder:
            torch.cuda.synchronize()
            began = time.perf_counter()
            own = replace(spec, batch=batch, iterations=steps)
            draw_illusions(requests_for({0: neurons}, 4, 0), model, own, None, None, None, Path(folder), trainer)
            torch.cuda.synchronize()
            return time.perf_counter() - began

    seconds(range(2), 8, 3)
    seconds(range(30), 120, 3)
    fixed, together = seconds(range(30), 120, 1), seconds(range(30), 120)
    single = sum(seconds(range(neuron, neuron + 1), 4) for neuron in range(30))
    print(f"{precision}, 30 neurons x 4 copies x {iterations} steps: together {together:.1f} s ({fixed:.1f} s fixed),")
    print(f"one at a time {single:.1f} s, {single / together:.1f}x", flush=True)


if __name__ == "__main__":
    compare("bf16-mixed", 150)
    compare("32-true", 30)
