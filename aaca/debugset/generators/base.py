"""`Generator`, the role of the `generator` config group: prompts in, images out."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from aaca.data.table import ImageTable
from aaca.debugset.prompts.base import SLOT, Prompt, class_phrase
from aaca.models.text_to_image import Diffusion
from aaca.runtime.errors import DataError
from aaca.runtime.seeding import purpose_seed

TRIES = 4
"""How many seeds an image gets before it counts as failed."""


@dataclass(frozen=True)
class Request:
    """One image to make. `seeds`: tried in order until an image is not blank."""

    index: int
    label: int
    prompt: str
    negative: str
    concept: str
    seeds: tuple[int, ...]
    strength: float = 1.0  # 1 starts from noise; below, from the image at row `start`, changed that much
    start: int = -1  # row of the table of start images, -1 for none
    recipe: str = ""  # of the prompt


def shared_out(total: int, weights: Sequence[float]) -> list[int]:
    """`total` shared out by weight (largest remainder); as long as it lasts, nobody with a weight is left with 0."""
    exact = [total * weight / sum(weights) for weight in weights]
    counts = [int(value) for value in exact]
    by_remainder = sorted(range(len(weights)), key=lambda place: (counts[place] - exact[place], place))
    for place in by_remainder[: total - sum(counts)]:
        counts[place] += 1
    for place in range(len(counts)):
        if counts[place] == 0 and weights[place] > 0 and max(counts) > 1:
            counts[counts.index(max(counts))] -= 1
            counts[place] = 1
    return counts


class Painter(Protocol):
    """What draws: for each request and seed an image uint8 `[S, S, 3]`, or None where nothing usable came out."""

    def check(self, requests: Sequence[Request]) -> None:
        """Raise `AacaError` if one of these can never be drawn."""

    def __call__(self, requests: Sequence[Request], seeds: Sequence[int]) -> list[np.ndarray | None]:
        """Draw at most `Generator.batch_size` requests of one strength; each by nothing but itself and its seed."""


class Generator(ABC):
    """Makes images for prompts."""

    needs_tokens: bool = False  # whether a token a class has to be learned first
    needs_diffusion: bool = True  # whether a pipeline draws
    needs_starts: bool = False  # whether it changes real images (of the train split)

    def requests(
        self, prompts: Sequence[Prompt], classes: Sequence[str], per_class: int, seed: int, starts: ImageTable | None
    ) -> list[Request]:
        """`per_class` requests a class, shared out evenly over its prompts; the seeds of one depend on no other."""
        found: list[Request] = []
        for label, name in enumerate(classes):
            for place, (text, prompt, turn) in enumerate(self.shares(prompts, label, name, per_class)):
                key = (text, prompt.negative, prompt.concept, turn)
                seeds = tuple(purpose_seed(seed, "image", *key, attempt) for attempt in range(TRIES))
                strength, start = self.start_of(label, place, starts, seeds[0])
                found.append(
                    Request(
                        len(found), label, text, prompt.negative, prompt.concept, seeds, strength, start, prompt.recipe
                    )
                )
        return found

    def shares(self, prompts: Sequence[Prompt], label: int, name: str, per_class: int) -> list[tuple[str, Prompt, int]]:
        """(text, prompt, number among the images of this prompt) for each of a class's `per_class` images."""
        own = [prompt for prompt in prompts if prompt.label == label]
        if not own:
            raise DataError(f"prompts: none for class {name!r}; expected at least one")
        counts = shared_out(per_class, [prompt.weight for prompt in own])
        shared = list(zip(own, counts, strict=True))
        turns = [(prompt, turn) for turn in range(max(counts)) for prompt, count in shared if turn < count]
        return [(prompt.text.replace(SLOT, self.phrase(name)), prompt, turn) for prompt, turn in turns]

    def phrase(self, name: str) -> str:
        """What stands in a prompt for the class."""
        return class_phrase(name)

    def start_of(self, label: int, place: int, starts: ImageTable | None, seed: int) -> tuple[float, int]:
        """(strength, row of the start image) of the `place`-th image of a class."""
        return 1.0, -1

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """What influences the images besides prompts, seeds, start images and tokens."""

    @abstractmethod
    def check(self, classes: Sequence[str]) -> None:
        """Raise, before any work, if this generator cannot serve these classes."""

    def batch_size(self, diffusion: Diffusion) -> int:
        """Images drawn together on a device."""
        return diffusion.batch_size

    @abstractmethod
    def painter(
        self, diffusion: Diffusion, device: torch.device, tokens: dict[str, Any], starts: ImageTable | None
    ) -> Painter:
        """What draws, on this device. `tokens`: learned token → file that holds it."""
