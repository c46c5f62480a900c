"""Kernel Inception Distance against torchmetrics' polynomial kernel and against a sum over pairs."""

import numpy as np
import pytest
import torch
from torchmetrics.image.kid import poly_mmd

from aaca.evaluate.kid import kid


def draw(n, d, seed, shift=0.0):
    return np.random.default_rng((seed, n)).normal(size=(n, d)) + shift * np.eye(d)[0]


def scaled(vectors):
    return vectors / np.sqrt((vectors**2).mean(axis=1, keepdims=True))


@pytest.mark.parametrize(("n", "d", "shift"), [(2, 3, 0.0), (20, 8, 0.0), (33, 16, 2.0)])
def test_of_equally_many_rows_it_is_torchmetrics(n, d, shift):
    first, second = draw(n, d, 0), draw(n, d, 1, shift)
    expected = float(poly_mmd(*(torch.from_numpy(scaled(vectors)) for vectors in (first, second))))
    assert kid(first, second) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    lengths = np.random.default_rng(2).uniform(0.1, 9, (n, 1))
    assert kid(first * lengths, second.astype(np.float32)) == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_of_any_numbers_of_rows_it_is_the_sum_over_pairs_and_symmetric():
    x, y = scaled(draw(5, 4, 0)), scaled(draw(7, 4, 1, 1.0))

    def mean(a, b, same):
        pairs = [(i, j) for i in range(len(a)) for j in range(len(b)) if not (same and i == j)]
        return np.mean([(sum(a[i] * b[j]) / 4 + 1) ** 3 for i, j in pairs])

    expected = mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)
    assert kid(x, y) == pytest.approx(expected, rel=1e-9)
    assert kid(y, x) == pytest.approx(expected, rel=1e-9)


def test_alike_is_near_nothing_and_apart_is_far():
    alike = [kid(draw(40, 8, 2 * seed), draw(60, 8, 2 * seed + 1)) for seed in range(60)]
    error = np.std(alike) / np.sqrt(60)
    assert abs(np.mean(alike)) < 4 * error and min(alike) < 0 < max(alike)  # unbiased
    apart = [kid(draw(40, 8, seed), draw(60, 8, seed + 1, 1.5)) for seed in range(5)]
    assert min(apart) > 3 * max(alike)


@pytest.mark.parametrize(("n", "m"), [(0, 5), (1, 5), (5, 1), (5, 0)])
def test_fewer_than_two_rows_are_nan(n, m):
    assert np.isnan(kid(draw(n, 3, 0), draw(m, 3, 1)))
