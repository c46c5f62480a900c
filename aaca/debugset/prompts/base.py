"""`PromptWriter`, the role of the `prompts` config group: what a text-to-image model is asked for."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aaca.concepts.concept_sets import ConceptSets
from aaca.world.language import with_article

SLOT = "{class}"
"""Where a prompt's text names the class. The generator fills it: "a bird", or "a <aaca-bird>" for a learned token."""


@dataclass(frozen=True)
class Prompt:
    """One thing to ask for. `text` holds `SLOT` once; `concept` is what it asks for besides the class ("" for none).

    `weight`: share of the class's images, relative to its other prompts. `recipe`: how it was composed, where by one.
    """

    label: int
    text: str
    negative: str = ""
    concept: str = ""
    weight: float = 1.0
    recipe: str = ""


class PromptWriter(ABC):
    """Writes the prompts of a debug set."""

    needs_concepts: bool = False  # whether concept sets have to be discovered first
    has_recipes: bool = False  # whether prompts say by which recipe they were made

    def using(self, sets: ConceptSets) -> "PromptWriter":
        """The writer for a run that has discovered these concept sets."""
        return self

    @abstractmethod
    def write(self, classes: Sequence[str], cache: Path) -> list[Prompt]:
        """At least one prompt a class, class by class; a class's images are shared out over its prompts by weight.

        `cache` is a folder in which answers of a language model are kept; nothing else is written.
        """

    def check(self, classes: Sequence[str]) -> None:
        """Raise an error where what is given (a file …) does not fit these classes; called before any training."""
        return None

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


UNCOUNTED = frozenset(
    [
        "fur",
        "plumage",
        "pollen",
        "nectar",
        "pulp",
        "skin",
        "flesh",
        "juice",
        "water",
        "hair",
        "food",
        "paper",
        "furniture",
    ]
)
"""Nouns of things without a number, which take no article."""


def thing(name: str) -> str:
    """A concept's name as a prompt says it: "a beak", "feathers", "fur"; one with an article keeps it."""
    first, last = name.split()[0], name.split()[-1]
    plural = last.endswith("s") and not last.endswith(("ss", "us", "is"))
    if first in ("a", "an", "the", "two", "four") or last in UNCOUNTED or plural:
        return name
    return with_article(name)
