"""Rivals that change real images: Real Guidance (He et al. 2023) and DA-Fusion (Trabucco et al. 2024)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from aaca.data.table import ImageTable
from aaca.debugset.generators.text_to_image import TextToImage
from aaca.models.tokens import token_names
from aaca.runtime.errors import ConfigError, DataError


class RealGuidance(TextToImage):
    """Noises a real training image of the class part of the way and denoises it by the prompt (SDEdit)."""

    needs_starts = True

    def __init__(self, strength: float = 0.5) -> None:
        self.strengths = [strength]
        _check(self.strengths, "generator.strength")

    def start_of(self, label: int, place: int, starts: ImageTable | None, seed: int) -> tuple[float, int]:
        """A random training image of the class; the strengths in turn."""
        assert starts is not None
        rows = np.flatnonzero(starts.labels == label)
        if not len(rows):
            raise DataError(f"generator: class {starts.classes[label]!r} has no training image to start from")
        row = int(rows[np.random.default_rng(seed).integers(len(rows))])
        return self.strengths[place % len(self.strengths)], row

    def fingerprint(self) -> dict[str, Any]:
        """The strengths."""
        return {"generator": "image_to_image", "strengths": self.strengths}


class DaFusion(RealGuidance):
    """The same at several strengths, equally often, with a learned token for the class."""

    needs_tokens = True

    def __init__(self, strengths: list[float] | None = None) -> None:
        self.strengths = strengths or [0.25, 0.5, 0.75, 1.0]
        _check(self.strengths, "generator.strengths")

    def check(self, classes: Sequence[str]) -> None:
        """No two classes may share a token."""
        token_names(classes)

    def phrase(self, name: str) -> str:
        """The token."""
        return f"a {token_names([name])[0]}"


def _check(strengths: list[float], key: str) -> None:
    for strength in strengths:
        if not 0 < strength <= 1:
            raise ConfigError(f"{key}: {strength}; expected a share in (0, 1]: 1 keeps nothing of the real image")
