from typing import Any

import numpy as np

from aaca.data.scenegraph.graph import SceneGraph

THINGS = ("man", "Dog", "cup", "tree", "play", "wide field")
WORDS = ("red", "small", "Old", "wooden", "about")
JOINS = ("on", "left of", "engage in", "hold")


def random_region(rng: np.random.Generator, objects: int = 6, related: int = 6, words: int = 3) -> dict[str, Any]:
    """A record with up to that many objects, relationships and attributes an object; ids out of order, extra keys."""
    ids = rng.permutation(50)[: rng.integers(objects + 1)].tolist()
    things = [
        {
            "h": int(rng.integers(1, 20)),
            "object_id": name,
            "name": str(rng.choice(THINGS)),
            "attributes": rng.choice(WORDS, rng.integers(words + 1)).tolist(),
            **{side: int(rng.integers(0, 40)) for side in "xy"},
            "w": int(rng.integers(1, 20)),
            **({"synset": [f"{name}.n", {"depth": 1}]} if rng.random() < 0.5 else {}),
        }
        for name in ids
    ]
    joins = [
        {
            "relationship_id": 100 + k,
            "name": str(rng.choice(JOINS)),
            "subject_id": int(rng.choice(ids)),
            "object_id": int(rng.choice(ids)),
            **({"score": 0.25} if rng.random() < 0.5 else {}),
        }
        for k in range(rng.integers(related + 1) if ids else 0)
    ]
    extra = {"region_id": 7, "nested": {"a": [None]}} if rng.random() < 0.5 else {}
    return {"objects": things, "relationships": joins, "phrase": f"caption {rng.integers(100)}", **extra}


def random_graph(rng: np.random.Generator, objects: int = 6, related: int = 6, words: int = 3) -> SceneGraph:
    return SceneGraph.from_region(random_region(rng, objects, related, words), "made up")


def region(*things: tuple[Any, ...], joins: tuple[tuple[int, int, str], ...] = (), phrase: str = "") -> SceneGraph:
    """Objects (id, name, attributes, box) and relationships (subject, object, name), numbered from 0."""
    return SceneGraph.from_region(
        {
            "objects": [
                {"object_id": own, "name": name, "attributes": list(words), **dict(zip("xywh", box, strict=True))}
                for own, name, words, box in things
            ],
            "relationships": [
                {"relationship_id": k, "subject_id": subject, "object_id": target, "name": name}
                for k, (subject, target, name) in enumerate(joins)
            ],
            "phrase": phrase,
        },
        "made up",
    )


def rider() -> SceneGraph:
    """A man (1) on a horse (2) in a field (3), and a bird (4) apart."""
    return region(
        (1, "man", ("young", "tall"), (10, 5, 10, 20)),
        (2, "Horse", ("brown",), (5, 15, 30, 20)),
        (3, "field", (), (0, 0, 64, 48)),
        (4, "bird", ("small",), (50, 2, 5, 5)),
        joins=((1, 2, "ride"), (2, 3, "stand in")),
        phrase="a young tall man rides a brown horse in a field",
    )
