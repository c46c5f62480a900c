"""Parameters and their images, against numpy's transforms and the formulas written out."""

import math

import numpy as np
import pytest
import torch

from aaca.concepts.illusion.parameters import COLOURS, Fourier, Maco, Pixel, frequencies, image_parameters
from aaca.concepts.illusion.spectrum import mean_spectrum
from aaca.runtime.errors import ConfigError, DataError

SPACING = math.sqrt(0.5)
KINDS = ("fourier", "pixel", "maco")


def images(n=6, size=16, seed=0):
    """Smooth colour noise as uint8."""
    rng = np.random.default_rng(seed)
    rough = rng.normal(size=(n, size, size, 3))
    smooth = sum(np.roll(rough, (i, j), axis=(1, 2)) for i in range(3) for j in range(3)) / 3
    return (255 / (1 + np.exp(-(smooth @ rng.normal(size=(3, 3)))))).round().astype(np.uint8)


def canvas(kind, size=16):
    return image_parameters(kind, size, 1e-3, 0.75, mean_spectrum(images(size=size)))


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


def coloured(plane):
    """Independent directions `[B, 3, S, S]` to RGB, lucid's constant written out."""
    matrix = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])
    matrix = matrix / max(math.sqrt(sum(row[column] ** 2 for row in matrix)) for column in range(3))
    return np.stack([sum(matrix[r, c] * plane[:, c] for c in range(3)) for r in range(3)], axis=1)


