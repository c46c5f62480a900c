"""`integrated_gradients` and `smoothgrad`: gradients at the pixels, pooled to cells."""

import numpy as np
import torch
from torch import Tensor

from aaca.discover.attribution.base import Attribution, check_cells, gradients_of, pooled
from aaca.models.classifier import Classifier
from aaca.runtime.errors import ConfigError


class IntegratedGradients(Attribution):
    """(x − x₀) ⊙ ∫ ∇f(x₀ + α(x − x₀)) dα, summed over channels (Sundararajan et al. 2017, eq. 1).

    x₀ is the mean image (zero once normalised); the integral is a Gauss-Legendre sum of `steps` terms.
    """

    def __init__(self, steps: int = 16, cells: int = 8) -> None:
        if steps < 2:
            raise ConfigError(f"attribution.steps: {steps}; expected 2 or more")
        check_cells(cells)
        self.steps, self.side = steps, cells

    def relevance(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Tensor:
        """Relevance `[B, T, cells, cells]`; its sum is near f(x) − f(x₀) over the cells' area."""
        return pooled(self.pixels(classifier, images, targets), self.side)

    def pixels(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Tensor:
        """The same at every pixel, `[B, T, S, S]`."""
        places, weights = np.polynomial.legendre.leggauss(self.steps)
        total = images.new_zeros(targets.shape[1], *images.shape)
        for place, weight in zip((places + 1) / 2, weights / 2, strict=True):
            point = (float(place) * images).requires_grad_()
            for t, (gradient,) in enumerate(gradients_of(classifier(point), targets, [point])):
                total[t] += float(weight) * gradient
        return (total * images).sum(dim=2).transpose(0, 1)

    def cells(self, classifier: Classifier) -> tuple[int, int]:
        """As configured."""
        return self.side, self.side


class SmoothGrad(Attribution):
    """|mean over noisy copies of ∇f|, summed over channels (Smilkov et al. 2017).

    `noise`: standard deviation as a share of the image's range. All images get the same noise, so that a map depends
    on its image alone.
    """

    def __init__(self, samples: int = 16, noise: float = 0.15, cells: int = 8, seed: int = 0) -> None:
        if samples < 1:
            raise ConfigError(f"attribution.samples: {samples}; expected 1 or more")
        if not 0 < noise <= 1:
            raise ConfigError(f"attribution.noise: {noise}; expected a share of the image's range in (0, 1]")
        check_cells(cells)
        self.samples, self.noise, self.side, self.seed = samples, noise, cells, seed

    def relevance(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Tensor:
        """Relevance `[B, T, cells, cells]`."""
        stream = torch.Generator().manual_seed(self.seed)
        spread = self.noise * (images.amax(dim=(1, 2, 3), keepdim=True) - images.amin(dim=(1, 2, 3), keepdim=True))
        total = images.new_zeros(targets.shape[1], *images.shape)
        for _ in range(self.samples):
            noise = torch.randn(1, *images.shape[1:], generator=stream).to(images)
            point = (images + spread * noise).requires_grad_()
            for t, (gradient,) in enumerate(gradients_of(classifier(point), targets, [point])):
                total[t] += gradient / self.samples
        return pooled(total.abs().sum(dim=2).transpose(0, 1), self.side)

    def cells(self, classifier: Classifier) -> tuple[int, int]:
        """As configured."""
        return self.side, self.side
