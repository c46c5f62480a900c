"""The same images before and after: every number by hand."""

import numpy as np
import pytest

from aaca.concepts.concept_sets import ClassConcepts, Concept, ConceptSets
from aaca.discover.reanalysis import COLUMNS, Looks, reanalyse

SETS = ConceptSets(
    {
        "cat": ClassConcepts(confounded=(Concept("hay"), Concept("moon")), valid=(Concept("ear"), Concept("purr"))),
        "dog": ClassConcepts(valid=(Concept("ear"),)),
    },
    {"annotator": "me"},
)


def test_what_was_repaired_and_where_the_model_looks_now():
    labels = np.array([0, 0, 0, 0, 1])
    names = ["ear", "hay", "moon"]
    present = np.array([[1, 1, 0], [1, 1, 0], [0, 1, 0], [1, 0, 0], [1, 1, 0]], dtype=bool)
    before = Looks(
        np.array([1, 1, 0, 0, 1]), np.array([[0.1, 0.9, 0], [0.2, 0.8, 0], [0, 0.7, 0], [0.5, 0, 0], [0.3, 0.3, 0]])
    )
    after = Looks(
        np.array([0, 1, 1, 0, 1]), np.array([[0.6, 0.2, 0], [0.4, 0.3, 0], [0, 0.1, 0], [0.5, 0, 0], [0.9, 0.1, 0]])
    )
    table = reanalyse(("cat", "dog"), labels, names, present, SETS, before, after)
    assert list(table.columns) == list(COLUMNS)
    # no image of a cat shows the moon, and no source sees a purr
    assert list(zip(table["class"], table["concept"], strict=True)) == [("cat", "hay"), ("cat", "ear"), ("dog", "ear")]
    hay = table.iloc[0]
    assert (hay["images"], hay["repaired"], hay["newly_broken"], hay["verdict"]) == (3, 1, 1, "confounded")
    assert (hay["accuracy_before"], hay["accuracy_after"]) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert (hay["share_before"], hay["share_after"]) == (pytest.approx(0.8), pytest.approx(0.2))
    ear = table.iloc[1]
    assert ear["images"] == 3 and ear["accuracy_after"] == pytest.approx(2 / 3)
