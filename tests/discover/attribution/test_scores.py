"""Pointing game, energy, curves, blur: against planted truth and brute force."""

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import nn

from aaca.discover.attribution.perturb import blur, without
from aaca.discover.attribution.scores import correlation, deletion_insertion, energy, pointing_game


def test_a_map_that_peaks_on_its_mask_hits():
    maps = np.zeros((4, 2, 2), dtype=np.float32)
    maps[0, 0, 1] = maps[1, 1, 1] = maps[2, 0, 0] = 1
    masks = np.zeros((4, 2, 2), dtype=np.float32)
    masks[0, 0, 1], masks[1, 0, 0], masks[2, 0, 0], masks[3] = 1.0, 1.0, 0.4, 1.0
    assert pointing_game(maps, masks).tolist() == [True, False, False, False]  # beside; barely; no relevance
    np.testing.assert_allclose(energy(maps, masks), [1, 0, 0.4, 0], rtol=1e-6)


class Corner(nn.Module):
    """Class 1 where the upper left quarter is bright."""

    def forward(self, images):
        bright = images[:, :, :8, :8].mean(dim=(1, 2, 3))
        return torch.stack([torch.zeros_like(bright), 8 * bright], dim=1)


def test_a_true_map_deletes_fast_and_inserts_fast():
    images = -torch.ones(1, 3, 16, 16)
    images[:, :, :8, :8] = 1
    true, false = torch.zeros(1, 4, 4), torch.zeros(1, 4, 4)
    true[0, :2, :2] = torch.tensor([[4.0, 3], [2, 1]])
    false[0, 2:, 2:] = torch.tensor([[4.0, 3], [2, 1]])
    target = torch.tensor([1])
    good, bad = (deletion_insertion(Corner(), images, maps, target) for maps in (true, false))
    assert good[0] < bad[0] and good[1] > bad[1]


def test_curves_are_what_a_loop_over_cells_gives():
    torch.manual_seed(0)
    images, maps = torch.randn(1, 3, 8, 8), torch.rand(1, 2, 2)
    model, target = Corner(), torch.tensor([1])
    soft = blur(images)
    steps, current = [images], images.clone()
    for cell in maps.flatten().argsort(descending=True).tolist():
        rows, columns = slice(4 * (cell // 2), 4 * (cell // 2) + 4), slice(4 * (cell % 2), 4 * (cell % 2) + 4)
        current = current.clone()
        current[:, :, rows, columns] = soft[:, :, rows, columns]
        steps.append(current)
    wanted = np.mean([float(model(step).softmax(dim=1)[0, 1]) for step in steps])
    found, _ = deletion_insertion(model, images, maps, target, steps=4)
    np.testing.assert_allclose(found, [wanted], rtol=1e-5)


def test_blur_is_a_gaussian():
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    wanted = gaussian_filter(images.numpy(), sigma=(0, 0, 4, 4), mode="mirror", truncate=3.0)
    np.testing.assert_allclose(blur(images).numpy(), wanted, atol=1e-5)


def test_correlation_is_pearson_s_and_0_for_a_flat_map():
    rng = np.random.default_rng(0)
    x, y = rng.random((3, 4, 4)), rng.random((3, 4, 4))
    y[2] = 0.5
    wanted = [np.corrcoef(x[i].ravel(), y[i].ravel())[0, 1] for i in range(2)]
    np.testing.assert_allclose(correlation(x, y), [*wanted, 0])


def test_what_a_mask_covers_is_blurred_and_nothing_else():
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(2, 4, 4)
    masks[0, :2], masks[1] = 1, 1
    changed = without(images, masks)
    torch.testing.assert_close(changed[0, :, 12:], images[0, :, 12:])
    torch.testing.assert_close(changed[0, :, :4], blur(images)[0, :, :4])
    torch.testing.assert_close(changed[1], blur(images)[1])
