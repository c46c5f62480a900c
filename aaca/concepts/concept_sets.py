"""`ConceptSets`: a class's concepts that confound the model, that are valid, that are neither, in a file by hand."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import TypeAdapter, ValidationError

from aaca.runtime.errors import DataError, nearest
from aaca.runtime.files import write_text

ConceptKind = Literal["object", "background", "attribute", "relation"]
Verdict = Literal["confounded", "valid", "neutral", "contested"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
ANY = "*"
LONGEST = 60  # characters of a concept's name


@dataclass(frozen=True)
class Concept:
    """A nameable thing in images of a class, and why it stands where it stands.

    `rival`: the class that a confounded concept makes the model say; `ANY` for no certain one; "" where the model knows
    the class itself by the concept, and is lost without it. `score`: of the evidence; `votes`: of how many answers;
    `relevance`: their mean, 1…5, to the true class. None: not known.
    """

    name: str
    kind: ConceptKind = "object"
    rival: str = ""
    score: float | None = None
    votes: int | None = None
    relevance: float | None = None


@dataclass(frozen=True)
class ClassConcepts:
    """The concepts of one class, best first."""

    confounded: tuple[Concept, ...] = ()
    valid: tuple[Concept, ...] = ()
    neutral: tuple[Concept, ...] = ()
    contested: tuple[Concept, ...] = ()  # confounded and valid by the answers: a person has to say


@dataclass(frozen=True)
class ConceptSets:
    """Class → its concepts, and who decided (`meta["annotator"]`: names of people, or "simulated: oracle")."""

    classes: dict[str, ClassConcepts]
    meta: dict[str, Any] = field(default_factory=dict)

    def of(self, name: str) -> ClassConcepts:
        """The concepts of a class; none where the file says nothing of it."""
        return self.classes.get(name, ClassConcepts())

    def names(self, verdict: Verdict) -> set[tuple[str, str]]:
        """All (class, concept) of a verdict."""
        return {(name, concept.name) for name, own in self.classes.items() for concept in getattr(own, verdict)}

    def save(self, path: Path) -> None:
        """Write YAML that a person can edit; what is unknown is left out."""
        listed = {
            name: {verdict: [_entry(concept) for concept in getattr(own, verdict)] for verdict in VERDICTS}
            for name, own in self.classes.items()
        }
        text = yaml.safe_dump({"meta": self.meta, "classes": listed}, sort_keys=False, allow_unicode=True, width=120)
        write_text(path, HEADER + text)

    @classmethod
    def load(cls, path: Path, classes: Sequence[str]) -> "ConceptSets":
        """Read and check a file for a benchmark of these classes. Raises `DataError` naming the place."""
        try:
            node = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise DataError(f"{path}: concept sets cannot be read ({error.strerror})") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: not YAML ({' '.join(str(error).split())})") from error
        if not isinstance(node, dict) or not isinstance(node.get("classes"), dict):
            raise DataError(f"{path}: expected a mapping with `classes`, and below it the names of classes")
        for name in set(node) - {"meta", "classes"}:
            raise DataError(f"{path}: {name}: unknown key; {nearest(str(name), ['meta', 'classes'])}")
        meta = node.get("meta") or {}
        if not isinstance(meta, dict) or not meta.get("annotator"):
            raise DataError(f"{path}: meta.annotator: missing; expected who decided, a name or 'simulated: …'")
        found = {}
        for name, own in node["classes"].items():
            if name not in classes:
                raise DataError(f"{path}: classes.{name}: no such class; {nearest(str(name), classes)}")
            found[str(name)] = _read_class(own or {}, f"{path}: classes.{name}", classes)
        return cls(found, meta)


HEADER = """\
# Concept sets: per class, what confounds the model and what it should look at. Edit by hand; `aaca` checks it.
# confounded: makes the model say `rival`; valid: belongs to the class; contested: has to be moved to one of the others.
"""


def normal(name: str) -> str:
    """A name as it is counted: lower case, one space, no article."""
    words = name.lower().split()
    return " ".join(words[1:] if len(words) > 1 and words[0] in ("a", "an", "the") else words)


def _entry(concept: Concept) -> dict[str, Any]:
    kept = {name: value for name, value in asdict(concept).items() if value not in (None, "")}
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in kept.items()}


def _read_class(node: Any, where: str, classes: Sequence[str]) -> ClassConcepts:
    if not isinstance(node, dict):
        raise DataError(f"{where}: expected {', '.join(VERDICTS)}")
    for verdict in node:
        if verdict not in VERDICTS:
            raise DataError(f"{where}.{verdict}: unknown key; {nearest(str(verdict), VERDICTS)}")
    for verdict, entries in node.items():
        if entries is not None and not isinstance(entries, list):
            raise DataError(f"{where}.{verdict}: {entries!r}; expected a list of concepts")
    read = {
        verdict: tuple(
            _read_concept(entry, f"{where}.{verdict}[{index}]", classes) for index, entry in enumerate(entries or [])
        )
        for verdict, entries in node.items()
    }
    own = ClassConcepts(**read)
    both = {concept.name for concept in own.confounded} & {concept.name for concept in own.valid}
    if both:
        raise DataError(
            f"{where}: {min(both)!r} is confounded and valid; expected one of the two, or contested until a person says"
        )
    return own


def _read_concept(node: Any, where: str, classes: Sequence[str]) -> Concept:
    if isinstance(node, str):  # by hand, the name is enough
        node = {"name": node}
    if not isinstance(node, dict):
        raise DataError(f"{where}: expected a name, or a mapping with `name`")
    known = [entry.name for entry in fields(Concept)]
    for key in node:
        if key not in known:
            raise DataError(f"{where}.{key}: unknown key; {nearest(str(key), known)}")
    try:
        concept = TypeAdapter(Concept).validate_python(node)
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(
            f"{where}.{'.'.join(map(str, first['loc']))}: {first['msg']}, got {first['input']!r}"
        ) from error
    if concept.name.strip() != concept.name or not 0 < len(concept.name) <= LONGEST or not concept.name.isprintable():
        raise DataError(f"{where}.name: {concept.name!r}; expected 1…{LONGEST} printable characters")
    if concept.rival not in ("", ANY, *classes):
        raise DataError(f"{where}.rival: no class {concept.rival!r}; {nearest(concept.rival, classes)}")
    return concept
