"""Names that may mean the same: proposed by their texts, counted as one only where a person says so."""

import numpy as np
import pandas as pd
import pytest

from aaca.annotate.aggregate import VoteRules, aggregate
from aaca.annotate.synonyms import names_said, proposals
from aaca.annotate.task import Answer
from aaca.runtime.errors import ConfigError


def answer(number, content, valid=(), relevance=1.0):
    return Answer(
        f"t{number}", f"p{number}", "bird", "mammal", f"i{number}", "background", content, relevance, tuple(valid)
    )


ANSWERS = [answer(1, "sand", ["beak"]), answer(2, "The beach", ["a bill"]), answer(3, "sand")]
EVIDENCE = pd.DataFrame({"class": [], "rival": [], "concept": [], "kind": []})


def test_near_names_are_proposed_the_rarer_as_the_more_frequent():
    said = names_said(ANSWERS)
    assert said == {"sand": 2, "beach": 1, "beak": 1, "bill": 1}
    vectors = np.array([[1, 0], [0.96, 0.28], [0, 1], [0.6, 0.8]])
    table = proposals(said, vectors)
    assert table.values.tolist() == [["beach", "sand", pytest.approx(0.96), 1, 2]]
    assert proposals({}, np.zeros((0, 2))).empty


def test_merged_names_share_their_votes():
    rules = {"votes": 3, "people": 1, "evidence": False}
    apart = aggregate(ANSWERS, EVIDENCE, VoteRules(**rules), ["bird"])
    assert apart.classes["bird"].confounded == ()
    merge = {"Beach": "sand", "bill": "beak"}
    together = aggregate(ANSWERS, EVIDENCE, VoteRules(**rules, merge=merge), ["bird"]).classes["bird"]
    assert [(concept.name, concept.votes) for concept in together.confounded] == [("sand", 3)]
    assert [concept.name for concept in together.valid] == ["beak"]


def test_a_merge_renames_the_evidence_too():
    evidence = pd.DataFrame(
        {"class": ["bird"], "rival": ["*"], "concept": ["sand"], "kind": ["background"], "confounder": [False]}
        | {"relied_on": [True], "S_conf": [0.0], "S_rely": [2.0], "S_val": [0.1]}
    )
    said = [answer(number, "beach") for number in range(3)]
    rules = VoteRules(votes=3, people=1, merge={"sand": "beach"})
    (concept,) = aggregate(said, evidence, rules, ["bird"]).classes["bird"].confounded
    assert (concept.name, concept.kind, concept.score) == ("beach", "background", 2.0)


def test_a_name_that_cannot_be_one_is_refused():
    for other in ("", "x" * 61):
        with pytest.raises(ConfigError, match=r"votes\.merge\.sand"):
            VoteRules(merge={"sand": other})


def test_a_chain_of_merges_is_refused():
    with pytest.raises(ConfigError, match=r"votes\.merge: shore counts as beach, which is merged itself"):
        VoteRules(merge={"shore": "beach", "beach": "sand"})
