"""A painter that is quick and picklable: noise by the request and its seed, blank or killed where a test wants it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aaca.debugset.generators.base import Request
from aaca.runtime.ranks import current
from aaca.training.generate import generate_images
from aaca.training.trainer import TrainerSpec
from tests.toys import Killed


class Noise:
    """`blank`: index → how many of its seeds give nothing. Dies after `calls` batches."""

    def __init__(self, blank: Mapping[int, int] | None = None, calls: int | None = None) -> None:
        self.blank, self.calls = dict(blank or {}), calls
        self.seen: list[list[tuple[int, int]]] = []  # (index, seed) of every call
        self.strengths: list[set[float]] = []

    def check(self, requests: Sequence[Request]) -> None: ...

    def __call__(self, requests: Sequence[Request], seeds: Sequence[int]) -> list[np.ndarray | None]:
        if self.calls is not None and len(self.seen) == self.calls:
            raise Killed
        self.seen.append([(request.index, seed) for request, seed in zip(requests, seeds, strict=True)])
        self.strengths.append({request.strength for request in requests})
        return [self._one(request, seed) for request, seed in zip(requests, seeds, strict=True)]

    def _one(self, request: Request, seed: int) -> np.ndarray | None:
        if request.seeds.index(seed) < self.blank.get(request.index, 0):
            return None
        return np.random.default_rng((request.index, seed)).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def requests_of(n: int, strengths: Sequence[float] = (1.0,)) -> list[Request]:
    return [
        Request(
            index,
            0,
            f"a photo of <{index}> & ümläut",
            "",
            "",
            tuple(1000 * index + attempt for attempt in range(4)),
            strengths[index % len(strengths)],
        )
        for index in range(n)
    ]


def draw(argument: dict[str, Any]) -> list[str]:
    """What every rank does: all images, two of them late and one never; the names of the files."""
    spec = TrainerSpec(accelerator="cpu", devices=current().world)
    painter = Noise({2: 1, 4: 3, 7: 4})
    images = generate_images(requests_of(10), lambda device: painter, 3, Path(argument["folder"]), spec)
    return sorted(file.name for file in images.iterdir())
