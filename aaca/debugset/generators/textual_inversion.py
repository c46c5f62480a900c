"""G-TG: a token a class, learned from its images (Gal et al. 2022; Vendrow et al. 2023), then text to image."""

from collections.abc import Sequence
from typing import Any

from aaca.debugset.generators.text_to_image import TextToImage
from aaca.models.tokens import token_names


class LearnedTokens(TextToImage):
    """Prompts name the class by its learned token: "a photo of a <aaca-bird>"."""

    needs_tokens = True

    def phrase(self, name: str) -> str:
        """The token."""
        return f"a {token_names([name])[0]}"

    def check(self, classes: Sequence[str]) -> None:
        """No two classes may share a token."""
        token_names(classes)

    def fingerprint(self) -> dict[str, Any]:
        """Nothing of its own: the tokens are an input."""
        return {"generator": "textual_inversion"}
