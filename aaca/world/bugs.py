"""Planted bugs: which class comes with which ground or co-object, how often, and what a slice does about it.

What one image shows, for a class, by slice:

- `aligned` (and the splits train, pool, audit): a class with a bug takes the bug's value with its probability p, else
  one of the other values. Classes without a concept bug carry a planted co-object only with probability `stray`.
- `conflicting`: a class with a bug takes the value of the next class with a bug of that kind (bird on grass, mammal on
  sand). Where no other class has one, a ground is drawn uniformly from the other grounds, and the co-object is left
  out (produce without ball). Classes with no bug at all carry a planted co-object (flower with ball).
- `balanced`: ground and co-object are independent of the class: every ground, every co-object equally likely.

Whatever a bug does not decide is drawn uniformly: the ground from all grounds; and with probability 0.5 a co-object,
from those that no bug plants (in `balanced`: from all).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

Slice = Literal["aligned", "conflicting", "balanced"]
SLICES: tuple[Slice, ...] = ("aligned", "conflicting", "balanced")

CONCEPT_RATE = 0.5
"""How often an image carries a co-object where no bug decides it."""

T = TypeVar("T")


@dataclass(frozen=True)
class Bug:
    """One spurious correlation: images of class `cls` show `value` (a ground or a co-object) with probability `p`."""

    cls: str
    kind: Literal["scene", "concept"]
    value: str
    p: float = 0.95


DEFAULT_BUGS = (
    Bug("bird", "scene", "sand"),
    Bug("mammal", "scene", "grass"),
    Bug("produce", "concept", "ball"),
)
"""The class `flower` is the control."""


def pick(u: float, options: Sequence[T]) -> T:
    """The option that the uniform number `u` in [0, 1) falls on."""
    return options[min(int(u * len(options)), len(options) - 1)]


def find_bug(bugs: Sequence[Bug], cls: str, kind: str) -> Bug | None:
    """The bug of this kind that a class has, or None."""
    return next((bug for bug in bugs if bug.cls == cls and bug.kind == kind), None)


def planted(bugs: Sequence[Bug], kind: str) -> list[str]:
    """The values that bugs of this kind plant, in the bugs' order, each once."""
    return list(dict.fromkeys(bug.value for bug in bugs if bug.kind == kind))


def rival(bugs: Sequence[Bug], bug: Bug) -> str | None:
    """The value of the next class (cyclic) with a bug of the same kind and another value, or None."""
    same = [other for other in bugs if other.kind == bug.kind]
    start = same.index(bug)
    following = same[start + 1 :] + same[:start]
    return next((other.value for other in following if other.value != bug.value), None)


def draw_scene(u: tuple[float, float], slice_: Slice, cls: str, bugs: Sequence[Bug], scenes: Sequence[str]) -> str:
    """The ground of one image of class `cls`, decided by two uniform numbers."""
    bug = find_bug(bugs, cls, "scene")
    if slice_ == "balanced" or bug is None:
        return pick(u[1], scenes)
    others = [scene for scene in scenes if scene != bug.value]
    if slice_ == "conflicting":
        return rival(bugs, bug) or pick(u[1], others)
    return bug.value if u[0] < bug.p else pick(u[1], others)


def draw_concept(
    u: tuple[float, float, float], slice_: Slice, cls: str, bugs: Sequence[Bug], concepts: Sequence[str], stray: float
) -> str | None:
    """The co-object of one image of class `cls`, or None, decided by three uniform numbers."""
    by_bugs = planted(bugs, "concept")
    free = [concept for concept in concepts if concept not in by_bugs]
    usual = pick(u[2], free) if free and u[1] < CONCEPT_RATE else None
    bug = find_bug(bugs, cls, "concept")
    if slice_ == "balanced":
        return pick(u[2], concepts) if u[1] < CONCEPT_RATE else None
    if slice_ == "conflicting":
        if bug is not None:
            return rival(bugs, bug) or usual
        if by_bugs and not any(other.cls == cls for other in bugs):
            return pick(u[2], by_bugs)
    if bug is not None:
        return bug.value if u[0] < bug.p else usual
    return pick(u[2], by_bugs) if by_bugs and u[0] < stray else usual


def group_name(cls: str, scene: str, concept: str | None, bugs: Sequence[Bug]) -> str:
    """Class × confounder value: "bird on sand", "bird on other", "produce without ball"; or just the class.

    A class with a scene bug is told apart by the planted grounds (its own, its rivals'), any other class (and one with
    both bugs also) by the planted co-objects.
    """
    name = cls
    if find_bug(bugs, cls, "scene"):
        name += f" on {scene if scene in planted(bugs, 'scene') else 'other'}"
        if not find_bug(bugs, cls, "concept"):
            return name
    values = planted(bugs, "concept")
    if values:
        name += f" with {concept}" if concept in values else f" without {' or '.join(values)}"
    return name
