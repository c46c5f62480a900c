"""Selectors by uncertainty: entropy (S-Active-Learning), margin, least confidence."""

from abc import abstractmethod

import numpy as np

from aaca.data.features import Scored
from aaca.debugset.selectors.base import ScoringSelector, SelectionContext, map_chunks
from aaca.runtime.errors import ConfigError, DataError


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, `[..., C]` float64."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=-1, keepdims=True)
    np.exp(shifted, out=shifted)
    shifted /= shifted.sum(axis=-1, keepdims=True)
    return shifted


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """−Σ p ln p over the last axis, in nats; 0 ln 0 = 0."""
    positive = np.where(probabilities > 0, probabilities, 1.0)
    return -(probabilities * np.log(positive)).sum(axis=-1)


def pass_probabilities(chunk: Scored, mc_samples: int) -> np.ndarray:
    """Softmax of each pass, `[n, T, C]`; T = 1 is the deterministic one. Raises `DataError` if there are not T."""
    if mc_samples == 1:
        return softmax(chunk.logits)[:, None]
    passes = chunk.passes
    if passes is None or passes.shape[1] != mc_samples:
        held = 0 if passes is None else passes.shape[1]
        raise DataError(f"selector.mc_samples: {mc_samples} stochastic passes expected, the candidates hold {held}")
    return softmax(passes)


class Uncertainty(ScoringSelector):
    """Scores the class probabilities p̄ averaged over `mc_samples` stochastic passes (1: one deterministic pass)."""

    def __init__(self, mc_samples: int = 1) -> None:
        if mc_samples < 1:
            raise ConfigError(f"selector.mc_samples: {mc_samples} passes; expected 1 or more")
        self.mc_samples = mc_samples

    def score(self, candidates: Scored, context: SelectionContext) -> np.ndarray:
        """The uncertainty of p̄, `[n]`."""
        return map_chunks(
            candidates, lambda chunk: self.uncertainty(pass_probabilities(chunk, self.mc_samples).mean(axis=1))
        )

    @abstractmethod
    def uncertainty(self, probabilities: np.ndarray) -> np.ndarray:
        """`[n]` of probabilities `[n, C]`; larger is less certain."""


class Entropy(Uncertainty):
    """S-Active-Learning: largest predictive entropy H(p̄), in nats (Gal et al. 2017, Max Entropy)."""

    def uncertainty(self, probabilities: np.ndarray) -> np.ndarray:
        """H(p̄), `[n]` in [0, ln C]."""
        return entropy(probabilities)


class Margin(Uncertainty):
    """Smallest gap between the two most probable classes."""

    def uncertainty(self, probabilities: np.ndarray) -> np.ndarray:
        """Second largest minus largest probability, `[n]` in [−1, 0]."""
        top_two = np.partition(probabilities, probabilities.shape[1] - 2, axis=1)[:, -2:]
        return top_two[:, 0] - top_two[:, 1]


class LeastConfidence(Uncertainty):
    """Smallest probability of the predicted class."""

    def uncertainty(self, probabilities: np.ndarray) -> np.ndarray:
        """1 − max p̄, `[n]`."""
        return 1.0 - probabilities.max(axis=1)
