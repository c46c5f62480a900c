"""Mappings in closed form: sklearn's PCA and ridge, planted maps, chance, files."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge

from aaca.concepts.cav import fit_cav
from aaca.concepts.mapping import ALPHAS, Mapping, fit_ridge, held_out, pca, r_squared, ridge
from aaca.runtime.errors import DataError


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def planted(n=150, noise=0.0):
    """(feature maps, activations): the former are a fixed linear map of the latter, which live in 12 dimensions."""
    latent = normal(n, 12)
    student = torch.tanh(latent @ normal(12, 5 * 16, seed=1) * 0.1)
    features = student @ normal(5 * 16, 6 * 9, seed=2) + noise * normal(n, 6 * 9, seed=3)
    return features.reshape(n, 6, 3, 3), student.reshape(n, 5, 4, 4), latent


def predicted(tensors, x):
    return (x - tensors["mean"]) @ tensors["left"] @ tensors["right"] + tensors["offset"]


@pytest.mark.parametrize("k", [3, 7, 50])
def test_the_basis_is_sklearn_s_over_all_patches(k):
    features = normal(20, 7, 4, 3) * torch.arange(1, 8.0)[:, None, None] + 3
    patches = features.permute(0, 2, 3, 1).reshape(-1, 7).numpy()
    known = PCA(min(k, 7)).fit(patches)
    basis = pca(features, k)
    signs = np.sign((known.components_ * basis.components.numpy()).sum(1))
    np.testing.assert_allclose(basis.components, signs[:, None] * known.components_, atol=1e-4)
    found = basis.project(features).permute(0, 2, 3, 1).reshape(-1, min(k, 7))
    np.testing.assert_allclose(found, signs * known.transform(patches), atol=1e-3)
    again = pca(features.flip(0), k)
    torch.testing.assert_close(again.components, basis.components, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("n", "p"), [(30, 200), (200, 30), (40, 40)])
def test_both_forms_are_sklearn_s_ridge(n, p):
    x, y = normal(n, p).double() + 2, normal(n, 7, seed=1).double() - 1
    for alpha in (0.1, 30.0):
        tensors, given = ridge(x, y, alpha)
        assert given == alpha
        new = normal(5, p, seed=2)
        np.testing.assert_allclose(predicted(tensors, new), Ridge(alpha).fit(x, y).predict(new.double()), atol=1e-4)


@pytest.mark.parametrize(("n", "p"), [(12, 30), (18, 5)])
def test_the_penalty_has_the_least_error_of_images_that_are_left_out_one_by_one(n, p):
    x = normal(n, p).double()
    y = x @ normal(p, 3, seed=1).double() + 2 * normal(n, 3, seed=2).double()
    centred = np.linalg.svd(x - x.mean(0), compute_uv=False) ** 2
    mean = centred[centred > 1e-9].mean()

    def error(alpha):
        rows = [np.arange(n) != left for left in range(n)]
        return sum(((Ridge(alpha).fit(x[row], y[row]).predict(x[~row]) - y[~row].numpy()) ** 2).sum() for row in rows)

    best = min((choice * mean for choice in ALPHAS), key=error)
    assert ridge(x, y)[1] == pytest.approx(best)


def test_a_planted_linear_map_is_found_and_carries_concept_vectors():
    features, student, latent = planted()
    for basis in (None, pca(features, 6)):
        mapping = fit_ridge(features, student, basis=basis)
        assert mapping.r2 > 0.99 and mapping.shape == (5, 4, 4) and mapping.meta["held_out"] == 30
        mapped, direct = mapping.apply(features).numpy(), student.flatten(1).numpy()
        has = (latent[:, 0] > 0.5).numpy(), (latent[:, 0] < -0.5).numpy()
        vectors = [fit_cav(acts[has[0]], acts[has[1]]).direction for acts in (mapped, direct)]
        assert vectors[0] @ vectors[1] > 0.95


def test_r2_is_of_images_that_the_fit_did_not_see():
    features, student, _ = planted(60)
    mapping = fit_ridge(features, student, seed=4)
    rows, held = held_out(60, 4)
    assert sorted([*rows.tolist(), *held.tolist()]) == list(range(60)) and len(held) == 12
    spoiled = student.clone()
    spoiled[held] = normal(12, 5, 4, 4)
    other = fit_ridge(features, spoiled, seed=4)
    assert other.r2 < 0.5 < mapping.r2
    torch.testing.assert_close(other.tensors["right"], mapping.tensors["right"], rtol=0, atol=0)
    actual = student[held].flatten(1).numpy()
    error = ((mapping.apply(features[held]).numpy() - actual) ** 2).sum()
    assert mapping.r2 == pytest.approx(1 - error / ((actual - actual.mean(0)) ** 2).sum(), abs=1e-6)


def test_chance_is_below_zero_the_mean_is_zero_and_no_variance_is_nan():
    found = [fit_ridge(normal(80, 6, 3, 3, seed=seed), normal(80, 40, seed=100 + seed), seed).r2 for seed in range(5)]
    assert max(found) < 0.01 and np.mean(found) < 0
    actual = normal(9, 4)
    assert r_squared(actual.mean(0).expand(9, 4), actual) == pytest.approx(0)
    assert r_squared(actual, actual) == 1 and np.isnan(r_squared(actual, torch.ones(9, 4)))


def test_wide_layers_are_no_more_than_the_images_are():
    mapping = fit_ridge(normal(60, 64, 8, 8), normal(60, 512, 7, 7, seed=1))
    assert mapping.tensors["left"].shape == (64 * 64, 47) and mapping.tensors["right"].shape == (47, 512 * 49)
    assert mapping.apply(normal(2, 64, 8, 8)).shape == (2, 512 * 49)


@pytest.mark.parametrize("channels", [None, 4])
def test_files(tmp_path, channels):
    features, student, _ = planted()
    mapping = fit_ridge(features, student, basis=None if channels is None else pca(features, channels))
    mapping.save(tmp_path)
    again = Mapping.load(tmp_path)
    torch.testing.assert_close(again.apply(features), mapping.apply(features), rtol=0, atol=0)
    assert (again.kind, again.shape, again.r2, again.meta) == ("ridge", (5, 4, 4), mapping.r2, mapping.meta)
    with pytest.raises(DataError, match="none: no mapping"):
        Mapping.load(tmp_path / "none")


def test_too_few_images_and_a_teacher_that_sees_nothing_are_one_line():
    with pytest.raises(DataError, match="9 concept images; expected 10 or more"):
        fit_ridge(normal(9, 2, 3, 3), normal(9, 4))
    with pytest.raises(DataError, match="teacher's features are the same for all"):
        fit_ridge(torch.ones(20, 2, 3, 3), normal(20, 4))
