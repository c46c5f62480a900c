"""The scene graph as a value: objects with attributes and boxes, relationships between them; one region of a JSON file.

ASG2Caption (Chen et al., CVPR 2020) controls a caption by such a graph; a Human ASG of EGA has the same format.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any, Literal

from aaca.runtime.errors import DataError

FARTHEST = 2**30
"""Pixels: no coordinate of a box lies beyond, so that sums of two still fit the 32 bits of the feature files."""

OBJECT_FIELDS = ("object_id", "name", "attributes", "x", "y", "w", "h")
RELATIONSHIP_FIELDS = ("relationship_id", "subject_id", "object_id", "name")
REGION_FIELDS = ("objects", "relationships", "phrase")

ProblemKind = Literal[
    "duplicate_id",
    "unknown_object",
    "self_relationship",
    "box_outside",
    "empty_box",
    "empty_name",
    "no_object",
    "whole_image",
    "junk_attribute",
    "disconnected",
]
NOTED: frozenset[ProblemKind] = frozenset({"whole_image", "junk_attribute", "disconnected"})
"""Noise that is normal in parsed captions; every other kind of problem is serious."""


@dataclass(frozen=True)
class Counts:
    """How many objects, attributes and relationships."""

    objects: int = 0
    attributes: int = 0
    relationships: int = 0

    @property
    def total(self) -> int:
        """All nodes."""
        return self.objects + self.attributes + self.relationships


@dataclass(frozen=True)
class Problem:
    """Something odd about a graph; `serious` unless it is the usual noise of parsed captions (`NOTED`)."""

    kind: ProblemKind
    text: str
    serious: bool

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class GraphObject:
    """An object; `box` is x, y, w, h in pixels as in the JSON; `extra` holds the record's other fields."""

    id: int
    name: str
    attributes: tuple[str, ...]
    box: tuple[int, int, int, int]
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Relationship:
    """`subject` and `object` are ids of objects; `extra` holds the record's other fields."""

    id: int
    subject: int
    object: int
    name: str
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class SceneGraph:
    """A region's graph and the caption it came from ("" where it is not known). Lists keep the order of the file."""

    objects: tuple[GraphObject, ...]
    relationships: tuple[Relationship, ...]
    phrase: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @classmethod
    def from_region(cls, record: Mapping[str, Any], where: str) -> "SceneGraph":
        """The graph of a region's record; `where` names file and region in errors.

        A missing phrase, list of attributes or of relationships reads as empty. Raises `DataError` naming the field
        that is missing or of the wrong type; a graph that is merely odd is read, see `problems`.
        """
        record = _is(record, Mapping, "a record of named fields", where)
        listed = _is(record.get("objects"), list, "a list", f"{where}: objects")
        related = _is(record.get("relationships", []), list, "a list", f"{where}: relationships")
        return cls(
            tuple(_object(entry, f"{where}: objects[{k}]") for k, entry in enumerate(listed)),
            tuple(_relationship(entry, f"{where}: relationships[{k}]") for k, entry in enumerate(related)),
            _is(record.get("phrase", ""), str, "text", f"{where}: phrase"),
            _others(record, REGION_FIELDS),
        )

    def to_region(self) -> dict[str, Any]:
        """The record `from_region` reads back as this graph, all of the format's fields written."""
        objects = [
            {
                "object_id": thing.id,
                "name": thing.name,
                "attributes": list(thing.attributes),
                **dict(zip("xywh", thing.box, strict=True)),
                **thing.extra,
            }
            for thing in self.objects
        ]
        relationships = [
            {"relationship_id": it.id, "subject_id": it.subject, "object_id": it.object, "name": it.name, **it.extra}
            for it in self.relationships
        ]
        return {"objects": objects, "relationships": relationships, "phrase": self.phrase, **self.extra}

    def counts(self) -> Counts:
        """Objects, attributes and relationships of the graph."""
        attributes = sum(len(thing.attributes) for thing in self.objects)
        return Counts(len(self.objects), attributes, len(self.relationships))

    def components(self) -> tuple[frozenset[int], ...]:
        """Ids of the objects that relationships hold together, in order of their first object."""
        beside: dict[int, set[int]] = {thing.id: set() for thing in self.objects}
        for it in self.relationships:
            if it.subject in beside and it.object in beside:
                beside[it.subject].add(it.object)
                beside[it.object].add(it.subject)
        found: list[frozenset[int]] = []
        left = dict.fromkeys(beside)
        while left:
            reached, edge = set(), [next(iter(left))]
            while edge:
                here = edge.pop()
                if here not in reached:
                    reached.add(here)
                    edge.extend(beside[here])
            found.append(frozenset(reached))
            left = {name: None for name in left if name not in reached}
        return tuple(found)

    def problems(self, size: tuple[int, int] | None = None) -> list[Problem]:
        """All that is odd, in words; boxes are held against the image where its `size` (width, height) is known."""
        found = [*_identity(self), *_names(self), *_boxes(self, size)]
        parts = len(self.components())
        if not self.objects:
            found.append(("no_object", "the graph has no object"))
        if parts > 1:
            found.append(("disconnected", f"the graph falls into {parts} parts that no relationship joins"))
        return [Problem(kind, text, kind not in NOTED) for kind, text in found]


