"""Data-centric debugging: retrieve the candidates nearest to single failures (Singla et al., arXiv 2211.09859)."""

import numpy as np

from aaca.data.features import Scored
from aaca.debugset.selectors.base import ScoringSelector, SelectionContext
from aaca.debugset.selectors.distance import failure_embeddings, nearest_squared_distance


class NearestFailure(ScoringSelector):
    """Smallest min_e ‖z − z_e‖² over the class's failures e; without failures, to the mean of its audit images."""

    def __init__(self, l2_normalize: bool = True) -> None:
        self.l2_normalize = l2_normalize

    def score(self, candidates: Scored, context: SelectionContext) -> np.ndarray:
        """Minus the squared distance to the nearest failure, `[n]`."""
        return -nearest_squared_distance(candidates, failure_embeddings(context, self.l2_normalize), self.l2_normalize)
