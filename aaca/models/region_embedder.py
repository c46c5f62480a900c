"""A classifier's backbone as a describer of regions: the mean of its feature map, and of the map's centre."""

import numpy as np
import torch
from torch import Tensor

from aaca.models.classifier import Classifier
from aaca.runtime.errors import AacaError


class RegionEmbedder:
    """Crops uint8 `[N, S, S, 3]` (S is the classifier's image size) to vectors `[N, 2 D]` float32.

    The first D numbers are the mean of the last feature map, the others the mean of its central half: a crop's corners
    show what is behind a thing. Raises `AacaError` for a backbone without a square feature map.
    """

    def __init__(self, classifier: Classifier, batch_size: int = 256, device: str = "cpu") -> None:
        self.classifier = classifier.to(device).eval()
        self.batch_size, self.device = batch_size, device

    @torch.no_grad()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        """The vectors of these crops."""
        parts = [images[start : start + self.batch_size] for start in range(0, len(images), self.batch_size)]
        return np.concatenate([self._embed(part) for part in parts])

    def _embed(self, images: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2).float() / 255
        mean, std = (torch.tensor(value, device=self.device).view(3, 1, 1) for value in self._scale())
        maps = self._map(self.classifier.backbone.forward_features((pixels - mean) / std))
        side = maps.shape[-1]
        inner = maps[..., side // 4 : side - side // 4, side // 4 : side - side // 4]
        vectors: np.ndarray = torch.cat([maps.mean((2, 3)), inner.mean((2, 3))], 1).float().cpu().numpy()
        return vectors

    def _scale(self) -> tuple[list[float], list[float]]:
        return self.classifier.mean, self.classifier.std

    def _map(self, features: Tensor) -> Tensor:
        """The feature map `[N, D, s, s]` of a convolutional network, or of a transformer's patch tokens."""
        if features.ndim == 4:
            return features
        tokens = features[:, getattr(self.classifier.backbone, "num_prefix_tokens", 0) :]
        side = round(tokens.shape[1] ** 0.5)
        if features.ndim != 3 or side**2 != tokens.shape[1]:
            raise AacaError(f"model: features of shape {tuple(features.shape)} are no square map; choose another model")
        return tokens.transpose(1, 2).reshape(len(tokens), -1, side, side)
