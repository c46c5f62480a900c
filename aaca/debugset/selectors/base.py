"""`Selector`, the role of the `selector` config group: which K images of a class go into the debug set."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from aaca.data.features import Scored


@dataclass(frozen=True)
class SelectionContext:
    """What a selector may look at besides the candidates, for one class. Nothing of any test split is ever in here."""

    label: int  # the class at hand
    failures: Scored  # audit images of the class that the model gets wrong
    audit: Scored  # all audit images of the class
    train: Scored | None  # training images of the class; only for selectors with `needs_train`
    seed: int  # differs per (run seed, class)


@dataclass(frozen=True)
class Selection:
    """Positions into the candidates `[k]`, best first, and their scores `[k]` (larger was preferred)."""

    positions: np.ndarray
    scores: np.ndarray


class Selector(ABC):
    """Scores the candidates of one class (larger is preferred) and picks the best K; ties go to the smaller id."""

    mc_samples: int = 1  # stochastic forward passes the candidates need (T); 1 = the plain deterministic logits
    needs_train: bool = False  # whether `SelectionContext.train` has to be there

    @abstractmethod
    def score(self, candidates: Scored, context: SelectionContext) -> np.ndarray:
        """One number a candidate, `[n]` float64; larger is preferred. Reads the candidates in chunks."""

    def select(self, candidates: Scored, context: SelectionContext, k: int) -> Selection:
        """The K best candidates by score; all of them where there are fewer than K."""
        scores = self.score(candidates, context)
        positions = top_k(scores, candidates.ids, k)
        return Selection(positions, scores[positions])


def top_k(scores: np.ndarray, ids: np.ndarray, k: int) -> np.ndarray:
    """Positions of the k largest scores, best first; equal scores in the order of their ids. Exact, O(n + k log k)."""
    k = min(k, len(scores))
    if k == 0:
        return np.empty(0, dtype=np.int64)
    threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
    candidates = np.flatnonzero(scores >= threshold)
    order = np.lexsort((ids[candidates].astype(str), -scores[candidates]))
    return candidates[order[:k]]
