"""The schema of `naming`: how an autoencoder's latents get their names."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from aaca.concepts.vocab_store import read_words
from aaca.discover.concepts.vocabulary import Vocabulary
from aaca.runtime.errors import ConfigError
from aaca.world.language import with_article

Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True)
class NamingConfig:
    """How latents get their names.

    `vocabulary`: a text file, a word a line (null: of the embedded world, where clip= is of it). `vectors`: a torch
    file with the words' vectors `[V, D]`, made elsewhere (null: made here). `templates`: texts with {} for a word
    (null: those of clip=). `center_words`, `center_images`: less their means, against the gap between texts and images.
    `least_cosine`, `least_density`: below them a latent counts as unnamed. `check`: a judge that looks at activations.
    """

    vocabulary: str | None = None
    vectors: str | None = None
    templates: list[str] | None = None
    top: Count = 5
    center_words: bool = False
    center_images: bool = False
    least_cosine: float | None = None
    least_density: float | None = None
    check: Literal["none", "correlation", "soft_wpmi"] = "correlation"

    def __post_init__(self) -> None:
        """Raise `ConfigError` on files that are not there."""
        if self.vectors is not None and self.vocabulary is None:
            raise ConfigError("naming.vectors: given, but naming.vocabulary is not; expected the words of its rows")
        for key in ("vocabulary", "vectors"):
            file = getattr(self, key)
            if file is not None and not Path(file).is_file():
                raise ConfigError(f"naming.{key}: no file {file}; expected one")

    def words(self, classes: Sequence[str]) -> list[str]:
        """The words that a latent may be called: of the file, or of the embedded world and the classes.

        Raises `ConfigError` where there are not more than `top`.
        """
        if self.vocabulary is not None:
            found = read_words(Path(self.vocabulary))
        else:
            found = list(dict.fromkeys([*Vocabulary.load(None, "naming.vocabulary").names, *classes]))
        if self.top >= len(found):
            raise ConfigError(f"naming.top: {self.top}; expected fewer than the {len(found)} words of the vocabulary")
        return found

    def spoken(self, words: Sequence[str]) -> list[str]:
        """What is asked for each word: as it is, or, of the embedded world, with its article."""
        return list(words) if self.vocabulary is not None else [with_article(word) for word in words]
