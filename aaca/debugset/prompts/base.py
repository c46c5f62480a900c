"""`PromptWriter`, the role of the `prompts` config group: what a text-to-image model is asked for."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aaca.world.language import with_article

SLOT = "{class}"
"""Where a prompt's text names the class. The generator fills it: "a bird", or "a <aaca-bird>" for a learned token."""


@dataclass(frozen=True)
class Prompt:
    """One thing to ask for. `text` holds `SLOT` once; `concept` is what it asks for besides the class ("" for none)."""

    label: int
    text: str
    negative: str = ""
    concept: str = ""


class PromptWriter(ABC):
    """Writes the prompts of a debug set."""

    @abstractmethod
    def write(self, classes: Sequence[str], cache: Path) -> list[Prompt]:
        """At least one prompt a class, class by class; the images of a class are shared out evenly over its prompts.

        `cache` is a folder in which answers of a language model are kept; nothing else is written.
        """

    def fingerprint(self) -> dict[str, Any]:
        """What influences the prompts besides the arguments, files by content."""
        return {}


def class_noun(name: str) -> str:
    """The name as a person would write it: "/a/art_studio" → "art studio", "museum/indoor" → "indoor museum"."""
    parts = [part for part in name.strip("/").split("/") if part]
    if len(parts) > 1 and len(parts[0]) == 1:  # Places365 puts the first letter before the name
        parts = parts[1:]
    return " ".join([*parts[1:], parts[0]]).replace("_", " ").lower() if parts else name


def class_phrase(name: str) -> str:
    """The class's name with its article: "a bird", "an art studio"; mass nouns take none."""
    return with_article(class_noun(name))
