"""Concept vectors: planted directions, sign, accuracies, files; the fits agree where mathematics says so."""

from typing import get_args

import numpy as np
import pytest

from aaca.concepts.cav import Cav, Kind, fit_cav
from aaca.runtime.errors import ConfigError, DataError

D = 40


def planted(n=120, gap=4.0, seed=0):
    """(u, images with s·u added, images without)."""
    rng = np.random.default_rng(seed)
    u = rng.standard_normal(D)
    u /= np.linalg.norm(u)
    return u, rng.standard_normal((n, D)) + gap * u, rng.standard_normal((n, D))


@pytest.mark.parametrize("kind", get_args(Kind))
def test_a_planted_direction_is_found_and_points_to_the_concept(kind):
    u, positive, negative = planted(n=400, gap=6.0)
    cav = fit_cav(positive, negative, kind)
    assert cav.direction @ u > (0.99 if kind in ("mean_difference", "pattern") else 0.8)
    assert np.linalg.norm(cav.direction) == pytest.approx(1, abs=1e-6) and cav.direction.dtype == np.float32
    assert cav.accuracy_positive > 0.97 and cav.accuracy_negative > 0.97
    turned = fit_cav(negative, positive, kind)
    np.testing.assert_allclose(turned.direction, -cav.direction, atol=2e-3)
    assert (turned.n_positive, turned.folds) == (400, 5)


def test_the_pattern_of_two_sets_is_their_mean_difference():
    _, positive, negative = planted(gap=1.0)
    pattern, difference = (fit_cav(positive[:70], negative, kind).direction for kind in ("pattern", "mean_difference"))
    np.testing.assert_allclose(pattern, difference, atol=1e-6)


def test_sets_that_differ_in_nothing_are_at_chance_on_held_out_images():
    found = [fit_cav(*planted(n=60, gap=0.0, seed=seed)[1:], kind="ridge").balanced_accuracy for seed in range(8)]
    assert 0.42 < np.mean(found) < 0.58


def test_accuracies_are_of_held_out_images_in_any_order():
    # a quarter of C looks like C': exactly these are missed, whatever the order of the rows
    rng = np.random.default_rng(1)
    positive = np.tile([5.0, 0.0, 0.0], (80, 1))
    positive[60:] = 0
    negative = np.zeros((80, 3)) + 0.01 * rng.standard_normal((80, 3))
    for rows in (positive, rng.permutation(positive)):
        cav = fit_cav(rows, negative)
        assert (cav.accuracy_positive, cav.accuracy_negative) == (0.75, 1.0)


def test_files(tmp_path):
    meta = {"layer": "layer4", "weights": "abc"}
    cav = fit_cav(*planted()[1:], meta=meta)
    cav.save(tmp_path)
    again = Cav.load(tmp_path, {"layer": "layer4"})
    np.testing.assert_array_equal(again.direction, cav.direction)
    assert (again.meta, again.accuracy_positive, again.kind) == (meta, cav.accuracy_positive, "mean_difference")
    with pytest.raises(DataError, match="of layer 'layer4'; expected 'layer3'"):
        Cav.load(tmp_path, {"layer": "layer3"})
    with pytest.raises(DataError, match="no concept vector"):
        Cav.load(tmp_path / "none")


@pytest.mark.parametrize("n", [0, 4])
def test_too_few_images_are_one_line(n):
    _, positive, negative = planted()
    with pytest.raises(DataError, match=f"{n} images with and 120 without"):
        fit_cav(positive[:n], negative)


def test_alike_sets_and_unknown_kinds_are_one_line():
    same = np.ones((10, 3))
    with pytest.raises(DataError, match="the same activations"):
        fit_cav(same, same)
    with pytest.raises(ConfigError, match=r"cav\.kind: 'svc'"):
        fit_cav(same, same, "svc")
