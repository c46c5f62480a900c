"""Several graphs of one scene, each with its things in the order in which its caption names them."""

import numpy as np

from aaca.world.phrases import CONVERSE, ON, Relation, Said, Thing, Told
from aaca.world.render import Box
from aaca.world.stamp_graphs import SeenScene, grammar

TRIES = 200
LINKED = 0.85  # how often two things that are both named are related, not just listed


def sub_graph(
    scene: SeenScene, order: tuple[int, ...], levels: tuple[int, int], on: tuple[bool, bool], linked: bool
) -> Told:
    """A part of what is seen: the things in `order`, as many attributes as `levels`, `on` the ground or not, by thing.

    `linked`: the second thing of the order is related to the first, otherwise both are only there.
    """
    things: list[Thing] = []
    boxes: list[Box] = []
    relations: list[Relation] = []

    def place(thing: Thing, box: Box) -> int:
        things.append(thing)
        boxes.append(box)
        return len(things) - 1

    head = ground = -1
    for step, index in enumerate(order):
        seen = scene.things[index]
        placed = place(seen.at(levels[index]), seen.box)
        if step and linked:
            relations.append((head, scene.pairing if index == 1 else CONVERSE[scene.pairing], placed))
        if on[index]:
            ground = ground if ground >= 0 else place(scene.ground.at(0), scene.ground.box)
            relations.append((placed, ON, ground))
        head = placed
    return Told(Said(tuple(things), tuple(relations)), tuple(boxes))


def draw_regions(scene: SeenScene, rng: np.random.Generator, count: int) -> list[Told]:
    """Up to `count` graphs whose captions differ: each thing on the ground, both things, all, then whatever comes."""
    first = int(rng.integers(2))
    pair = (first, 1 - first)
    plans = [((first,), True), (pair, False), ((1 - first,), True), (pair, True)]
    said: dict[str, Told] = {}
    for attempt in range(TRIES):
        if len(said) == count:
            break
        order, everywhere = plans[attempt] if attempt < len(plans) else _draw_order(rng)
        levels = tuple(rng.choice(3, 2, p=(0.25, 0.25, 0.5)).tolist())
        grounded = tuple((rng.random(2) < 0.5).tolist()) if attempt >= len(plans) else (everywhere, everywhere)
        linked = attempt < len(plans) or rng.random() < LINKED
        told = sub_graph(scene, order, (levels[0], levels[1]), (grounded[0], grounded[1]), linked)
        said.setdefault(grammar().say(told.said), told)
    return list(said.values())


def _draw_order(rng: np.random.Generator) -> tuple[tuple[int, ...], bool]:
    first = int(rng.integers(2))
    return ((first,) if rng.random() < 0.3 else (first, 1 - first)), False
