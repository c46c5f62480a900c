"""What an image says in words: its caption and its scene graph.

Caption grammar: `a photo of <class> on <ground> [<left of | right of> <co-object>]`, each thing with its article;
grounds and `produce` are mass nouns and take none: "a photo of a bird on sand left of a car", "a photo of produce on
snow".
"""

import re
from typing import Any

from aaca.world.pack import Piece
from aaca.world.render import Box
from aaca.world.scenes import SceneSpec

MASS_NOUNS = frozenset({"produce", "brick", "grass", "rock", "sand", "snow", "wood"})

_COLOURS = (
    "red",
    "green",
    "yellow",
    "white",
    "black",
    "blue",
    "brown",
    "pink",
    "purple",
    "golden",
    "colorful",
    "albino",
)
_SIZES = ("big", "large", "little", "small", "baby")
_STATES = ("ripe", "sliced", "shelled", "sitting", "sleeping", "male", "female", "two")
_MAKES = ("plastic", "electric", "classical", "adjustable")
ATTRIBUTES = frozenset({*_COLOURS, *_SIZES, *_STATES, *_MAKES})
"""The words of a cut-out's `text` that describe it rather than name it."""

IN_FRONT = 0.02
"""Foot lines nearer than this share of the height count as side by side."""


def with_article(noun: str) -> str:
    """The noun with "a" or "an"; mass nouns stay bare."""
    if noun in MASS_NOUNS:
        return noun
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


def caption(spec: SceneSpec) -> str:
    """The caption of an image."""
    text = f"a photo of {with_article(spec.cls)} on {with_article(spec.scene)}"
    return text if spec.concept is None else f"{text} {spec.relation} {with_article(spec.concept.piece.label)}"


def attributes(piece: Piece) -> list[str]:
    """The describing words in a cut-out's `text`, in their order."""
    return [word for word in re.findall(r"[a-z]+", piece.text.lower()) if word in ATTRIBUTES]


def scene_graph(spec: SceneSpec, boxes: dict[str, Box | None]) -> dict[str, Any]:
    """Things and relations, ready for JSON.

    `objects`: id, label, role (object | scene | concept), text, attributes, box (None for the ground). `relations`:
    [subject id, word, object id] with the words on, left of, right of, in front of.
    """
    placed = {"object": spec.object, "concept": spec.concept}
    things = {role: thing for role, thing in placed.items() if thing is not None}
    objects = [
        {"role": role, "label": thing.piece.label, "text": thing.piece.text, "attributes": attributes(thing.piece)}
        | {"box": boxes[role]}
        for role, thing in things.items()
    ]
    objects.append({"role": "scene", "label": spec.scene, "text": spec.scene, "attributes": [], "box": None})
    ground = len(objects) - 1
    relations: list[list[int | str]] = [[index, "on", ground] for index in range(ground)]
    if spec.concept is not None:
        left, right = (0, 1) if spec.relation == "left of" else (1, 0)
        relations += [[left, "left of", right], [right, "right of", left]]
        if abs(spec.object.foot - spec.concept.foot) > IN_FRONT:
            front, back = (0, 1) if spec.object.foot > spec.concept.foot else (1, 0)
            relations.append([front, "in front of", back])
    return {"objects": [{"id": index, **entry} for index, entry in enumerate(objects)], "relations": relations}
