"""V1: on a network that is known, images of neurons do what they should (thresholds of specs/neuroinspect, g)."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from aaca.concepts.illusion.augment import AugmentSpec
from aaca.training.illusion_painter import Illusion, IllusionSpec, Painter
from tests.shape_toys import inputs, requests_on, shape_images, trained_on_shapes

NEURONS, STEPS = range(0, 64, 4), 200
SETTINGS = {
    "fourier": {},
    "fourier, γ = 0": {"class_gamma": 0.0},
    "pixel": {"param": "pixel"},
    "fourier, no augmentation": {"augment": AugmentSpec.off()},
    "fourier, wrong class": {},
}


def high_share(images: Tensor) -> float:
    """Share of the energy (without the mean) above a quarter of a cycle a pixel."""
    energy = torch.fft.fft2(images).abs().pow(2)
    energy[..., 0, 0] = 0
    f = torch.fft.fftfreq(images.shape[-1])
    high = torch.hypot(f[:, None], f[None]) > 0.25
    return float((energy * high).sum() / energy.sum())


def row(found: list[Illusion], quantiles: Tensor) -> dict[str, float]:
    before, after = (
        torch.tensor([getattr(one, f"activation_{when}") for one in found]) for when in ("before", "after")
    )
    return {
        "start": float(before.mean()),
        "end": float(after.mean()),
        "of q99": float((after / quantiles).median()),
        "above": float((after > quantiles).float().mean()),
        "probability": sum(one.probability for one in found) / len(found),
        "high": high_share(torch.stack([one.image for one in found])),
    }


@pytest.fixture(scope="module")
def table():
    classifier, quantiles = trained_on_shapes()
    aligned, conflicting = (shape_images(400, seed, share) for seed, share in ((1, 1.0), (2, 0.0)))
    with torch.no_grad():
        right = [
            float((classifier(inputs(classifier, images)).argmax(1) == torch.from_numpy(labels)).float().mean())
            for images, labels in (aligned, conflicting)
        ]
    print(f"\naccuracy aligned {right[0]:.2f}, conflicting {right[1]:.2f}")
    assert right[0] > 0.95
    classifier.requires_grad_(False)
    weight = classifier.head.weight
    found = {}
    for name, changes in SETTINGS.items():
        labels = [int(weight[:, n].argmin() if "wrong" in name else weight[:, n].argmax()) for n in NEURONS]
        spec = replace(IllusionSpec(iterations=STEPS), **changes)
        paint = Painter(classifier, spec, None, None, None, torch.device("cpu"))
        found[name] = row(paint(requests_on(list(zip(NEURONS, labels, strict=True)))), quantiles[list(NEURONS)])
        print(f"{name:26s}", "  ".join(f"{key} {value:.3f}" for key, value in found[name].items()))
    return found


@pytest.mark.slow
def test_neurons_fire_more_than_on_data(table):
    assert table["fourier"]["end"] >= 3 * table["fourier"]["start"]
    assert table["fourier"]["above"] >= 0.9


@pytest.mark.slow
def test_the_class_term_makes_the_image_one_of_the_class(table):
    assert table["fourier"]["probability"] >= table["fourier, γ = 0"]["probability"] + 0.15


@pytest.mark.slow
def test_fourier_beats_pixels_and_is_smoother(table):
    assert table["fourier"]["end"] > table["pixel"]["end"]
    assert table["fourier"]["high"] < table["pixel"]["high"] / 2
