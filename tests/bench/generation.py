"""What generating costs beside a bare loop over diffusers' call: the same images, in turn, as a ratio.

python tests/bench/generation.py [images] [rounds]
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from aaca.debugset.generators.base import Request
from aaca.debugset.generators.text_to_image import TextToImage
from aaca.models.text_to_image import Diffusion
from aaca.training.generate import generate_images
from aaca.training.trainer import TrainerSpec

SETTINGS = Diffusion("embedded:diffusion", steps=20, guidance=7.5, safety_checker=False, batch_size=32)


def requests(count: int) -> list[Request]:
    prompts = [
        f"a photo of {thing} on {ground}" for thing in ("a bird", "produce") for ground in ("sand", "grass", "snow")
    ]
    return [Request(index, 0, prompts[index % 6], "", "", (index,)) for index in range(count)]


def bare(count: int) -> float:
    wanted, began = requests(count), time.perf_counter()
    pipeline = SETTINGS.load("cpu")
    for start in range(0, count, SETTINGS.batch_size):
        batch = wanted[start : start + SETTINGS.batch_size]
        pipeline(
            prompt=[request.prompt for request in batch],
            generator=[torch.Generator().manual_seed(request.seeds[0]) for request in batch],
            num_inference_steps=SETTINGS.steps,
            guidance_scale=SETTINGS.guidance,
            output_type="np",
        )
    return time.perf_counter() - began


def ours(count: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        spec = TrainerSpec(accelerator="cpu")
        generate_images(
            requests(count),
            lambda device: TextToImage().painter(SETTINGS, device, {}, None),
            SETTINGS.batch_size,
            Path(folder),
            spec,
        )
        return time.perf_counter() - began


def main(count: int, rounds: int) -> None:
    ours(SETTINGS.batch_size)  # imports and caches
    pairs = [(bare(count), ours(count)) for _ in range(rounds)]
    ratios = [mine / theirs for theirs, mine in pairs]
    print(
        f"{count} images, {SETTINGS.steps} steps, batches of {SETTINGS.batch_size}, {torch.get_num_threads()} threads"
    )
    for theirs, mine in pairs:
        print(f"bare diffusers {theirs:7.1f} s   generate_images {mine:7.1f} s   ratio {mine / theirs:.3f}")
    print(f"median ratio {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main(*(int(value) for value in [*sys.argv[1:], *["128", "3"][len(sys.argv) - 1 :]]))
