"""The composite of AACA's released selection step: uncertain, and far from (or near to) the class's mean failure."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from aaca.data.features import Scored
from aaca.debugset.selectors.base import ScoringSelector, SelectionContext, map_chunks
from aaca.debugset.selectors.distance import failure_embeddings, nearest_squared_distance
from aaca.debugset.selectors.uncertainty import entropy, softmax
from aaca.runtime.errors import ConfigError, nearest

Sign = Literal["near", "far"]


class EntropyDistance(ScoringSelector):
    """w₀·H + w₁·d: entropy H and squared L2 distance d to the mean failure, each min-max normalised within the class.

    `distance: far` adds d, `near` adds 1 − d. Where all candidates are equal in one of them, it counts 0.
    """

    def __init__(self, weights: Sequence[float] = (0.5, 0.5), distance: Sign = "near") -> None:
        if len(weights) != 2 or min(weights) < 0 or sum(weights) <= 0:
            raise ConfigError(f"selector.weights: {list(weights)}; expected two numbers ≥ 0, one of them > 0")
        if distance not in get_args(Sign):
            raise ConfigError(f"selector.distance: {distance!r}; {nearest(distance, get_args(Sign))}")
        self.weights = tuple(weights)
        self.distance = distance

    def score(self, candidates: Scored, context: SelectionContext) -> np.ndarray:
        """The weighted sum, `[n]`."""
        uncertainty = map_chunks(candidates, lambda chunk: entropy(softmax(chunk.logits)))
        centre = failure_embeddings(context, l2_normalize=False).mean(axis=0, keepdims=True)
        distance = nearest_squared_distance(candidates, centre, l2_normalize=False)
        if self.distance == "near":
            np.negative(distance, out=distance)  # min-max of −d is 1 − min-max of d
        return self.weights[0] * min_max(uncertainty) + self.weights[1] * min_max(distance)


def min_max(values: np.ndarray) -> np.ndarray:
    """`values` moved and scaled to [0, 1], `[n]`; zeros where they are all equal."""
    low, high = (values.min(), values.max()) if len(values) else (0.0, 0.0)
    return (values - low) / (high - low) if high > low else np.zeros_like(values)
