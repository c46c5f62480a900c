"""The schema of `naming`: how an autoencoder's latents get their names."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True)
class NamingConfig:
    """How latents get their names.

    `vocabulary`: a text file, a word a line (null: of the embedded world). `templates`: texts with {} for a word (null:
    those of clip=). `center_words`, `center_images`: less their means, against the gap between texts and images.
    `least_cosine`, `least_density`: below them a latent counts as unnamed. `check`: a judge that looks at activations.
    """

    vocabulary: str | None = None
    templates: list[str] | None = None
    top: Count = 5
    center_words: bool = False
    center_images: bool = False
    least_cosine: float | None = None
    least_density: float | None = None
    check: Literal["none", "correlation", "soft_wpmi"] = "correlation"
