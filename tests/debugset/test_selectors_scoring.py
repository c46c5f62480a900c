"""Selectors that judge each candidate on its own, against plain loops and scikit-activeml."""

import logging
import math

import numpy as np
import pytest
from skactiveml.pool import batch_bald, uncertainty_scores
from sklearn.metrics import pairwise_distances

from aaca.debugset.selectors.bald import Bald
from aaca.debugset.selectors.base import top_k
from aaca.debugset.selectors.distance import nearest_squared_distance
from aaca.debugset.selectors.entropy_distance import EntropyDistance
from aaca.debugset.selectors.nearest_failure import NearestFailure
from aaca.debugset.selectors.random import Random
from aaca.debugset.selectors.similarity import Similarity
from aaca.debugset.selectors.uncertainty import Entropy, LeastConfidence, Margin
from aaca.runtime.errors import ConfigError, DataError

SCORING = [
    Random(),
    Similarity(),
    Similarity(reduce="min"),
    Similarity(reduce="kmeans", l2_normalize=True),
    Entropy(),
    Entropy(mc_samples=4),
    Margin(),
    LeastConfidence(),
    Bald(mc_samples=4),
    NearestFailure(),
    EntropyDistance(),
    EntropyDistance(distance="far", weights=[0.2, 0.8]),
]


def softmax(row):
    powers = [math.exp(float(x)) for x in row]
    return [power / sum(powers) for power in powers]


def nats(probabilities):
    return -sum(p * math.log(p) for p in probabilities if p > 0)


