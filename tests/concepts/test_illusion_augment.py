"""The fused resampling, against torchvision where it has the like, else against sampling by hand."""

import math

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as vision

from aaca.concepts.illusion.augment import Augment, AugmentSpec, affine
from aaca.runtime.errors import ConfigError

SIZE = 24


def picture(n=1, size=SIZE, seed=0):
    """Smooth, so that two interpolations of it agree."""
    rough = torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed))
    return vision.gaussian_blur(rough, [5, 5], [1.5, 1.5])


def forced(degrees=0.0, move=(0.0, 0.0), scale=(1.0, 1.0), n=1):
    """A view with given numbers: angle clockwise, move (right, down) in pixels, scale (width, height)."""
    spec = AugmentSpec(colour_shift=0.0)
    augment = Augment(spec, [0] * n, 1)
    shift = torch.tensor(move, dtype=torch.float64) * 2 / SIZE
    one = affine(torch.tensor(math.radians(degrees), dtype=torch.float64), shift, torch.tensor(scale).double())
    augment.matrices = one.float().expand(n, 1, 2, 3).contiguous()
    return augment


@pytest.mark.parametrize("degrees", [90, -14, 7.5])
@pytest.mark.parametrize("move", [(0, 0), (3, -2)])
def test_rotation_and_translation_are_torchvision_s(degrees, move):
    image = picture()
    expected = vision.affine(image, degrees, list(move), 1.0, [0.0, 0.0], InterpolationMode.BILINEAR)
    torch.testing.assert_close(forced(degrees, move)(image, 0), expected, atol=2e-5, rtol=0)
    assert float((expected - image).abs().mean()) > 0.01


def test_one_scale_for_both_sides_is_torchvision_s():
    image = picture()
    expected = vision.affine(image, 11, [4, 2], 0.8, [0.0, 0.0], InterpolationMode.BILINEAR)
    found = forced(11, (4 / 0.8, 2 / 0.8), (0.8, 0.8))(image, 0)  # ours is scaled after it is moved
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)


def by_hand(image, degrees, move, scale):
    """Every pixel of the view looked up alone: back through scale, move and rotation, then bilinear; 0 outside."""
    size, out = image.shape[-1], torch.zeros_like(image)
    cos, sin, middle = math.cos(math.radians(degrees)), math.sin(math.radians(degrees)), (size - 1) / 2
    for row in range(size):
        for column in range(size):
            x, y = (column - middle) / scale[0] - move[0], (row - middle) / scale[1] - move[1]
            x, y = cos * x + sin * y + middle, -sin * x + cos * y + middle
            left, top = math.floor(x), math.floor(y)
            for i, j in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
                if 0 <= i < size and 0 <= j < size:
                    out[:, row, column] += image[:, i, j] * (1 - abs(y - i)) * (1 - abs(x - j))
    return out


def test_two_scales_are_what_looking_up_every_pixel_gives():
    image = picture()
    found = forced(-13, (2.5, -1.25), (0.7, 1.15))(image, 0)
    torch.testing.assert_close(found[0], by_hand(image[0], -13, (2.5, -1.25), (0.7, 1.15)), atol=2e-5, rtol=0)
    assert bool((found[0, :, :, 0] == 0).all())  # narrower than before: nothing at its left side


def test_off_is_the_image_itself():
    image = picture(3)
    assert torch.equal(Augment(AugmentSpec.off(), [1, 2, 3], 4)(image, 2), image)
    still = AugmentSpec(degrees=0, translate=0, scale=(1, 1), colour_shift=0.2)
    shifted = Augment(still, [1, 2, 3], 4)(image, 2) - image
    torch.testing.assert_close(shifted, shifted[..., :1, :1].expand_as(shifted), atol=1e-6, rtol=0)
    assert float(shifted.abs().max()) > 0.01


def test_a_sample_s_views_depend_on_its_seed_and_the_step_alone():
    image = picture(1).expand(4, -1, -1, -1)
    together, alone = Augment(AugmentSpec(), [5, 6, 7, 5], 10), Augment(AugmentSpec(), [6], 10)
    for step in (0, 4, 9):
        views = together(image, step)
        torch.testing.assert_close(views[1], alone(image[:1], step)[0], atol=1e-6, rtol=0)
        assert torch.equal(views[0], views[3]) and float((views[0] - views[1]).abs().mean()) > 0.01
    assert not torch.allclose(together(image, 0)[0], together(image, 1)[0], atol=0.01)


def test_the_draws_are_as_wide_as_the_spec_says_and_the_colours_fade():
    spec = AugmentSpec(degrees=15, translate=0.15, scale=(0.6, 1.2), colour_shift=0.2)
    augment = Augment(spec, range(60), 100)
    back, move = augment.matrices[..., :2].double(), augment.matrices[..., 2:].double()
    inverse = torch.linalg.inv(back)
    scale = inverse.norm(dim=-1)  # rows: width, height
    angle = torch.rad2deg(torch.atan2(inverse[..., 1, 0] / scale[..., 1], inverse[..., 0, 0] / scale[..., 0]))
    shift = -(inverse @ move)[..., 0] / scale / 2
    for values, low, high in ((angle, -15, 15), (shift, -0.15, 0.15), (scale, 0.6, 1.2)):
        assert low - 1e-4 <= float(values.min()) < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < float(values.max()) <= high + 1e-4
        assert abs(float(values.mean()) - (low + high) / 2) < 0.02 * (high - low)
    assert abs(torch.corrcoef(scale.reshape(-1, 2).T)[0, 1]) < 0.05
    remaining = 1 - torch.arange(100) / 100
    spread = augment.offsets.std(dim=(0, 2)) / remaining
    assert abs(float(spread.mean()) - 0.2) < 0.01 and float((spread - 0.2).abs().max()) < 0.06
    same = Augment(AugmentSpec(degrees=0, translate=0, anisotropic=False), range(9), 9).matrices
    assert torch.equal(same[..., 0, 0], same[..., 1, 1])


def test_gradients_come_through_to_every_image():
    image = picture(2).requires_grad_()
    Augment(AugmentSpec(), [1, 2], 3)(image, 1)[0].sum().backward()
    assert bool(image.grad[0].any()) and not bool(image.grad[1].any())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"degrees": 200}, "degrees: 200; expected 0…180"),
        ({"translate": -1}, "translate: -1; expected 0…1"),
        ({"scale": (0.0, 0.0)}, "scale: 0.0, 0.0; expected two factors above 0"),
        ({"scale": (1.2, 0.6)}, "scale: 1.2, 0.6; expected two"),
        ({"colour_shift": -0.1}, "colour_shift: -0.1; expected 0 or more"),
    ],
)
def test_a_range_that_is_none_is_said(wrong, said):
    with pytest.raises(ConfigError, match=rf"^augment\.{said}"):
        AugmentSpec(**wrong)
