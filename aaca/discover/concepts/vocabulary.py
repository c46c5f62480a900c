"""`Vocabulary`: the concepts that may be named, their kinds, and how a text asks for each kind."""

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import yaml

from aaca.concepts.concept_sets import LONGEST, ConceptKind
from aaca.discover.concepts.base import Look
from aaca.runtime.errors import ConfigError, nearest
from aaca.world.language import with_article

SHIPPED = Path(__file__).with_name("vocabulary.yaml")
TEXTS: dict[ConceptKind, str] = {
    "object": "a photo of {}",
    "background": "a photo taken on {}",
    "attribute": "a photo of a thing with {}",
    "relation": "a photo of something {}",
}


def vocabulary_file(file: str | None) -> Path:
    """The given file; None: the one that ships."""
    return SHIPPED if file is None else Path(file)


@dataclass(frozen=True)
class Vocabulary:
    """Names and their kinds, in one order."""

    names: tuple[str, ...]
    kinds: tuple[ConceptKind, ...]

    @classmethod
    def load(cls, file: str | None, key: str = "concepts.vocabulary") -> "Vocabulary":
        """A YAML file that maps kinds to lists of names; None: the one that ships, of the embedded world."""
        path = vocabulary_file(file)
        try:
            node = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"{key}: {path} cannot be read ({' '.join(str(error).split())})") from error
        kinds = get_args(ConceptKind)
        if not isinstance(node, dict) or not node:
            raise ConfigError(f"{key}: {path}: expected a mapping of kinds ({', '.join(kinds)}) to lists of names")
        names: list[str] = []
        found: list[ConceptKind] = []
        for kind, entries in node.items():
            if kind not in kinds:
                raise ConfigError(f"{key}: {path}: {kind}: no such kind; {nearest(str(kind), kinds)}")
            for entry in entries or []:
                if not isinstance(entry, str) or not 0 < len(entry.strip()) <= LONGEST or not entry.isprintable():
                    raise ConfigError(f"{key}: {path}: {kind}: {entry!r}; expected a name of 1…{LONGEST} characters")
                if entry in names:
                    raise ConfigError(f"{key}: {path}: {entry!r} is listed twice")
                names.append(entry)
                found.append(kind)
        if len(names) < 2:
            raise ConfigError(f"{key}: {path}: {len(names)} names; expected at least 2")
        return cls(tuple(names), tuple(found))

    def vectors(self, look: Look) -> np.ndarray:
        """Unit vectors `[V, D]` of the names, each in the sentence of its kind."""
        texts = [TEXTS[kind].format(with_article(name)) for name, kind in zip(self.names, self.kinds, strict=True)]
        return look.texts(texts)
