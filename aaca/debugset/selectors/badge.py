"""BADGE: uncertain and diverse candidates, by k-means++ on hypothetical gradients (Ash et al. 2020)."""

import numpy as np

from aaca.data.features import Scored
from aaca.debugset.selectors.base import Selection, SelectionContext, Selector, by_id
from aaca.debugset.selectors.uncertainty import softmax

ROUNDING = 1e-12
"""Squared distances below this part of the squared lengths are rounding: the two gradients are equal."""


class Badge(Selector):
    """k-means++ seeding on g = (p − onehot(ŷ)) ⊗ z, the last layer's gradient if the prediction ŷ were the label.

    Inner products factorise, g·g' = (a·a')(z·z'), so memory is O(n (C + D)), never O(n C D).
    The first pick is the longest gradient; each next one is drawn with probability ∝ squared distance to the picks.
    """

    def select(self, candidates: Scored, context: SelectionContext, k: int) -> Selection:
        """K candidates in the order taken; the score is the squared distance at that moment (first: squared length)."""
        pool, positions = by_id(candidates)
        embedding = pool.embeddings.astype(np.float64)
        residual = softmax(pool.logits)
        residual[np.arange(len(pool)), residual.argmax(axis=1)] -= 1.0
        length = np.einsum("nd,nd->n", embedding, embedding) * np.einsum("nc,nc->n", residual, residual)
        generator = np.random.default_rng(context.seed)
        distance = np.full(len(pool), np.inf)
        picks = np.empty(min(k, len(pool)), dtype=np.int64)
        scores = np.empty(len(picks))
        for turn in range(len(picks)):
            pick = picks[turn] = length.argmax() if turn == 0 else draw(distance, generator)
            scores[turn] = length[pick] if turn == 0 else distance[pick]
            to_pick = length + length[pick] - 2.0 * (embedding @ embedding[pick]) * (residual @ residual[pick])
            to_pick[to_pick < ROUNDING * (length + length[pick])] = 0.0
            np.minimum(distance, to_pick, out=distance)
            distance[pick] = -1.0  # taken
        return Selection(positions[picks], scores)


def draw(weights: np.ndarray, generator: np.random.Generator) -> int:
    """A position with probability ∝ its weight; where no positive weight is left, the first of weight 0."""
    cumulated = np.cumsum(np.maximum(weights, 0.0))
    if cumulated[-1] <= 0.0:
        return int(np.argmax(weights))
    # `right` skips positions of weight 0, whose cumulated weight equals that of the one before
    position = np.searchsorted(cumulated, generator.random() * cumulated[-1], side="right")
    return int(min(position, np.flatnonzero(weights > 0.0)[-1]))  # the product may round up to the whole sum
