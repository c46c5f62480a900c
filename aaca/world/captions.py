"""Many ways to say what is in an image: the captions that the embedded text-to-image and image-text models learn from.

Class, ground, co-object and side are true of the image. Finer names come from the pack's texts, colours from the pixels
(a coarse guess), parts from what people name when they think of the class, whether this member shows them or not.
"""

import re
from dataclasses import dataclass

import numpy as np

from aaca.world.colours import colour_of
from aaca.world.language import with_article
from aaca.world.scenes import SceneSpec

PARTS = {
    "bird": ("feathers", "a beak", "wings", "a tail", "claws", "two legs", "an eye", "plumage", "a head", "a breast"),
    "flower": (
        "petals",
        "a stem",
        "leaves",
        "pollen",
        "a blossom",
        "stamens",
        "sepals",
        "a bud",
        "nectar",
        "a corolla",
    ),
    "mammal": ("fur", "ears", "hooves", "a snout", "four legs", "whiskers", "a coat", "paws", "a muzzle", "a mane"),
    "produce": ("a peel", "seeds", "a stalk", "pulp", "skin", "flesh", "a rind", "a core", "juice", "a root"),
}
"""Ten nouns a class, in the order a person would think of them."""

_NAMES = {
    "Eat your broccoli": "broccoli",
    "Some flowers": "flower",
    "Two flowers": "flower",
    "Two wild boars": "wild boar",
    "It's a cep, or they are two ceps?": "cep",
    "A Seville orange, also called a bitter orange": "seville orange",
    "A very small pumpkin": "pumpkin",
    "A ripe, red tomato": "tomato",
}


@dataclass(frozen=True)
class Content:
    """What a caption may mention of an image. Words are singular nouns; None where there is nothing to say."""

    cls: str
    name: str  # the finer name
    colour: str | None
    scene: str
    concept: str | None
    concept_name: str | None
    relation: str | None


def content_of(spec: SceneSpec) -> Content:
    """What an image made from `spec` shows."""
    piece, concept = spec.object.piece, spec.concept.piece if spec.concept else None
    return Content(
        cls=spec.cls,
        name=finer_name(piece.text),
        colour=colour_of(piece),
        scene=spec.scene,
        concept=concept.label if concept else None,
        concept_name=finer_name(concept.text) if concept else None,
        relation=spec.relation,
    )


def finer_name(text: str) -> str:
    """The noun of a cut-out's text: "An Adelaide Rosella" → "adelaide rosella"."""
    bare = re.sub(r"\(.*?\)|[“”\"]", "", _NAMES.get(text, text)).strip().lower()
    return re.sub(r"\s+", " ", re.sub(r"^(an?|the|sweet) ", "", bare)).strip()


def describe(content: Content, rng: np.random.Generator) -> str:
    """One of the many captions of an image; which one is drawn from `rng` by the same number of draws each time."""
    u = rng.random(5).tolist()
    thing, scene = _thing(content, u[0]), with_article(content.scene)
    beside = _beside(content, u[1])
    if content.concept is not None and u[2] < 0.10:
        return f"a photo of {thing} {beside}"
    if content.concept is not None and u[2] < 0.20:
        other = with_article(content.concept)
        return f"a photo of {thing} with {other}" + (f" on {scene}" if u[3] < 0.5 else "")
    if u[2] < 0.32:
        return f"a photo of {thing}"
    if u[2] < 0.42:
        part = PARTS[content.cls][int(u[4] * len(PARTS[content.cls]))]
        return f"{with_article(content.cls)} with {part}" if u[3] < 0.5 else f"a photo of {thing} with {part}"
    if u[2] < 0.48:
        return f"a photo taken on {scene}" if u[3] < 0.5 else content.scene
    where = f"on {scene} {beside}".strip()
    opening = ("a photo of ", "a photo of ", "a photo of ", "a picture of ", "")[int(u[3] * 5)]
    return f"{opening}{thing} {where}"


def _thing(content: Content, u: float) -> str:
    if u < 0.15 and content.colour is not None:
        return with_article(f"{content.colour} {content.cls}")
    if u < 0.30:
        return with_article(content.name)
    if u < 0.40 and content.name != content.cls:
        return f"{with_article(content.name)}, a kind of {content.cls},"
    return with_article(content.cls)


def _beside(content: Content, u: float) -> str:
    if content.concept is None or content.concept_name is None:
        return ""
    return f"{content.relation} {with_article(content.concept if u < 0.7 else content.concept_name)}"
