import numpy as np
import pytest
from scipy.stats import binom, bootstrap

from aaca.evaluate.statistics import (
    mcnemar,
    mean_sd,
    paired_difference,
    percentile_interval,
    resample_weights,
    resampled_means,
)


def test_weights_are_draws_with_replacement():
    weights = resample_weights(30, 4000, seed=3)
    assert weights.shape == (4000, 30) and (weights.sum(axis=1) == 30).all()
    assert weights.mean() == pytest.approx(1) and weights.astype(float).var() == pytest.approx(29 / 30, rel=0.03)
    assert np.array_equal(weights, resample_weights(30, 4000, seed=3))
    assert not np.array_equal(weights, resample_weights(30, 4000, seed=4))


def test_resampled_means_equal_a_loop_over_images():
    rng = np.random.default_rng(0)
    sources = rng.integers(0, 9, 80)
    correct = rng.random((80, 3)) < [0.2, 0.5, 0.9]
    sums = np.stack([[correct[sources == s, k].sum() for k in range(3)] for s in range(9)]).astype(float)
    counts = np.repeat(np.bincount(sources, minlength=9)[:, None], 3, axis=1).astype(float)
    weights = resample_weights(9, 20)
    means = resampled_means(sums, counts, weights)
    for draw, line in zip(weights, means, strict=True):
        images = np.concatenate([np.repeat(np.flatnonzero(sources == s), draw[s]) for s in range(9)])
        np.testing.assert_allclose(line, correct[images].mean(axis=0), atol=1e-12)


def test_resample_without_an_image_is_nan():
    means = resampled_means(
        np.array([[1.0], [0.0]]), np.array([[2.0], [0.0]]), np.array([[0, 2], [1, 1]], dtype=np.uint8)
    )
    assert np.isnan(means[0, 0]) and means[1, 0] == 0.5
    assert percentile_interval(means[:1, 0]) is None


def test_single_images_as_sources_equal_scipy_bootstrap():
    rng = np.random.default_rng(1)
    a, b = rng.random(200) < 0.7, rng.random(200) < 0.5
    ours = paired_difference(a, b, np.arange(200), resamples=20000)
    theirs = bootstrap(
        (a.astype(float) - b.astype(float),), np.mean, n_resamples=20000, method="percentile", rng=5
    ).confidence_interval
    assert ours.value == pytest.approx(a.mean() - b.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.006)


def test_equal_sources_have_the_closed_form_standard_error():
    rng = np.random.default_rng(2)
    differences = rng.normal(0.1, 0.3, 60)  # of source means; 10 equal images each
    first = np.repeat(differences, 10)
    interval = paired_difference(first, np.zeros(600), np.repeat(np.arange(60), 10), resamples=8000)
    error = differences.std(ddof=0) / np.sqrt(60)
    assert (interval.high - interval.low) / 2 == pytest.approx(1.96 * error, rel=0.06)
    naive = paired_difference(first, np.zeros(600), np.arange(600), resamples=2000)
    assert interval.high - interval.low > 2.5 * (naive.high - naive.low)  # images of one source are no new evidence


def test_intervals_cover():
    hits = 0
    for trial in range(200):
        rng = np.random.default_rng(trial)
        effect = rng.normal(0.2, 0.5, 40)  # per source
        images = np.repeat(effect, 5) + rng.normal(0, 0.2, 200)
        interval = paired_difference(images, np.zeros(200), np.repeat(np.arange(40), 5), resamples=300, seed=trial)
        hits += interval.low <= 0.2 <= interval.high
    assert 0.88 <= hits / 200 <= 0.99


def test_no_difference_has_a_zero_interval():
    same = np.random.default_rng(0).random(50) < 0.5
    interval = paired_difference(same, same, np.arange(50) // 5)
    assert (interval.value, interval.low, interval.high) == (0, 0, 0)


@pytest.mark.parametrize(("b", "c"), [(0, 0), (5, 0), (12, 3), (7, 7), (40, 22)])
def test_mcnemar_is_the_exact_binomial(b, c):
    first = np.array([1] * b + [0] * c + [1] * 9 + [0] * 4, dtype=bool)
    second = np.array([0] * b + [1] * c + [1] * 9 + [0] * 4, dtype=bool)
    result = mcnemar(first, second)
    expected = min(1.0, 2 * binom.cdf(min(b, c), b + c, 0.5)) if b + c else 1.0
    assert (result.only_first, result.only_second) == (b, c)
    assert result.p == pytest.approx(expected)


def test_mean_sd():
    assert mean_sd([0.5, 0.7, 0.9]) == (pytest.approx(0.7), pytest.approx(0.2))
    assert mean_sd([0.5]) == (0.5, None)