@pytest.mark.parametrize(("size", "decay"), [(16, 0.75), (9, 0.75), (8, 0.5)])
def test_fourier_is_numpy_s_inverse_transform_of_the_scaled_spectrum(size, decay):
    rng = np.random.default_rng(1)
    parts = rng.normal(size=(2, 3, size, size // 2 + 1, 2)).astype(np.float32)
    scaled = (parts[..., 0] + 1j * parts[..., 1]).astype(np.complex128)
    for u in range(size):
        for v in range(size // 2 + 1):
            down = (u if u < (size + 1) // 2 else u - size) / (size * SPACING)
            if size % 2 == 0 and u == size // 2:
                down = 0.5 / SPACING
            f = math.hypot(down, v / (size * SPACING))
            scaled[:, :, u, v] /= max((f * f) ** decay, 1 / (size * SPACING))
    expected = sigmoid(coloured(np.fft.irfft2(scaled, s=(size, size), norm="ortho")))
    found = Fourier(size, 1e-3, decay).to_images(torch.from_numpy(parts))
    assert found.dtype == torch.float32 and found.shape == (2, 3, size, size)
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-6)
    assert expected.std() > 0.05


def test_every_coefficient_of_the_spectrum_matters_also_those_at_half_the_pixel_rate():
    fourier = Fourier(8, 1.0, 0.75)
    parameters = fourier.start([0])
    weights = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    (fourier.to_images(parameters) * weights).sum().backward()
    assert bool((parameters.grad[..., 0].abs() > 1e-7).all())


def test_frequencies_are_numpy_s():
    expected = np.hypot(np.fft.fftfreq(12, SPACING)[:, None], np.fft.rfftfreq(12, SPACING)[None])
    np.testing.assert_allclose(frequencies(12).numpy(), expected, atol=1e-7)


def test_the_amplitude_of_a_start_image_falls_with_frequency_as_the_formula_says():
    fourier = Fourier(32, 1e-3, 0.75)
    plane = torch.special.logit(fourier.to_images(fourier.start(range(200))).detach().double())
    matrix = torch.tensor(COLOURS, dtype=torch.float64)
    directions = torch.einsum("cr,bryx->bcyx", torch.linalg.inv(matrix / matrix.norm(dim=0).max()), plane)
    amplitude = torch.fft.rfft2(directions, norm="ortho").abs().pow(2).mean(dim=(0, 1)).sqrt()
    down, across = np.fft.fftfreq(32, SPACING)[:, None], np.fft.rfftfreq(32, SPACING)[None]
    expected = 1e-3 * math.sqrt(2) / np.maximum(np.hypot(down, across) ** 1.5, 1 / (32 * SPACING))
    ratio = (amplitude.numpy() / expected)[:, 1:-1]  # the outer columns hold only half of the numbers
    assert abs(ratio - 1).max() < 0.2 and abs(ratio.mean() - 1) < 0.01


@pytest.mark.parametrize("size", [32, 64])
def test_start_images_are_nearly_grey(size):
    for kind, spread in (("fourier", 0.003), ("pixel", 3e-4)):
        parameters = image_parameters(kind, size, 1e-3, 0.75).start(range(8))
        found = image_parameters(kind, size, 1e-3, 0.75).to_images(parameters).detach()
        assert abs(float(found.mean()) - 0.5) < 1e-3 and spread / 3 < float(found.std()) < spread
        assert parameters.is_leaf and parameters.requires_grad


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_is_drawn_from_its_own_seed_alone_and_never_mixes_with_others(kind):
    one = canvas(kind)
    together, alone = one.start([3, 8, 3]), one.start([8])
    assert torch.equal(together[1], alone[0]) and torch.equal(together[0], together[2])
    assert not torch.allclose(together[0], together[1])
    one.to_images(together)[1].sum().backward()
    assert bool(together.grad[1].any()) and not bool(together.grad[[0, 2]].any())
    found = one.to_images(together).detach()
    assert float(found.min()) > 0 and float(found.max()) < 1 and found.shape == (3, 3, 16, 16)


@pytest.mark.parametrize("size", [16, 9])
def test_maco_has_exactly_the_magnitude_that_it_was_given(size):
    spectrum = mean_spectrum(images(size=size))
    maco = Maco(size, spectrum)
    plane = maco.plane(maco.start([0, 1])).detach().double().numpy()
    np.testing.assert_allclose(abs(np.fft.rfft2(plane, norm="ortho")), np.stack([spectrum] * 2), atol=2e-6)
    np.testing.assert_allclose(maco.to_images(maco.start([0, 1])).detach(), sigmoid(coloured(plane)), atol=2e-6)
    assert plane[0].std() > 0.1 and abs(plane[0] - plane[1]).max() > 0.1


def test_the_mean_spectrum_is_that_of_the_images_one_by_one():
    shown = images(n=5)
    matrix = np.linalg.inv(coloured(np.eye(3).reshape(3, 3, 1, 1))[:, :, 0, 0].T)
    total = 0.0
    for image in shown:
        shares = (image.astype(np.float64) + 0.5) / 256
        plane = np.einsum("cr,yxr->cyx", matrix, np.log(shares / (1 - shares)))
        total = total + abs(np.fft.rfft2(plane, norm="ortho"))
    expected = total / 5
    expected[:, 0, 0] = 0
    np.testing.assert_allclose(mean_spectrum(shown), expected, rtol=1e-5, atol=1e-6)


def test_maco_with_the_phases_of_an_image_gives_that_image_back_but_for_its_mean_colour():
    shown = images(n=1)
    matrix = np.linalg.inv(coloured(np.eye(3).reshape(3, 3, 1, 1))[:, :, 0, 0].T)
    shares = (shown[0].astype(np.float64) + 0.5) / 256
    plane = np.einsum("cr,yxr->cyx", matrix, np.log(shares / (1 - shares)))
    phase = np.angle(np.fft.rfft2(plane))
    found = Maco(16, mean_spectrum(shown)).plane(torch.from_numpy(phase).float()[None])[0].double().numpy()
    error = np.fft.rfft2(found - plane, norm="ortho")
    error[:, ::8, ::8] = 0  # the constant, and the three more that are their own negatives: their sign is fixed
    assert abs(error).max() < 1e-4


def test_what_does_not_fit_is_said():
    with pytest.raises(ConfigError, match=r"^param: 'maco' .*expected their mean spectrum"):
        image_parameters("maco", 16, 1e-3, 0.75)
    with pytest.raises(ConfigError, match=r"^param: 'wavelet'; expected fourier, pixel or maco"):
        image_parameters("wavelet", 16, 1e-3, 0.75)
    with pytest.raises(DataError, match=r"^spectrum: shape \(3, 16, 9\); expected \(3, 32, 17\)"):
        Maco(32, mean_spectrum(images()))
    for wrong in (images()[:, :8], images()[:0], images().astype(np.float32)):
        with pytest.raises(DataError, match=r"^spectrum: "):
            mean_spectrum(wrong)
    assert isinstance(image_parameters("pixel", 16, 1e-3, 0.75), Pixel)
