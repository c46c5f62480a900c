"""`Templates`: the same sentences for every class."""

from collections.abc import Sequence
from pathlib import Path

from aaca.debugset.prompts.base import SLOT, Prompt, PromptWriter
from aaca.runtime.errors import ConfigError


class Templates(PromptWriter):
    """Asks for the class in each of these sentences; the class goes where `{class}` stands."""

    def __init__(self, templates: list[str]) -> None:
        if not templates:
            raise ConfigError(f"prompts.templates: none given; expected at least one, such as 'a photo of {SLOT}'")
        for index, template in enumerate(templates):
            check_slots(template, f"prompts.templates[{index}]", SLOT)
        self.templates = templates

    def write(self, classes: Sequence[str], cache: Path) -> list[Prompt]:
        """Every template for every class."""
        return [Prompt(label, template) for label in range(len(classes)) for template in self.templates]


def check_slots(template: str, key: str, *slots: str) -> None:
    """Raise `ConfigError` naming `key` unless `template` holds each of `slots` once and no other brace."""
    rest = template
    for slot in slots:
        if template.count(slot) != 1:
            raise ConfigError(f"{key}: {template!r} holds {slot} {template.count(slot)} times; expected once")
        rest = rest.replace(slot, "")
    if "{" in rest or "}" in rest:
        raise ConfigError(f"{key}: {template!r} has other braces; expected no slot but {', '.join(slots)}")
