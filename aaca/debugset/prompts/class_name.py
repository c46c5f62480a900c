"""`ClassName`: one prompt a class, its name and nothing else."""

from collections.abc import Sequence
from pathlib import Path

from aaca.debugset.prompts.base import SLOT, Prompt, PromptWriter


class ClassName(PromptWriter):
    """Asks for "a photo of" the class."""

    def write(self, classes: Sequence[str], cache: Path) -> list[Prompt]:
        """One prompt a class."""
        return [Prompt(label, f"a photo of {SLOT}") for label in range(len(classes))]