def _identity(graph: SceneGraph) -> Iterator[tuple[ProblemKind, str]]:
    known = Counter(thing.id for thing in graph.objects)
    for word, ids in (("object", known), ("relationship", Counter(it.id for it in graph.relationships))):
        for name, times in ids.items():
            if times > 1:
                yield "duplicate_id", f"{word} id {name} occurs {times} times"
    for it in graph.relationships:
        for role, end in (("subject", it.subject), ("object", it.object)):
            if end not in known:
                yield "unknown_object", f"relationship {it.id} ({it.name!r}): its {role} {end} is no object"
        if it.subject == it.object:
            yield "self_relationship", f"relationship {it.id} ({it.name!r}) joins object {it.subject} to itself"


def _names(graph: SceneGraph) -> Iterator[tuple[ProblemKind, str]]:
    for thing in graph.objects:
        own = thing.name.strip().lower()
        if not own:
            yield "empty_name", f"object {thing.id} has no name"
        for k, attribute in enumerate(thing.attributes):
            if not attribute.strip():
                yield "empty_name", f"object {thing.id} ({thing.name!r}): attribute {k} is empty"
            elif attribute.strip().lower() == own:
                yield "junk_attribute", f"object {thing.id}: attribute {k} is its own name {thing.name!r}"
    for it in graph.relationships:
        if not it.name.strip():
            yield "empty_name", f"relationship {it.id} has no name"


def _boxes(graph: SceneGraph, size: tuple[int, int] | None) -> Iterator[tuple[ProblemKind, str]]:
    for thing in graph.objects:
        x, y, w, h = thing.box
        title = f"object {thing.id} ({thing.name!r}): box x={x} y={y} w={w} h={h}"
        if w < 1 or h < 1:
            yield "empty_box", f"{title} holds no pixel"
        if size is None:
            continue
        if thing.box == (0, 0, *size):
            yield "whole_image", f"{title} is the whole image: the object was not located"
        elif x < 0 or y < 0 or x + w > size[0] or y + h > size[1]:
            yield "box_outside", f"{title} reaches outside the image of {size[0]}×{size[1]}"


def _object(entry: Any, where: str) -> GraphObject:
    entry = _is(entry, Mapping, "a record of named fields", where)
    attributes = _is(entry.get("attributes", []), list, "a list", f"{where}.attributes")
    x, y, w, h = (_whole(entry, side, where, FARTHEST) for side in "xywh")
    words = tuple(_is(word, str, "text", f"{where}.attributes[{k}]") for k, word in enumerate(attributes))
    return GraphObject(
        _whole(entry, "object_id", where), _name(entry, where), words, (x, y, w, h), _others(entry, OBJECT_FIELDS)
    )


def _relationship(entry: Any, where: str) -> Relationship:
    entry = _is(entry, Mapping, "a record of named fields", where)
    own, subject, thing = (_whole(entry, key, where) for key in RELATIONSHIP_FIELDS[:3])
    return Relationship(own, subject, thing, _name(entry, where), _others(entry, RELATIONSHIP_FIELDS))


def _others(record: Mapping[str, Any], fields: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in fields}


def _name(record: Mapping[str, Any], where: str) -> str:
    return str(_is(record.get("name"), str, "text", f"{where}.name"))


def _whole(record: Mapping[str, Any], key: str, where: str, most: float = inf) -> int:
    value = _is(record.get(key), int | float, "a whole number", f"{where}.{key}")
    if isinstance(value, bool) or value % 1 != 0 or abs(value) > most:
        raise DataError(f"{where}.{key}: {value!r}; expected a whole number" + f" within {most}" * (most < inf))
    return int(value)


def _is(value: Any, kind: Any, expected: str, where: str) -> Any:
    """The value, if it is of this kind; a field that is missing is None here."""
    if not isinstance(value, kind):
        raise DataError(f"{where}: {'missing' if value is None else repr(value)[:60]}; expected {expected}")
    return value
