"""`TextGuide`: what classes are called and how alike images are to it, differentiably; `text_guide` makes one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from aaca.models.template import check_template
from aaca.models.zero_shot import ClipModel, ImageText
from aaca.runtime.errors import ConfigError


class TextGuide(Protocol):
    """Texts and images in one space. An encoder that is a module is moved to the device of the loop that uses it."""

    @property
    def vectors(self) -> Tensor:
        """`[K, E]`, one a class."""

    @property
    def image_encoder(self) -> Callable[[Tensor], Tensor]:
        """Differentiable, from RGB images `[B, 3, S, S]` in 0…1 of any size to `[B, E]`."""


@dataclass(frozen=True)
class ClipGuide:
    """A `TextGuide` of an image-text model."""

    vectors: Tensor
    image_encoder: nn.Module


class ImageSide(nn.Module):
    """The image tower on whole images in 0…1: normalised with the model's own mean and deviation, resized, not cut."""

    def __init__(self, clip: ImageText) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, images: Tensor) -> Tensor:
        """`[B, E]` of `[B, 3, S, S]`."""
        mean, deviation = (images.new_tensor(values).view(3, 1, 1) for values in (self.clip.mean, self.clip.std))
        return self.clip.raw_vectors((images - mean) / deviation)


def text_guide(clip: ClipModel, words: Sequence[str], templates: Sequence[str]) -> ClipGuide:
    """One vector a class: the mean of the unit vectors of `words[k]` in every template, itself not of length 1.

    Raises `ConfigError` for a template without its slot, or without words or templates; `AacaError` as `clip.load`.
    """
    if not words or not templates:
        raise ConfigError(f"guide: {len(words)} class words and {len(templates)} templates; expected 1 or more of each")
    for index, template in enumerate(templates):
        check_template(template, f"guide.templates[{index}]")
    model = clip.load()
    means = [model.sentence_vectors([template.format(word) for template in templates]).mean(axis=0) for word in words]
    return ClipGuide(torch.stack([torch.from_numpy(mean).float() for mean in means]), ImageSide(model))
