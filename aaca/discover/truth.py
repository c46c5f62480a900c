"""How well concept sets name a planted data bug: the yardstick of all discoveries on benchmarks that have one."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from aaca.concepts.concept_sets import Concept, ConceptSets, normal

COLUMNS = {
    "class": "the class that the planted bug ties to a concept",
    "planted": "that concept",
    "rank": "its place among the concepts blamed for the class, the best score first; empty where it is not blamed",
    "blamed": "how many concepts are blamed for the class",
}
"""The columns of the table, in words."""


def recovery(sets: ConceptSets, confounders: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row a planted bug, with the columns of `COLUMNS`.

    A concept is blamed for a class where the model knows the class by it (a confounder of the class without a rival),
    or where it makes the model say the class (a confounder of another class with this rival). A confounder that makes
    the model say whichever class (`*`) is blamed for none in particular, and does not count.
    """
    rows = []
    for planted in confounders:
        name, value = str(planted["class"]), normal(str(planted["value"]))
        best: dict[str, float] = {}
        for concept in blamed(sets, name):
            key = normal(concept.name)
            best[key] = max(best.get(key, float("-inf")), concept.score or 0.0)
        ranked = sorted(best, key=lambda key: (-best[key], key))
        rank = ranked.index(value) + 1 if value in ranked else None
        rows.append({"class": name, "planted": str(planted["value"]), "rank": rank, "blamed": len(ranked)})
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"rank": "Int64", "blamed": "Int64"})


def blamed(sets: ConceptSets, name: str) -> list[Concept]:
    """The concepts that are blamed for predictions of a class."""
    own = [concept for concept in sets.of(name).confounded if not concept.rival]
    return [*own, *(entry for other in sets.classes.values() for entry in other.confounded if entry.rival == name)]
