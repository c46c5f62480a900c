"""S-Similarity: candidates nearest to where the model fails on the class."""

import logging
from typing import Literal, get_args

import numpy as np

from aaca.data.features import Scored
from aaca.debugset.selectors.base import ScoringSelector, SelectionContext
from aaca.debugset.selectors.clusters import kmeans
from aaca.debugset.selectors.distance import failure_embeddings, nearest_squared_distance
from aaca.runtime.errors import ConfigError, nearest

log = logging.getLogger(__name__)
Reduce = Literal["mean", "min", "kmeans"]


class Similarity(ScoringSelector):
    """Smallest squared L2 distance to the class's failures: to their mean, to the nearest one, or to the nearest mode.

    A class without failures is compared with the mean of its audit images (logged as a warning).
    """

    def __init__(self, reduce: Reduce = "mean", modes: int = 3, l2_normalize: bool = False) -> None:
        if reduce not in get_args(Reduce):
            raise ConfigError(f"selector.reduce: {reduce!r}; {nearest(reduce, get_args(Reduce))}")
        if modes < 1:
            raise ConfigError(f"selector.modes: {modes} error modes; expected 1 or more")
        self.reduce = reduce
        self.modes = modes
        self.l2_normalize = l2_normalize

    def score(self, candidates: Scored, context: SelectionContext) -> np.ndarray:
        """Minus the squared distance, `[n]`."""
        return -nearest_squared_distance(candidates, self.centres(context), self.l2_normalize)

    def centres(self, context: SelectionContext) -> np.ndarray:
        """What the candidates are compared with, `[m, D]`."""
        failures = failure_embeddings(context, self.l2_normalize)
        if self.reduce == "mean":
            return failures.mean(axis=0, keepdims=True)
        if self.reduce == "min":
            return failures
        centres, _ = kmeans(failures, self.modes, context.seed, n_init=10)
        if len(centres) < self.modes:
            log.warning("class %s has %d distinct failures for %d modes", context.name, len(centres), self.modes)
        return centres
