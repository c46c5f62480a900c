"""The embedded world's own renderer as a generator: what a perfect text-to-image model would draw (an upper bound)."""

import re
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field

from aaca.data.table import ImageTable
from aaca.debugset.generators.base import Generator, Painter, Request
from aaca.models.text_to_image import Diffusion
from aaca.runtime.errors import ConfigError
from aaca.world.bugs import CONCEPT_RATE
from aaca.world.pack import load_pack
from aaca.world.render import VERSION, render
from aaca.world.scenes import Relation, request_spec


class Renderer(Generator):
    """Renders what a prompt names from train sources; a ground or co-object that it does not name is drawn evenly."""

    needs_diffusion = False

    def __init__(self, image_size: Annotated[int, Field(ge=16)] = 64) -> None:
        self.image_size = image_size

    def fingerprint(self) -> dict[str, Any]:
        """Size and version."""
        return {"generator": "renderer", "image_size": self.image_size, "renderer": VERSION}

    def check(self, classes: Sequence[str]) -> None:
        """Only the classes of the pack can be rendered."""
        odd = [name for name in classes if name not in load_pack().classes]
        if odd:
            raise ConfigError(
                f"generator: renderer draws {', '.join(load_pack().classes)} alone, the dataset has class {odd[0]!r}; "
                "expected dataset=stampscenes, or another generator"
            )

    def batch_size(self, diffusion: Diffusion) -> int:
        """Rendering gains nothing from batches; a progress line does."""
        return 32

    def painter(
        self, diffusion: Diffusion, device: torch.device, tokens: dict[str, Any], starts: ImageTable | None
    ) -> Painter:
        """No network at all."""
        return RenderPainter(self.image_size)


class RenderPainter:
    """Renders requests."""

    def __init__(self, image_size: int) -> None:
        self.image_size = image_size

    def check(self, requests: Sequence[Request]) -> None:
        """Anything can be rendered."""

    def __call__(self, requests: Sequence[Request], seeds: Sequence[int]) -> list[np.ndarray | None]:
        """Render each."""
        return [self._one(request, seed) for request, seed in zip(requests, seeds, strict=True)]

    def _one(self, request: Request, seed: int) -> np.ndarray:
        pack, rng = load_pack(), np.random.default_rng(seed)
        wanted = f"{request.prompt} {request.concept}"
        scene, concept = named(wanted, pack.labels("scene")), named(wanted, pack.labels("concept"))
        drawn_scene, drawn_concept = rng.choice(pack.labels("scene")), rng.choice(pack.labels("concept"))
        if concept is None and rng.random() < CONCEPT_RATE:
            concept = str(drawn_concept)
        said = re.search(r"\b(left of|right of)\b", wanted)
        relation: Relation | None = None
        if said is not None and concept is not None:
            relation = "left of" if said[1] == "left of" else "right of"
        spec = request_spec(seed, pack.classes[request.label], scene or str(drawn_scene), concept, relation)
        return render(spec, self.image_size).rgb


def named(text: str, labels: Sequence[str]) -> str | None:
    """The first of `labels` that `text` names as a word, or None."""
    found = [(match.start(), label) for label in labels if (match := re.search(rf"\b{label}\b", text))]
    return min(found)[1] if found else None