def squared(a, b):
    return sum((float(x) - float(y)) ** 2 for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("selector", SCORING, ids=lambda s: f"{type(s).__name__}-{vars(s)}")
@pytest.mark.parametrize("duplicates", [False, True])
def test_pick_is_the_sorted_head_and_does_not_depend_on_row_order(selector, duplicates, make_case):
    case = make_case(seed=1, duplicates=duplicates)
    picked = selector.select(case.candidates, case.context, 25)
    scores = selector.score(case.candidates, case.context)
    ids = case.candidates.ids
    expected = sorted(range(len(ids)), key=lambda i: (-scores[i], ids[i]))[:25]
    assert picked.positions.tolist() == expected
    np.testing.assert_array_equal(picked.scores, scores[expected])
    for seed in range(3):
        other = case.shuffled(seed)
        again = selector.select(other.candidates, other.context, 25)
        assert other.candidates.ids[again.positions].tolist() == ids[expected].tolist()


def test_ties_go_to_the_smaller_id():
    ids = np.array(["c", "a", "d", "b", "e"], dtype=object)
    scores = np.array([1.0, 1.0, 3.0, 1.0, 0.0])
    assert ids[top_k(scores, ids, 3)].tolist() == ["d", "a", "b"]
    assert ids[top_k(scores, ids, 9)].tolist() == ["d", "a", "b", "c", "e"]
    assert top_k(scores, ids, 0).tolist() == []


@pytest.mark.parametrize("seed", range(30))
def test_top_k_equals_a_full_sort(seed):
    rng = np.random.default_rng(seed)
    n, k = int(rng.integers(1, 50)), int(rng.integers(1, 60))
    scores = rng.integers(0, 6, size=n).astype(float)
    ids = np.array([f"i{x}" for x in rng.permutation(n)], dtype=object)
    assert top_k(scores, ids, k).tolist() == sorted(range(n), key=lambda i: (-scores[i], ids[i]))[:k]


def test_a_nan_score_is_refused():
    with pytest.raises(DataError, match="score of b is NaN"):
        top_k(np.array([1.0, np.nan]), np.array(["a", "b"], dtype=object), 1)


def test_random_is_uniform_and_seeded(make_case):
    case = make_case(n=40)
    counts = np.zeros(40)
    for seed in range(2000):
        object.__setattr__(case.context, "seed", seed)
        counts[Random().select(case.candidates, case.context, 10).positions] += 1
    # binomial(2000, 1/4): mean 500, sd 19.4; chi-square of 40 cells stays below its 99.99 % point
    assert abs(counts - 500).max() < 5 * 19.4
    assert ((counts - 500) ** 2 / 375).sum() < 82
    scores = [Random().score(case.candidates, case.context) for _ in range(2)]
    np.testing.assert_array_equal(*scores)


@pytest.mark.parametrize("selector, method", [(Entropy, "entropy"), (LeastConfidence, "least_confident")])
@pytest.mark.parametrize("passes", [1, 4])
def test_uncertainty_equals_scikit_activeml(selector, method, passes, make_case):
    case = make_case()
    rows = case.candidates.passes if passes > 1 else case.candidates.logits[:, None]
    mean = np.array([np.mean([softmax(one) for one in row], axis=0) for row in rows])
    got = selector(mc_samples=passes).score(case.candidates, case.context)
    np.testing.assert_allclose(got, uncertainty_scores(mean, method=method), rtol=1e-10)


def test_margin_equals_scikit_activeml(make_case):
    case = make_case()
    probabilities = np.array([softmax(row) for row in case.candidates.logits])
    reference = uncertainty_scores(probabilities, method="margin_sampling")  # 1 − (p₁ − p₂)
    np.testing.assert_allclose(Margin().score(case.candidates, case.context), reference - 1.0, atol=1e-12)


def test_entropy_of_a_saturated_softmax_is_zero_not_nan(make_case):
    case = make_case(n=4)
    case.candidates.logits_all[:] = np.array([[900.0, -900, 0, 0, 0]], dtype=np.float32)
    case.candidates.logits_all[1] = 7.0
    scores = Entropy().score(case.candidates, case.context)
    np.testing.assert_allclose(scores, [0, math.log(5), 0, 0], atol=1e-12)


def test_bald_equals_the_loop_and_scikit_activeml(make_case):
    case = make_case(n=20)
    got = Bald(mc_samples=4).score(case.candidates, case.context)
    passes = [[softmax(one) for one in row] for row in case.candidates.passes]
    by_hand = [nats(np.mean(row, axis=0)) - np.mean([nats(one) for one in row]) for row in passes]
    np.testing.assert_allclose(got, by_hand, rtol=1e-9, atol=1e-12)
    utilities = batch_bald(np.array(passes).transpose(1, 0, 2), batch_size=1)
    np.testing.assert_allclose(got, utilities[0], atol=1e-5)


def test_missing_or_other_passes_are_named(make_case):
    case = make_case()
    with pytest.raises(DataError, match=r"selector.mc_samples: 3 stochastic passes expected, the candidates hold 4"):
        Bald(mc_samples=3).score(case.candidates, case.context)


@pytest.mark.parametrize("normalize", [False, True])
def test_similarity_is_the_squared_distance_to_the_mean_failure(normalize, make_case):
    case = make_case(seed=2)
    unit = (
        (lambda z: np.array(z, float) / math.sqrt(squared(z, 0 * z))) if normalize else (lambda z: np.array(z, float))
    )
    mean = np.mean([unit(z) for z in case.context.failures.embeddings], axis=0)
    expected = [-squared(unit(z), mean) for z in case.candidates.embeddings]
    got = Similarity(l2_normalize=normalize).score(case.candidates, case.context)
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    nearest = Similarity(l2_normalize=normalize).select(case.candidates, case.context, 5).positions
    assert nearest.tolist() == np.argsort([-x for x in expected])[:5].tolist()


@pytest.mark.parametrize("normalize", [False, True])
def test_nearest_failure_is_the_minimum_over_failures(normalize, make_case):
    case = make_case(seed=3, failures=9)
    got = NearestFailure(l2_normalize=normalize).score(case.candidates, case.context)
    z, e = case.candidates.embeddings, case.context.failures.embeddings
    if normalize:
        z, e = (x / np.linalg.norm(x.astype(float), axis=1, keepdims=True) for x in (z, e))
    reference = pairwise_distances(z.astype(float), e.astype(float)).min(axis=1) ** 2
    np.testing.assert_allclose(-got, reference, rtol=1e-6)
    if not normalize:
        np.testing.assert_array_equal(got, Similarity(reduce="min").score(case.candidates, case.context))


def test_nearest_of_many_centres_in_blocks(make_case, monkeypatch):
    monkeypatch.setattr("aaca.debugset.selectors.distance.CENTRES_AT_ONCE", 4)
    case = make_case(seed=4)
    centres = case.context.audit.embeddings.astype(float)
    expected = [min(squared(z, c) for c in centres) for z in case.candidates.embeddings]
    np.testing.assert_allclose(nearest_squared_distance(case.candidates, centres, False), expected, rtol=1e-12)


def test_a_zero_embedding_survives_normalisation(make_case):
    case = make_case()
    case.candidates.embeddings_all[3] = 0.0
    assert np.isfinite(NearestFailure().score(case.candidates, case.context)).all()


def test_kmeans_finds_error_modes_that_a_mean_misses(make_case):
    case = make_case(seed=5, n=40, failures=12)
    failures, pool = case.context.failures.embeddings_all, case.candidates.embeddings_all
    failures[:6, 0], failures[6:12, 0] = 50.0, -50.0  # two modes; their mean lies where nothing fails
    pool[:5, 0], pool[5:10, 0] = 50.0, -50.0
    picked = Similarity(reduce="kmeans", modes=2).select(case.candidates, case.context, 10)
    assert sorted(picked.positions.tolist()) == list(range(10))
    assert not set(Similarity().select(case.candidates, case.context, 10).positions) & set(range(10))
    modes = [failures[:6].astype(float).mean(axis=0), failures[6:12].astype(float).mean(axis=0)]
    expected = [-min(squared(z, mode) for mode in modes) for z in pool]
    got = Similarity(reduce="kmeans", modes=2).score(case.candidates, case.context)
    np.testing.assert_allclose(got, expected, rtol=1e-9)


def test_fewer_distinct_failures_than_modes_is_said(make_case, caplog):
    case = make_case(failures=2)
    with caplog.at_level(logging.WARNING):
        Similarity(reduce="kmeans", modes=3).score(case.candidates, case.context)
    assert "class 'kitchen' has 2 distinct failures for 3 modes" in caplog.text


@pytest.mark.parametrize("selector", [Similarity(), Similarity(reduce="kmeans", modes=1), EntropyDistance()])
def test_without_failures_the_audit_mean_counts_and_a_warning_says_so(selector, make_case, caplog):
    case, every = make_case(failures=0), make_case(failures=20)
    with caplog.at_level(logging.WARNING):
        got = selector.score(case.candidates, case.context)
    assert "class 'kitchen' has no failures; selecting by the mean of its 20 audit images" in caplog.text
    np.testing.assert_allclose(got, selector.score(every.candidates, every.context), rtol=1e-12)


def test_neither_failures_nor_audit_images(make_case):
    context = make_case(failures=0).context
    object.__setattr__(context, "audit", context.failures)
    with pytest.raises(DataError, match="class 'kitchen' has no audit image"):
        NearestFailure().score(make_case().candidates, context)


@pytest.mark.parametrize("sign", ["near", "far"])
def test_entropy_distance_is_the_weighted_sum_of_normalised_terms(sign, make_case):
    case = make_case(seed=6)
    h = [nats(softmax(row)) for row in case.candidates.logits]
    mean = case.context.failures.embeddings.astype(float).mean(axis=0)
    d = [squared(z, mean) for z in case.candidates.embeddings]
    expected = []
    for a, b in zip(h, d, strict=True):
        far = (b - min(d)) / (max(d) - min(d))
        expected.append(0.3 * (a - min(h)) / (max(h) - min(h)) + 0.7 * (far if sign == "far" else 1 - far))
    got = EntropyDistance(weights=[0.3, 0.7], distance=sign).score(case.candidates, case.context)
    np.testing.assert_allclose(got, expected, atol=1e-12)


def test_entropy_distance_with_equal_terms_counts_them_zero(make_case):
    case = make_case(seed=6)
    case.candidates.logits_all[:] = 1.0
    full = EntropyDistance(weights=[0.5, 0.5]).score(case.candidates, case.context)
    only_distance = EntropyDistance(weights=[0.0, 0.5]).score(case.candidates, case.context)
    np.testing.assert_array_equal(full, only_distance)
    case.candidates.embeddings_all[:] = 2.0
    np.testing.assert_array_equal(EntropyDistance().score(case.candidates, case.context), 0.0)


@pytest.mark.parametrize(
    "make, line",
    [
        (lambda: Similarity(reduce="men"), "selector.reduce: 'men'; nearest valid: mean, min"),
        (lambda: Similarity(modes=0), "selector.modes: 0 error modes; expected 1 or more"),
        (lambda: Entropy(mc_samples=0), "selector.mc_samples: 0 passes; expected 1 or more"),
        (lambda: Bald(mc_samples=1), "selector.mc_samples: 1; BALD compares stochastic passes, expected 2 or more"),
        (lambda: EntropyDistance(weights=[1.0]), "selector.weights: .1.0.; expected two numbers"),
        (lambda: EntropyDistance(weights=[1.0, -1.0]), "selector.weights: .1.0, -1.0."),
        (lambda: EntropyDistance(distance="fra"), "selector.distance: 'fra'; nearest valid: far"),
    ],
)
def test_impossible_arguments_are_named(make, line):
    with pytest.raises(ConfigError, match=line):
        make()
