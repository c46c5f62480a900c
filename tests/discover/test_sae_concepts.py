"""`discovery=sae`: a planted concept of failures, its score and its test by hand, and silence where chance alone is."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array
from scipy.stats import false_discovery_control, mannwhitneyu, rankdata

from aaca.data.table import ImageTable
from aaca.discover.rivals.base import Findings, NamedCodes, as_sets
from aaca.discover.rivals.sae import SaeConcepts, by_name, significant, stronger
from aaca.runtime.errors import ConfigError

CLASSES = ("bird", "mammal")
NAMES = ["sand", "grass", "sand", "ball", "glimmer", "bird", "mammal"]  # two latents of one name, one unknown word


def findings(codes, labels, predictions, train, train_labels, names=NAMES, classes=CLASSES) -> Findings:
    frame = pd.DataFrame(
        {"id": [str(row) for row in range(len(labels))], "label": labels, "path": "none.npy", "row": range(len(labels))}
    )
    return Findings(
        classes=classes,
        nouns=classes,
        audit=ImageTable.build(frame, classes),
        probabilities=np.eye(len(classes))[predictions] * 0.8 + 0.1,
        train_labels=train_labels,
        look=None,
        in_train=None,
        seed=3,
        named=NamedCodes(list(names), *(csr_array(part.astype(np.float32)) for part in (codes, train))),
    )


def codes_of(rng, density, rows):
    return np.where(rng.random((rows, len(density))) < density, rng.exponential(size=(rows, len(density))), 0)


def world(failures: int = 20) -> Findings:
    """Mammals called birds are on sand (one latent of it or the other), on grass, shine, and look like birds."""
    rng = np.random.default_rng(0)
    labels, wrong = np.repeat([0, 1], [80, 100]), np.arange(180) >= 180 - failures
    codes = codes_of(rng, [0.1, 0.2, 0.1, 0.3, 0.1, 0.1, 0.1], 180)
    count = np.arange(failures)
    codes[wrong, np.where(count % 2, 0, 2)] = 1 + rng.random(failures)
    codes[wrong, 1] = 1 + rng.random(failures)
    codes[wrong, 4] += count % 4 > 0
    codes[wrong, 5] = 1 + rng.random(failures)
    train_labels = np.repeat([0, 1], 200)
    train = codes_of(rng, [0.1, 0.2, 0.1, 0.3, 0.1, 0.0, 0.0], 400)
    train[:200, [0, 4, 5]] += 1.0  # at home in birds
    train[200:, [1, 6]] += 1.0  # in mammals
    return findings(codes, labels, np.where(wrong, 0, labels), train, train_labels)


def delta(high, low) -> float:
    """Cliff's δ, pair by pair."""
    return sum(int(a > b) - int(a < b) for a in high for b in low) / (len(high) * len(low))


def test_the_planted_concept_is_found_with_its_rival_its_kind_and_its_score():
    given = world()
    found = {suspect.concept: suspect for suspect in SaeConcepts().suspects(given)}
    assert {(suspect.class_, suspect.rival) for suspect in found.values()} == {("mammal", "bird")}
    assert set(found) == {"sand", "glimmer", "bird"}  # grass is as strong in failures, but at home in mammals
    assert {name: suspect.kind for name, suspect in found.items()} == {
        "sand": "background", "glimmer": "object", "bird": "object",
    }  # fmt: skip
    codes = given.named.audit.toarray()
    failed, right = given.predictions != given.labels, (given.labels == 1) & (given.predictions == 1)
    for name, columns in {"sand": [0, 2], "glimmer": [4], "bird": [5]}.items():
        strength = codes[:, columns].sum(axis=1)
        assert found[name].score == pytest.approx(delta(strength[failed], strength[right]), abs=1e-12)
    alone = [delta(codes[failed, column], codes[right, column]) for column in (0, 2)]
    assert max(alone) + 0.2 < found["sand"].score  # neither latent of that name says it all


def test_latents_that_share_a_name_are_summed():
    codes = np.random.default_rng(0).exponential(size=(9, len(NAMES))).astype(np.float32)
    names = sorted(set(NAMES))
    found = by_name(csr_array(codes), NAMES, names)
    assert isinstance(found, csr_array)
    for column, name in enumerate(names):
        own = [codes[:, at] for at, said in enumerate(NAMES) if said == name]
        np.testing.assert_allclose(found.toarray()[:, column], sum(own), rtol=1e-6)


def test_latents_without_a_name_are_never_blamed():
    given = world()
    names = ["" if name == "glimmer" else name for name in NAMES]
    named = NamedCodes(names, given.named.audit, given.named.train)
    found = {suspect.concept for suspect in SaeConcepts().suspects(Findings(**{**vars(given), "named": named}))}
    assert found == {"sand", "bird"}


def test_the_name_of_a_class_is_tested_but_never_blamed():
    suspects = SaeConcepts().suspects(world())
    assert max(suspects, key=lambda suspect: suspect.score).concept == "bird"
    sets = as_sets(suspects, CLASSES, CLASSES, 5, {})
    assert sets.names("confounded") == {("mammal", "sand"), ("mammal", "glimmer")}
    assert [concept.rival for concept in sets.of("mammal").confounded] == ["bird", "bird"]


def test_classes_with_too_few_failures_are_silent():
    assert SaeConcepts(least=12).suspects(world(failures=12))
    assert not SaeConcepts(least=13).suspects(world(failures=12))
    assert not SaeConcepts().suspects(world(failures=100))  # no mammal is right: there is nothing to compare with


