"""`PrototypeBank`: K centres of each class's activations, moved slowly, in checkpoints (Concept Distillation, a7)."""

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor, nn

from aaca.runtime.errors import ConfigError, DataError


class PrototypeBank(nn.Module):
    """Prototypes `[C, K, D]` by K-means within a class; a refresh mixes α of the new ones into the old ones.

    Clusters are not matched between refreshes: the concept loss sees only the mean of a class's centres.
    """

    prototypes: Tensor
    centres: Tensor
    filled: Tensor

    def __init__(self, n_classes: int, size: int, k: int = 7, alpha: float = 0.3, seed: int = 0) -> None:
        super().__init__()
        if k < 1:
            raise ConfigError(f"repair.prototypes: {k}; expected 1 or more")
        if not 0 <= alpha <= 1:
            raise ConfigError(f"repair.alpha: {alpha}; expected 0…1")
        self.k, self.alpha, self.seed = k, alpha, seed
        self.register_buffer("prototypes", torch.zeros(n_classes, k, size))
        self.register_buffer("centres", torch.zeros(n_classes, size))  # the mean of a class's prototypes
        self.register_buffer("filled", torch.tensor(False))

    @torch.no_grad()
    def refresh(self, activations: Tensor, labels: Tensor) -> None:
        """Fit to activations `[N, D]` of training images; the first time as they are, later mixed by α.

        Raises `DataError` for a class with fewer than K images.
        """
        values, classes = activations.cpu().double().numpy(), labels.cpu().numpy()
        found = np.stack([self._centres(values[classes == label], label) for label in range(len(self.prototypes))])
        new = torch.from_numpy(found).to(self.prototypes)
        self.prototypes.copy_(torch.lerp(self.prototypes, new, self.alpha) if bool(self.filled) else new)
        self.centres.copy_(self.prototypes.mean(dim=1))
        self.filled.fill_(True)

    def _centres(self, values: np.ndarray, label: int) -> np.ndarray:
        if len(values) < self.k:
            raise DataError(f"repair.prototypes: {self.k}, but class {label} has {len(values)} images")
        if self.k == 1:
            return np.asarray(values.mean(axis=0, keepdims=True))
        return np.asarray(KMeans(self.k, n_init=1, random_state=self.seed).fit(values).cluster_centers_)
