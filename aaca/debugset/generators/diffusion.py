"""Drawing with a pipeline of diffusers: batches of one size, one random stream an image."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import AutoPipelineForImage2Image
from PIL import Image

from aaca.data.table import ImageTable
from aaca.debugset.generators.base import Request
from aaca.models.text_to_image import Diffusion
from aaca.models.tokenizer import clean
from aaca.runtime.errors import AacaError

FLAT = 2.0
"""An image whose pixels deviate less than this (of 255) from their mean shows nothing."""


class DiffusionPainter:
    """Draws requests with `pipeline`. A batch is filled up to `batch_size`, so that every image is computed alike.

    Each image has its own random streams on the CPU: start noise, and whatever the scheduler or the image encoder
    draws. So it does not matter which images share its batch, in which order, or on how many devices.
    """

    def __init__(self, pipeline: Any, settings: Diffusion, starts: ImageTable | None) -> None:
        self.pipeline, self.settings, self.starts = pipeline, settings, starts
        self.batch_size = settings.batch_size
        self.changer = None if starts is None else AutoPipelineForImage2Image.from_pipe(pipeline)
        if self.changer is not None:
            self.changer.set_progress_bar_config(disable=True)
        self.size = settings.size or pipeline.unet.config.sample_size * pipeline.vae_scale_factor

    def check(self, requests: Sequence[Request]) -> None:
        """Raise `AacaError` naming a prompt with more tokens than the text encoder takes, or a strength of no steps."""
        for strength in {request.strength for request in requests}:
            if int(self.settings.steps * strength) < 1:
                raise AacaError(
                    f"generator: a strength of {strength} leaves none of diffusion.steps={self.settings.steps}; "
                    f"expected at least {math.ceil(1 / strength)} steps"
                )
        tokenizer = self.pipeline.tokenizer
        for prompt in dict.fromkeys(text for request in requests for text in (request.prompt, request.negative)):
            count = len(tokenizer(self.pipeline.maybe_convert_prompt(clean(prompt), tokenizer)).input_ids)
            if count > tokenizer.model_max_length:
                raise AacaError(
                    f"prompts: {prompt!r} has {count} tokens; expected at most {tokenizer.model_max_length} (two of "
                    "them mark its ends): shorten the template or the concept, or lower inversion.vectors"
                )

    @torch.no_grad()
    def __call__(self, requests: Sequence[Request], seeds: Sequence[int]) -> list[np.ndarray | None]:
        """Draw a batch of at most `batch_size`; all of one strength."""
        count = len(requests)
        filled = [*requests, *[requests[-1]] * (self.batch_size - count)]
        streams = [torch.Generator().manual_seed(seed) for seed in [*seeds, *[seeds[-1]] * (self.batch_size - count)]]
        common: dict[str, Any] = {
            "prompt": [clean(request.prompt) for request in filled],
            "num_inference_steps": self.settings.steps,
            "guidance_scale": self.settings.guidance,
            "generator": streams,
            "output_type": "np",
        }
        if any(request.negative for request in filled):
            common["negative_prompt"] = [clean(request.negative) for request in filled]
        if self.changer is not None and requests[0].start >= 0:
            drawn = self.changer(
                image=[self._start(request.start) for request in filled], strength=requests[0].strength, **common
            )
        else:
            drawn = self.pipeline(height=self.size, width=self.size, **common)
        flagged = getattr(drawn, "nsfw_content_detected", None) or [False] * len(filled)
        pictures = drawn.images[:count]
        return [None if bad else as_image(picture) for picture, bad in zip(pictures, flagged, strict=False)]

    def _start(self, row: int) -> Image.Image:
        assert self.starts is not None
        return Image.fromarray(self.starts.image(row)).resize((self.size, self.size), Image.Resampling.BICUBIC)


def as_image(pixels: np.ndarray) -> np.ndarray | None:
    """uint8 `[S, S, 3]` of values in [0, 1]; None where they are not finite or all alike (black, blanked)."""
    if not np.isfinite(pixels).all():
        return None
    image = (pixels * 255).round().astype(np.uint8)
    return None if float(image.std()) < FLAT else image
