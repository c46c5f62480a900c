"""Metrics of decompositions against closed forms and brute force; what a predictor that never changes R can reach."""

import math

import numpy as np
import pytest
import torch

from aaca.evaluate.intrinsic import (
    constant_albedo_floor,
    decomposition_metrics,
    lmse,
    scale_invariant_mse,
    sensitivity,
    ssim,
    variance_within,
)
from aaca.world.intrinsic import draw_scenes, render_all

SIZE = 32


@pytest.fixture(scope="module")
def truth():
    scenes = render_all(draw_scenes(8, 0, "test"), SIZE)
    return torch.from_numpy(scenes.albedo), torch.from_numpy(scenes.shading)


def noisy(values, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (values + 0.1 * torch.randn(values.shape, generator=generator)).clamp(0.01, 1)


def by_search(predicted, true):
    """The smallest error over many scales; a parabola through three of them gives the exact one."""
    scales = np.array([0.0, 1.0, 2.0])
    errors = [float(np.square(scale * predicted - true).sum()) for scale in scales]
    a, b, c = np.polyfit(scales, errors, 2)
    return c - b * b / (4 * a)


def test_the_scale_invariant_error_is_that_of_the_best_scale(truth):
    predicted, true = noisy(truth[0]).double(), truth[0].double()
    found = scale_invariant_mse(predicted, true)
    for place in range(len(true)):
        assert float(found[place]) == pytest.approx(
            by_search(predicted[place].numpy(), true[place].numpy()) / true[0].numel()
        )
    torch.testing.assert_close(scale_invariant_mse(0.3 * predicted, true), found)
    assert float(scale_invariant_mse(0.5 * true, true).max()) < 1e-15
    torch.testing.assert_close(scale_invariant_mse(0 * true, true), true.square().flatten(1).mean(dim=1))
    plain = (predicted - true).square().flatten(1).mean(dim=1)
    assert bool((found <= plain).all())


@pytest.mark.parametrize(("window", "step"), [(20, 10), (8, 3), (50, 10)])
def test_the_local_error_is_that_of_a_scale_for_each_window(truth, window, step):
    predicted, true = noisy(truth[0], 1).double().numpy(), truth[0].double().numpy()
    side, errors, energies = min(window, SIZE), np.zeros(8), np.zeros(8)
    for top in range(0, SIZE - side + 1, step):
        for left in range(0, SIZE - side + 1, step):
            for place in range(8):
                cut = np.s_[place, :, top : top + side, left : left + side]
                errors[place] += by_search(predicted[cut], true[cut])
                energies[place] += np.square(true[cut]).sum()
    found = lmse(torch.from_numpy(predicted), torch.from_numpy(true), window, step).numpy()
    np.testing.assert_allclose(found, errors / energies, rtol=1e-6)


def test_the_local_error_knows_perfect_black_and_what_is_right_up_to_a_scale_a_window(truth):
    true = truth[1]
    assert float(lmse(true, true).max()) < 1e-6 and float(lmse(0.2 * true, true).max()) < 1e-6
    torch.testing.assert_close(lmse(0 * true, true), torch.ones(len(true)))
    halves = true.clone()
    halves[..., SIZE // 2 :] *= 0.5
    assert float(lmse(halves, true, 16, 16).max()) < 1e-6 < float(scale_invariant_mse(halves, true).min())


def test_similarity_is_one_for_the_truth_and_less_for_noise(truth):
    for part in truth:
        assert ssim(part, part) == pytest.approx(1, abs=1e-3)
        assert 0 < ssim(noisy(part), part) < 0.95


def test_a_constant_albedo_fails_the_floor_of_reconstruction(truth):
    albedo, shading = truth
    image = albedo * shading
    floor = constant_albedo_floor(image)
    assert floor > 0.001
    for seed in range(3):  # whatever colours it takes, the best shading for them stays above the floor
        colours = torch.rand(len(image), 3, 1, 1, generator=torch.Generator().manual_seed(seed)) + 0.05
        best = (image * colours).sum(dim=1, keepdim=True) / colours.square().sum(dim=1, keepdim=True)
        assert float((colours * best - image).square().mean()) >= floor
        constant = decomposition_metrics(colours.expand_as(albedo), best, albedo, shading)
        assert constant["collapsed"] == 1
    found = decomposition_metrics(albedo, shading, albedo, shading)
    assert found["collapsed"] == 0 and found["reconstruction"] == 0 and found["floor"] == floor
    assert max(found[f"{name}_{part}"] for name in ("mse", "si_mse", "lmse") for part in "rs") < 1e-6


def test_the_floor_is_the_best_rank_one_reconstruction(truth):
    image = truth[0] * truth[1]
    colour = torch.tensor([0.9, 0.4, 0.2])[:, None, None]
    assert constant_albedo_floor(colour * truth[1]) < 1e-9
    left = [np.square(np.linalg.svd(one.reshape(3, -1).double().numpy(), compute_uv=False)[1:]).sum() for one in image]
    assert constant_albedo_floor(image) == pytest.approx(np.mean(left) / image[0].numel())


def test_sensitivity_is_a_ratio_of_variances_within_scenes(truth):
    generator = torch.Generator().manual_seed(0)
    scenes = torch.rand(5, 1, 3, 4, 4, generator=generator)  # what differs between scenes does not count
    small, large = (scenes + scale * torch.randn(5, 400, 3, 4, 4, generator=generator) for scale in (0.1, 0.2))
    assert variance_within(small) == pytest.approx(0.01, rel=0.1)
    assert sensitivity(small, large) == pytest.approx(0.25, rel=0.1)
    assert sensitivity(scenes.expand(5, 9, 3, 4, 4), large) == pytest.approx(0, abs=1e-12)
    assert math.isnan(sensitivity(small, scenes.expand(5, 9, 3, 4, 4)))
