"""What answers add up to: verdicts, agreement, wrong labels; people against statistics."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from aaca.annotate.aggregate import VoteRules, aggregate
from aaca.annotate.agreement import krippendorff_alpha
from aaca.annotate.task import Answer
from aaca.concepts.concept_sets import normal
from aaca.runtime.errors import ConfigError

CLASSES = ("bird", "mammal")


def said(
    content, relevance=1.0, valid=(), person="ann", image=0, class_="bird", rival="mammal", flag="", kind="object"
):
    return Answer(f"failure/{image}", person, class_, rival, str(image), kind, content, relevance, tuple(valid), flag)


def evidence(*rows):
    columns = ["class", "rival", "concept", "kind", "confounder", "relied_on", "S_conf", "S_rely", "S_val"]
    return pd.DataFrame(rows, columns=columns)


SAND = ("bird", "*", "sand", "background", False, True, 0.0, 2.0, 0.5)
GRASS = ("bird", "mammal", "grass", "background", True, False, 1.0, 0.0, -0.1)
SNOW = ("bird", "mammal", "snow", "background", False, False, 0.0, 0.0, 0.2)


def verdict(answers, *rows, **rules):
    table = aggregate(answers, evidence(*rows), VoteRules(**rules), CLASSES).table
    return dict(zip(zip(table["class"], table["concept"], strict=True), table["verdict"], strict=True))


def three(content, relevance=1.0, **more):
    return [said(content, relevance, image=image, person=person, **more) for image, person in enumerate("abc")]


def test_low_relevance_and_evidence_make_a_confounder():
    assert verdict(three("sand"), SAND) == {("bird", "sand"): "confounded"}
    assert verdict(three("snow"), SNOW) == {("bird", "snow"): "neutral"}  # nothing says that it misleads
    assert verdict(three("snow"), SNOW, evidence=False) == {("bird", "snow"): "confounded"}
    assert verdict(three("sand")[:2], SAND) == {("bird", "sand"): "neutral"}  # too few votes


def test_as_many_people_are_asked_for_as_there_are():
    lonely = [said("sand", image=image) for image in range(3)]
    assert verdict(lonely, SAND) == {("bird", "sand"): "confounded"}  # nobody else answered anything
    crowd = [*lonely, said("tail", 5.0, person="ben", image=4)]
    assert verdict(crowd, SAND)["bird", "sand"] == "neutral"  # one of two people


def test_high_relevance_or_being_named_makes_it_valid():
    assert verdict(three("wing", 4.0)) == {("bird", "wing"): "valid"}
    assert verdict(three("wing", 3.0)) == {("bird", "wing"): "neutral"}
    named = [said("snow", 1.0, valid=["beak", "a Beak"], person=person) for person in "ab"]
    assert verdict(named)["bird", "beak"] == "valid"
    assert verdict(named[:1])["bird", "beak"] == "neutral"


def test_confounded_and_valid_is_for_a_person_to_say():
    answers = [*three("sand", valid=["sand"])]
    assert verdict(answers, SAND) == {("bird", "sand"): "contested"}


def test_rival_and_score_come_from_the_strongest_evidence():
    answers = [*three("grass"), *three("sand")]
    found = aggregate(answers, evidence(SAND, GRASS), VoteRules(), CLASSES).classes["bird"].confounded
    assert [(entry.name, entry.rival, entry.score, entry.kind) for entry in found] == [
        ("sand", "", 2.0, "background"),
        ("grass", "mammal", 1.0, "background"),
    ]
    assert found[0].votes == 3 and found[0].relevance == 1.0


def test_spellings_are_one_concept():
    answers = [said("Sand", image=0), said("the  sand", image=1), said("sand", image=2)]
    assert normal("The  Sand ") == "sand" and normal("a") == "a"
    found = aggregate(answers, evidence(SAND), VoteRules(), CLASSES)
    assert list(found.table["concept"]) == ["sand"] and found.table["votes"].iloc[0] == 3


def test_images_whose_label_most_call_wrong_are_left_out_and_listed():
    answers = [*three("sand"), *(said("fur", 1.0, image=9, person=p, flag="label wrong") for p in "ab")]
    answers.append(said("fur", 1.0, image=9, person="c"))
    answers += [
        said("fur", image=8, person="a", flag="label wrong"),
        said("fur", image=8, person="b"),
    ]  # half is not most
    found = aggregate(answers, evidence(SAND), VoteRules(), CLASSES)
    assert found.mislabelled == ["9"] and found.counts["usable"] == 5
    assert "9" not in found.difficulty and found.difficulty["0"] == pytest.approx(0.2)


def test_one_person_s_many_tasks_about_an_image_are_one_voice():
    flagged = said("sand", image=9, person="a", flag="label wrong")
    about = [replace(said("sand", image=9, person="a"), task_id=f"suspect/{name}/9") for name in ("sand", "ball")]
    found = aggregate([*three("sand"), flagged, *about], evidence(SAND), VoteRules(), CLASSES)
    assert found.mislabelled == ["9"]
    only = aggregate(about, evidence(SAND), VoteRules(), CLASSES)
    assert (
        only.difficulty == {} and only.counts["usable"] == 2
    )  # what is asked because it is suspected says nothing of it


def test_who_cannot_tell_has_no_vote():
    answers = three("sand", flag="cannot tell")
    found = aggregate(answers, evidence(SAND), VoteRules(), CLASSES)
    assert found.table.empty and np.isnan(found.alpha)


def brute_alpha(values):
    units = [column[~np.isnan(column)] for column in values.T]
    units = [unit for unit in units if len(unit) >= 2]
    everything = np.concatenate(units)
    n = len(everything)
    observed = sum(
        (a - b) ** 2 / (len(u) - 1) for u in units for i, a in enumerate(u) for j, b in enumerate(u) if i != j
    )
    expected = sum((a - b) ** 2 for i, a in enumerate(everything) for j, b in enumerate(everything) if i != j)
    return 1 - (n - 1) * observed / expected


def test_alpha_is_the_sum_over_pairs():
    rng = np.random.default_rng(0)
    values = rng.integers(1, 6, (4, 30)).astype(float)
    values[rng.random(values.shape) < 0.3] = np.nan
    assert krippendorff_alpha(values) == pytest.approx(brute_alpha(values))


def test_alpha_of_the_published_example():
    # Krippendorff (2011), section D, interval data: alpha = 0.849
    nan = np.nan
    values = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, nan, nan, nan],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, nan, 3],
        [nan, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, nan],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, nan],
    ]
    assert krippendorff_alpha(np.array(values)) == pytest.approx(0.849, abs=5e-4)


def test_alpha_at_its_ends():
    assert krippendorff_alpha(np.array([[1.0, 5, 3], [1, 5, 3]])) == 1
    assert krippendorff_alpha(np.array([[2.0, 2], [2, 2]])) == 1
    assert np.isnan(krippendorff_alpha(np.array([[1.0, np.nan], [np.nan, 2]])))


@pytest.mark.parametrize(
    ("rules", "message"),
    [({"votes": 0}, "votes.votes: 0"), ({"confounded": 4.0}, "confounded < valid"), ({"valid": 9.0}, "valid ≤ 5")],
)
def test_limits_that_make_no_sense(rules, message):
    with pytest.raises(ConfigError, match=message):
        VoteRules(**rules)
