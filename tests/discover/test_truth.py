"""The yardstick of discoveries: where a planted concept stands among what is blamed for its class."""

import pandas as pd

from aaca.concepts.concept_sets import ClassConcepts, Concept, ConceptSets
from aaca.discover.truth import recovery

PLANTED = [
    {"class": "bird", "kind": "scene", "value": "sand", "p": 0.9},
    {"class": "mammal", "kind": "scene", "value": "grass", "p": 0.9},
]


def test_a_concept_is_blamed_for_its_class_from_both_sides():
    sets = ConceptSets(
        {
            "bird": ClassConcepts(confounded=(Concept("ball", score=0.3), Concept("sea", rival="mammal", score=9.0))),
            "mammal": ClassConcepts(
                confounded=(Concept("Sand", rival="bird", score=0.5), Concept("snow", rival="bird", score=0.1))
            ),
        }
    )
    found = recovery(sets, PLANTED).set_index("class")
    assert (found.loc["bird", "rank"], found.loc["bird", "blamed"]) == (1, 3)
    assert pd.isna(found.loc["mammal", "rank"]) and found.loc["mammal", "blamed"] == 1  # the sea, not the grass


def test_nothing_blamed_and_nothing_planted():
    found = recovery(ConceptSets({}), PLANTED)
    assert found["rank"].isna().all() and (found["blamed"] == 0).all()
    assert recovery(ConceptSets({}), []).empty
