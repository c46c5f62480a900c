"""How good a decomposition into albedo R and shading S is, and whether each part minds only what it should.

All take tensors `[N, C, S, S]` in 0…1 and work in their precision.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

TINY = 1e-12
"""Energy below which a prediction is black: no scale can make anything of it."""


def scale_invariant_mse(predicted: Tensor, truth: Tensor) -> Tensor:
    """Mean squared error of each image, `[N]`, after the scale that suits it best: min over α of mean (α·p − t)²."""
    p, t = predicted.flatten(1), truth.flatten(1)
    scale = (p * t).sum(dim=1) / p.square().sum(dim=1).clamp(min=TINY)
    return (scale[:, None] * p - t).square().mean(dim=1)


def lmse(predicted: Tensor, truth: Tensor, window: int = 20, step: int = 10) -> Tensor:
    """Local mean squared error of each image, `[N]` (Grosse et al. 2009): each window gets a scale of its own.

    Σ over windows of min over α of ‖α·p − t‖², divided by Σ ‖t‖²: 0 is perfect, a black prediction gets 1. One scale
    serves all channels of a window. A window is at most the image.
    """
    side = min(window, *truth.shape[-2:])
    p, t = (F.unfold(values, side, stride=step) for values in (predicted, truth))  # [N, C·w², windows]
    scale = (p * t).sum(dim=1) / p.square().sum(dim=1).clamp(min=TINY)
    return (scale[:, None] * p - t).square().sum(dim=(1, 2)) / t.square().sum(dim=(1, 2)).clamp(min=TINY)


def ssim(predicted: Tensor, truth: Tensor) -> float:
    """Mean structural similarity, 11 × 11 Gaussian window."""
    found = structural_similarity_index_measure(predicted, truth, data_range=1.0)
    assert isinstance(found, Tensor)
    return float(found)


def constant_albedo_floor(images: Tensor) -> float:
    """The least mean squared error of R · S against `images` that a predictor with one colour R an image can have.

    Colour times grey is a matrix of rank 1 (pixels × channels), so it is what the largest singular value leaves
    (Eckart and Young). A predictor above it has learned nothing that makes its insensitivity worth a word.
    """
    pixels = images.flatten(2).double()  # [N, 3, P]
    energies = torch.linalg.eigvalsh(pixels @ pixels.transpose(1, 2))  # ascending
    return float((energies[:, :-1].clamp(min=0).sum(dim=1) / pixels[0].numel()).mean())


def variance_within(groups: Tensor) -> float:
    """Variance over the members of a group, `[G, M, C, S, S]`, mean over groups, channels and pixels."""
    return float(groups.double().var(dim=1, correction=0).mean())


def sensitivity(ignored: Tensor, wanted: Tensor) -> float:
    """Variance where a branch should stand still over that where it should move: 0 is perfect, NaN if it never moves.

    Of R: predictions across Δ_i (light) over those across Δ_a (albedo); of S the reverse. `[G, M, C, S, S]` each.
    """
    moves = variance_within(wanted)
    return variance_within(ignored) / moves if moves > TINY else math.nan


def decomposition_metrics(
    albedo: Tensor, shading: Tensor, true_albedo: Tensor, true_shading: Tensor
) -> dict[str, float]:
    """Every error of predicted R and S; `collapsed` is 1 where a constant R could reconstruct as well (else 0)."""
    image = true_albedo * true_shading
    reconstruction, floor = float(F.mse_loss(albedo * shading, image)), constant_albedo_floor(image)
    found = {"reconstruction": reconstruction, "floor": floor, "collapsed": float(reconstruction >= floor)}
    for name, predicted, truth in (("r", albedo, true_albedo), ("s", shading, true_shading)):
        found[f"mse_{name}"] = float(F.mse_loss(predicted, truth))
        found[f"ssim_{name}"] = ssim(predicted, truth)
        found[f"si_mse_{name}"] = float(scale_invariant_mse(predicted, truth).mean())
        found[f"lmse_{name}"] = float(lmse(predicted, truth).mean())
    return found
