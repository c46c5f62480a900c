"""Text to image: the prompt alone decides (G-LLM; with `prompts=llm_concepts` G-LLM-prompt; Rombach et al. 2022)."""

from collections.abc import Sequence
from typing import Any

import torch

from aaca.data.table import ImageTable
from aaca.debugset.generators.base import Generator, Painter
from aaca.debugset.generators.diffusion import DiffusionPainter
from aaca.models.text_to_image import Diffusion


class TextToImage(Generator):
    """Draws every image from noise."""

    def fingerprint(self) -> dict[str, Any]:
        """Nothing of its own."""
        return {"generator": "text_to_image"}

    def check(self, classes: Sequence[str]) -> None:
        """Any class has a name."""

    def painter(
        self, diffusion: Diffusion, device: torch.device, tokens: dict[str, Any], starts: ImageTable | None
    ) -> Painter:
        """The pipeline, with the learned tokens where there are any."""
        pipeline = diffusion.load(device)
        if tokens:
            pipeline.load_textual_inversion(list(map(str, tokens.values())), token=list(tokens))
        return DiffusionPainter(pipeline, diffusion, starts)
