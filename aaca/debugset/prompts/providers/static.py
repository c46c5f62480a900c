"""`StaticConcepts`: lists of concepts in a YAML file; no language model."""

import json
from pathlib import Path
from typing import Any

import yaml

from aaca.debugset.prompts.base import class_noun
from aaca.debugset.prompts.providers.base import ConceptProvider
from aaca.debugset.prompts.question import shown
from aaca.runtime.errors import ConfigError, nearest
from aaca.runtime.files import file_sha256

SHIPPED = Path(__file__).parents[1] / "concepts.yaml"
"""Lists for the classes of StampScenes and for twelve scenes of Places365."""

KEY = "prompts.provider.file"


class StaticConcepts(ConceptProvider):
    """Concepts from a YAML mapping of class to list; without `file`, from the lists that come with aaca.

    A class is found by its name as a person would write it: `art_studio`, `/a/art_studio` and `art studio` are one.
    """

    offline = True
    fixed = True

    def __init__(self, file: str | None = None) -> None:
        self.file = SHIPPED if file is None else Path(file).expanduser()
        self._lists = _read(self.file)

    @property
    def name(self) -> str:
        """The file."""
        return str(self.file)

    def ask(self, class_name: str, n: int, complaint: str) -> str:
        """The class's list as JSON. Raises `ConfigError` for a class without one."""
        concepts = self._lists.get(class_noun(class_name))
        if concepts is None:
            raise ConfigError(
                f"{KEY}: {self.file.name} has no list for class {shown(class_name)!r}; "
                f"{nearest(class_noun(class_name), self._lists)}; for other classes write lists of your own: {KEY}="
            )
        return json.dumps(concepts)

    def fingerprint(self) -> dict[str, Any]:
        """The file by content."""
        return {"provider": "static", "lists": file_sha256(self.file)}


def _read(file: Path) -> dict[str, list[str]]:
    try:
        # the base loader takes every word for text: a class may be called 1 or no
        lists = yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except OSError as error:
        raise ConfigError(f"{KEY}: cannot read {file} ({error.strerror}); expected a YAML file") from error
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        problem = " ".join(str(error).split())[:120]
        raise ConfigError(f"{KEY}: {file} is not YAML ({problem}); expected a mapping of class to list") from error
    if not isinstance(lists, dict) or not lists:
        raise ConfigError(f"{KEY}: {file}: expected a mapping of class to list, got {type(lists).__name__}")
    for name, concepts in lists.items():
        if not isinstance(concepts, list) or not all(isinstance(concept, str) for concept in concepts):
            raise ConfigError(f"{KEY}: {file}: {name!r}: expected a list of words, got {str(concepts)[:60]!r}")
    return {class_noun(str(name)): concepts for name, concepts in lists.items()}
