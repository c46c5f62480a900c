"""Sparse probes against scikit-learn, finite differences and closed forms."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.sparse import coo_array
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn

from aaca.evaluate.bottleneck import nec
from aaca.runtime.errors import ConfigError, DataError
from aaca.training.probe_adam import fit_adam, gradient_of
from aaca.training.sparse_descent import descend, moments
from aaca.training.sparse_probe import Probe, fit_prox, objective, path, strength_max
from tests.training.probe_toys import C, H, N, planted


@pytest.fixture(scope="module")
def toy():
    return planted()


def subgradients(probe, codes, labels, l1, l2):
    """The gradient of cross-entropy and L2 `[C, h]`, by autograd in float64, on standardised codes where they were."""
    values = codes.toarray().astype(np.float64)
    if probe.mean is not None:
        values = (values - probe.mean) / probe.scale
    weight = torch.from_numpy(probe.weight.astype(np.float64)).requires_grad_()
    bias = torch.zeros(C, dtype=torch.float64) if probe.bias is None else torch.from_numpy(probe.bias).double()
    logits = torch.from_numpy(values) @ weight.T + bias.requires_grad_()
    loss = nn.functional.cross_entropy(logits, torch.from_numpy(labels)) + l2 / 2 * weight.square().sum()
    found, shift = torch.autograd.grad(loss, [weight, bias])
    return found.numpy(), shift.numpy()


def centred(weight):
    """L1 alone does not tell apart optima that differ by a constant over the classes (as many signs up as down)."""
    return weight - weight.mean(axis=0)


@pytest.mark.parametrize("standardise", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("alpha", [1.0, 0.7])
@pytest.mark.parametrize("dense", [False, True])
def test_the_optimum_meets_kkt(toy, standardise, bias, alpha, dense):
    codes, labels = toy
    given = codes.toarray() if dense else codes
    strength = 0.1 * strength_max(codes, labels, C, alpha, bias, "sum", standardise)
    probe = fit_prox(given, labels, C, strength, alpha, bias, "sum", standardise, tolerance=1e-3)
    assert probe.meta["converged"] and (probe.bias is not None) == bias and (probe.mean is not None) == standardise
    l1, l2 = strength * alpha, strength * (1 - alpha)
    gradient, shift = subgradients(probe, codes, labels, l1, l2)
    zero = probe.weight == 0
    assert 0.2 < zero.mean() < 0.9
    assert np.abs(gradient[zero]).max() <= l1 * 1.002
    np.testing.assert_allclose(gradient[~zero], -l1 * np.sign(probe.weight[~zero]), atol=2e-3 * l1)
    if bias:
        assert np.abs(shift).max() <= 2e-3 * l1
    assert probe.meta["objective"] == pytest.approx(objective(probe, codes, labels, strength, alpha, "sum"), rel=1e-5)


@pytest.mark.parametrize(("alpha", "bias"), [(1.0, False), (1.0, True), (0.5, False), (0.9, True)])
@pytest.mark.parametrize("part", [0.3, 0.03])
def test_the_objective_is_that_of_scikit_learns_saga(toy, alpha, bias, part):
    codes, labels = toy
    strength = part * strength_max(codes, labels, C, alpha, bias, "sum")
    probe = fit_prox(codes, labels, C, strength, alpha, bias, "sum", tolerance=1e-3)
    settings = {"C": 1 / (N * strength), "l1_ratio": alpha, "solver": "saga", "fit_intercept": bias}
    saga = LogisticRegression(**settings, tol=1e-7, max_iter=20_000, random_state=0)
    saga.fit(codes.toarray().astype(np.float64), labels)
    theirs = Probe(saga.coef_, saga.intercept_ if bias else None)
    ours = objective(probe, codes, labels, strength, alpha, "sum")
    assert ours == pytest.approx(objective(theirs, codes, labels, strength, alpha, "sum"), rel=1e-4)
    assert np.abs(centred(probe.weight) - centred(saga.coef_)).max() < 0.02 * np.abs(saga.coef_).max()


def test_standardised_without_densifying_is_standardised(toy):
    codes, labels = toy
    values = StandardScaler().fit_transform(codes.toarray().astype(np.float64)).astype(np.float32)
    mean, scale = moments(codes)
    np.testing.assert_allclose(mean, codes.toarray().mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(moments(codes.toarray())[1], scale, rtol=1e-6)
    assert scale[7] == 1
    plain = fit_prox(values, labels, C, 0.02, 0.9, True, "sum", tolerance=1e-4)
    ours = fit_prox(codes, labels, C, 0.02, 0.9, True, "sum", standardise=True, tolerance=1e-4)
    np.testing.assert_allclose(ours.weight, plain.weight, atol=1e-3)
    np.testing.assert_allclose(ours.logits(codes), plain.logits(values), atol=1e-2)
    assert (ours.raw()[0] == 0).sum() == (ours.weight == 0).sum() > 0


def test_gradients_equal_finite_differences(toy):
    codes, labels = toy
    rng = np.random.default_rng(1)
    weight = rng.normal(size=(C, H)).astype(np.float32)
    ours = gradient_of(codes, labels, torch.from_numpy(weight.T.copy()), 3.0).numpy().T
    gradient, _ = subgradients(Probe(weight), codes, labels, 0, 0)
    np.testing.assert_allclose(ours, gradient + 3 / weight.size * np.sign(weight), atol=1e-6)
    for place in [(0, 0), (1, 5), (3, 29), (2, 7)]:
        sides = []
        for step in (1e-5, -1e-5):
            moved = weight.astype(np.float64)
            moved[place] += step
            sides.append(objective(Probe(moved), codes, labels, 3.0, 1.0, "mean"))
        assert (sides[0] - sides[1]) / 2e-5 == pytest.approx(ours[place], abs=1e-6)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(("bias", "standardise"), [(False, False), (True, True)])
def test_the_largest_strength_is_exact(toy, reduction, bias, standardise):
    codes, labels = toy
    top = strength_max(codes, labels, C, 0.9, bias, reduction, standardise)
    rest = (0.9, bias, reduction, standardise, 1e-6)
    at, below = (fit_prox(codes, labels, C, part * top, *rest) for part in (1, 1 - 1e-4))
    assert nec(at.weight) == 0 and at.meta["steps"] == 0
    assert np.count_nonzero(below.weight) == 1
    if bias:
        np.testing.assert_allclose(np.exp(at.bias), np.bincount(labels) / N, rtol=1e-5)


def test_the_mean_is_the_sum_over_weights(toy):
    codes, labels = toy
    one = fit_prox(codes, labels, C, 1.0, tolerance=1e-4)
    other = fit_prox(codes, labels, C, 1 / (C * H), reduction="sum", tolerance=1e-4)
    np.testing.assert_array_equal(one.weight, other.weight)


def test_a_start_gives_the_same_optimum_sooner(toy):
    codes, labels = toy
    cold = fit_prox(codes, labels, C, 1.0, bias=True, tolerance=1e-3)
    warm = fit_prox(codes, labels, C, 1.0, bias=True, tolerance=1e-3, start=cold)
    assert warm.meta["steps"] == 0 and (warm.weight == cold.weight).all()
    near = fit_prox(codes, labels, C, 1.2, bias=True, tolerance=1e-3)
    sooner = fit_prox(codes, labels, C, 1.0, bias=True, tolerance=1e-3, start=near)
    np.testing.assert_allclose(centred(sooner.weight), centred(cold.weight), atol=0.02)
    assert sooner.meta["steps"] < cold.meta["steps"]
    short = fit_prox(codes, labels, C, 1.0, max_steps=2)
    assert not short.meta["converged"] and short.meta["steps"] == 2


def test_a_concept_that_the_screen_leaves_out_comes_back():
    rng = np.random.default_rng(2)
    codes = rng.normal(size=(2000, 6)).astype(np.float32)
    codes[:, 1] += codes[:, 0]  # says nothing of the label alone, and much beside concept 0
    logits = 4 * codes[:, 0] - 2 * codes[:, 1]
    labels = (logits + rng.logistic(size=2000) > 0).astype(np.int64)
    zero = Probe(np.zeros((2, 6), np.float32))
    strength = 0.2 * strength_max(codes, labels, 2, reduction="sum")
    alone = [strength_max(codes[:, [place]], labels, 2, reduction="sum") for place in (0, 1)]
    assert alone[1] < strength < alone[0]
    probe = fit_prox(codes, labels, 2, strength, reduction="sum", tolerance=1e-3, start=zero)
    assert probe.meta["converged"] and (probe.weight[:, 1] != 0).any()


def test_a_path_begins_with_no_concept_and_grows(toy):
    codes, labels = toy
    probes = path(codes, labels, C, n_lambdas=60)
    sizes = [nec(probe.weight) for probe in probes]
    strengths = [probe.meta["strength"] for probe in probes]
    assert len(probes) == 61 and sizes[0] == 0 and sizes[1] > 0
    assert strengths[0] == pytest.approx(strength_max(codes, labels, C, 0.99, True, "sum", True), rel=1e-6)
    np.testing.assert_allclose(np.divide(strengths[:-1], strengths[1:]), 2**0.1)
    assert sum(later < sooner for sooner, later in pairwise(sizes)) <= 3
    assert sizes[-1] > 20 and all(probe.meta["converged"] for probe in probes)
    for probe in probes[5::18]:  # the working set left no concept out
        rest = (probe.meta["strength"], 0.99, True, "sum", True, 1e-3)
        alone = fit_prox(codes, labels, C, *rest)
        ours, best = (objective(part, codes, labels, rest[0], 0.99, "sum") for part in (probe, alone))
        assert ours == pytest.approx(best, rel=1e-5)
    short = path(codes, labels, C, nec_limit=5)
    assert nec(short[-1].weight) >= 5 > nec(short[-2].weight)


def test_a_descent_of_a_quadratic_is_soft_thresholding():
    goal, factor = torch.tensor([[3.0, -0.5], [-2.0, 0.1]]), torch.tensor([[1.0], [4.0]])
    value, penalty = (lambda v: (float((factor * (v - goal) ** 2).sum() / 2), factor * (v - goal))), torch.ones(2, 1)
    found, _, violation, _ = descend(value, torch.zeros(2, 2), penalty, torch.ones(2, 1), 1e-5, 100)
    expected = goal.sign() * (goal.abs() - penalty / factor).clamp(min=0)
    assert violation <= 1e-5
    torch.testing.assert_close(found, expected)


def test_a_probe_survives_the_disk(toy, tmp_path):
    codes, labels = toy
    for standardise in (False, True):
        probe = fit_prox(codes, labels, C, 1.0, bias=standardise, standardise=standardise)
        probe.save(tmp_path / "probe")
        again = Probe.load(tmp_path / "probe")
        assert (again.logits(codes) == probe.logits(codes)).all() and again.meta == probe.meta
        assert (again.mean is None) == (not standardise)
    with pytest.raises(DataError, match="no probe"):
        Probe.load(tmp_path / "nothing")


def test_what_does_not_fit_is_named(toy):
    codes, labels = toy
    with pytest.raises(DataError, match="labels"):
        fit_prox(codes, labels[1:], C, 1.0)
    with pytest.raises(DataError, match="expected CSR or dense"):
        fit_prox(coo_array(codes), labels, C, 1.0)
    with pytest.raises(DataError, match="labels of 3 classes"):
        fit_adam(codes, labels, 3)
    with pytest.raises(DataError, match="finite"):
        fit_prox(codes * np.float32(np.nan), labels, C, 1.0)
    with pytest.raises(DataError, match="a class has no image"):
        fit_prox(codes, labels, C + 1, 1.0, bias=True)
    with pytest.raises(DataError, match=r"probe\.start"):
        fit_prox(codes, labels, C, 1.0, start=Probe(np.zeros((C, H + 1), np.float32)))
    with pytest.raises(DataError, match="tells the classes apart"):
        path(codes * np.float32(0), labels, C)
    for strength, alpha, reduction in ((0, 1, "sum"), (1, 0, "sum"), (1, 1.5, "sum"), (1, 1, "total")):
        with pytest.raises(ConfigError, match="probe"):
            fit_prox(codes, labels, C, strength, alpha, reduction=reduction)
    with pytest.raises(ConfigError, match="batch_size 0"):
        fit_adam(codes, labels, C, batch_size=0)