def test_a_smaller_effect_than_asked_for_is_not_said():
    suspects = {suspect.concept: suspect.score for suspect in SaeConcepts(effect=0.0).suspects(world())}
    middle = sorted(suspects.values())[1]
    kept = SaeConcepts(effect=middle).suspects(world())
    assert {suspect.concept for suspect in kept} == {name for name, score in suspects.items() if score >= middle}
    assert len(kept) == 2 < len(suspects)


@pytest.mark.parametrize("density", [0.01, 0.03, 0.3, 1.0])
@pytest.mark.parametrize("failures", [10, 30])
def test_failures_by_chance_blame_a_concept_no_more_often_than_q(failures, density):
    """All 60 concepts are alike in failures and successes: each discovery is false, in at most q of the seeds."""
    said = 0
    for seed in range(30):
        rng = np.random.default_rng([seed, failures])
        codes, train = codes_of(rng, [density] * 60, 120), codes_of(rng, [density] * 60, 100)
        labels = np.zeros(120, dtype=int)
        predictions = rng.permutation(np.repeat([1, 0], [failures, 120 - failures]))
        names = [f"w{column}" for column in range(60)]
        given = findings(codes, labels, predictions, train, np.arange(100) % 2, names)
        said += bool(SaeConcepts(q=0.1, effect=0.0).suspects(given))
    assert said <= 7  # of 30 at a share of 0.1: more has a probability below 0.01


def test_concepts_that_only_successes_show_are_tested_too():
    codes = np.zeros((120, 30))
    codes[np.arange(3), np.arange(3)] = 1.0  # three concepts that one failure each shows
    codes[np.arange(13, 40), np.arange(3, 30)] = 1.0
    train = np.repeat([[0.0], [1.0]], 30, axis=1)
    wrong, names = np.arange(120) < 10, [f"w{column}" for column in range(30)]
    labels, said = np.zeros(120, dtype=int), wrong.astype(int)
    several, few = (
        findings(codes[:, :kept], labels, said, train[:, :kept], np.arange(2), names[:kept]) for kept in (30, 3)
    )
    assert len(SaeConcepts(effect=0.0).suspects(few)) == 3  # each has p = 10 / 120
    assert not SaeConcepts(effect=0.0).suspects(several)


def test_the_test_keeps_its_level_over_all_ways_to_choose_failures_where_the_rank_test_does_not():
    values = np.array([0.0] * 11 + [0.4, 1.0, 2.0])
    found, ranks = [], []
    for chosen in combinations(range(len(values)), 4):
        own = np.isin(np.arange(len(values)), chosen)
        found.append(stronger(values[own], values[~own])[1])
        ranks.append(mannwhitneyu(values[own], values[~own], alternative="greater").pvalue)
    levels = np.array([0.005, 0.01, 0.02, 0.05, 0.1, 0.2])
    assert all(np.mean(np.array(found) <= level) <= level for level in levels)
    assert not all(np.mean(np.array(ranks) <= level) <= level for level in levels)


def test_strengths_that_most_images_have_are_compared_by_rank():
    rng = np.random.default_rng(2)
    high, low = rng.normal(0.7, 1, 15).clip(0), rng.normal(0.5, 1, 60).clip(0)
    score, p = stronger(high, low)
    ranks, rng = rankdata(np.concatenate([high, low])), np.random.default_rng(0)
    sums = np.array([rng.permutation(ranks)[:15].sum() for _ in range(20_000)])
    truth = np.mean(sums >= ranks[:15].sum() - 1e-9)
    assert score == pytest.approx(delta(high, low), abs=1e-12) and 0.01 < truth < 0.99
    assert p == pytest.approx(truth, abs=0.015)


@pytest.mark.parametrize("q", [0.01, 0.1, 0.5])
def test_significant_is_benjamini_and_hochberg_s_step_up(q):
    rng = np.random.default_rng(0)
    for size in (1, 2, 7, 40, 300):
        for effects in (0.0, 0.3):
            p = np.where(rng.random(size) < effects, rng.random(size) * 1e-3, rng.random(size)).round(4)
            np.testing.assert_array_equal(significant(p, q), false_discovery_control(p) <= q + 1e-15)
            largest = max((rank for rank in range(1, size + 1) if sorted(p)[rank - 1] <= q * rank / size), default=0)
            assert significant(p, q).sum() == largest


def test_a_p_value_above_its_own_limit_is_kept_below_a_larger_one_that_is_within():
    np.testing.assert_array_equal(significant(np.array([0.09, 0.5, 0.04, 0.06]), 0.13), [True, False, True, True])
    assert significant(np.zeros(0), 0.1).shape == (0,)


@pytest.mark.parametrize(("settings", "message"), [
    ({"q": 0.0}, "discovery.q: 0.0; expected between 0 and 1"),
    ({"q": 1.0}, "discovery.q: 1.0; expected between 0 and 1"),
    ({"least": 0}, "discovery.least: 0; expected 1 or more"),
    ({"effect": 1.0}, "discovery.effect: 1.0; expected 0 or more, below 1"),
    ({"effect": -0.1}, "discovery.effect: -0.1; expected 0 or more, below 1"),
    ({"most": 0}, "discovery.most: 0; expected 1 or more concepts a class"),
])  # fmt: skip
def test_impossible_settings_are_one_line(settings, message):
    with pytest.raises(ConfigError) as caught:
        SaeConcepts(**settings)
    assert str(caught.value) == message
