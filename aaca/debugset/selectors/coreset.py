"""Core-set: candidates that cover what the training set does not (Sener & Savarese 2018, k-centre greedy)."""

import numpy as np

from aaca.data.features import Scored
from aaca.debugset.selectors.base import Selection, SelectionContext, Selector, by_id
from aaca.debugset.selectors.distance import EmbeddingBlocks, embeddings, nearest_squared_distance
from aaca.runtime.errors import DataError


class CoreSet(Selector):
    """Takes, again and again, the candidate farthest from all training images of the class and all taken before it.

    Keeps one distance a candidate, never a matrix of candidates × candidates; reads the pool once a pick.
    """

    needs_train = True

    def __init__(self, l2_normalize: bool = False) -> None:
        self.l2_normalize = l2_normalize

    def select(self, candidates: Scored, context: SelectionContext, k: int) -> Selection:
        """K candidates in the order taken; the score is the squared distance to the nearest centre at that moment."""
        if context.train is None or not len(context.train):
            raise DataError(
                f"class {context.name} has no training images; coreset starts from them, expected at least 1"
            )
        pool, positions = by_id(candidates)
        centres = embeddings(by_id(context.train)[0], self.l2_normalize)
        distance = nearest_squared_distance(pool, centres, self.l2_normalize)
        blocks = EmbeddingBlocks(pool, self.l2_normalize)
        picks = np.empty(min(k, len(pool)), dtype=np.int64)
        scores = np.empty(len(picks))
        for turn in range(len(picks)):
            pick = picks[turn] = int(distance.argmax())  # the first of equals: rows stand in id order
            scores[turn] = distance[pick]
            distance[pick] = -np.inf
            centre = blocks.row(pick)
            for where, block in blocks:
                difference = block - centre
                np.minimum(distance[where], np.einsum("nd,nd->n", difference, difference), out=distance[where])
        return Selection(positions[picks], scores)
