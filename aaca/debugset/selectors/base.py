"""`Selector`, the role of the `selector` config group: which K images of a class go into the debug set."""

import heapq
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from aaca.data.features import Scored
from aaca.runtime.errors import DataError


@dataclass(frozen=True)
class SelectionContext:
    """What a selector may look at besides the candidates, for one class. Nothing of any test split is ever in here."""

    label: int  # the class at hand
    failures: Scored  # audit images of the class that the model gets wrong
    audit: Scored  # all audit images of the class
    train: Scored | None  # training images of the class; only for selectors with `needs_train`
    seed: int  # differs per (run seed, class)
    class_name: str = ""  # for messages

    @property
    def name(self) -> str:
        """The class as messages call it."""
        return repr(self.class_name) if self.class_name else str(self.label)


@dataclass(frozen=True)
class Selection:
    """Positions into the candidates `[k]`, best first, and their scores `[k]` (larger was preferred)."""

    positions: np.ndarray
    scores: np.ndarray


class Selector(ABC):
    """Picks K candidates of one class. The pick depends on ids, values and seed, never on the order of the rows."""

    mc_samples: int = 1  # stochastic forward passes the candidates need (T); 1 = the plain deterministic logits
    needs_features: bool = True  # whether embeddings and logits of the candidates are read
    needs_train: bool = False  # whether `SelectionContext.train` has to be there

    @abstractmethod
    def select(self, candidates: Scored, context: SelectionContext, k: int) -> Selection:
        """The K preferred candidates, best first; all of them where there are fewer than K."""


class ScoringSelector(Selector):
    """A selector that judges every candidate on its own: the best K by score, equal scores by the smaller id."""

    @abstractmethod
    def score(self, candidates: Scored, context: SelectionContext) -> np.ndarray:
        """One number a candidate, `[n]` float64; larger is preferred. Reads the candidates in chunks."""

    def select(self, candidates: Scored, context: SelectionContext, k: int) -> Selection:
        """The K best candidates by score; all of them where there are fewer than K."""
        scores = self.score(candidates, context)
        positions = top_k(scores, candidates.ids, k)
        return Selection(positions, scores[positions])


def top_k(scores: np.ndarray, ids: np.ndarray, k: int) -> np.ndarray:
    """Positions of the k largest scores, best first; equal scores in the order of their ids.

    Exact, O(n log k), memory O(n) numbers whatever the ties. Raises `DataError` on a NaN score.
    """
    k = min(k, len(scores))
    if k <= 0:
        return np.empty(0, dtype=np.int64)
    if np.isnan(scores).any():
        first = int(np.flatnonzero(np.isnan(scores))[0])
        raise DataError(f"selector: the score of {ids[first]} is NaN; expected finite embeddings and logits")
    threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
    above = np.flatnonzero(scores > threshold)
    # Millions of equal scores are possible (a saturated softmax), so ties are walked one by one, not sorted.
    tied = heapq.nsmallest(k - len(above), np.flatnonzero(scores == threshold), key=lambda position: str(ids[position]))
    best = sorted(above.tolist(), key=lambda position: (-scores[position], str(ids[position])))
    return np.array([*best, *tied], dtype=np.int64)


def map_chunks(candidates: Scored, function: Callable[[Scored], np.ndarray]) -> np.ndarray:
    """`function` (`[m]` numbers of a chunk of m rows) over all candidates, `[n]` float64, in bounded memory."""
    values = np.empty(len(candidates), dtype=np.float64)
    start = 0
    for chunk in candidates.chunks():
        values[start : start + len(chunk)] = function(chunk)
        start += len(chunk)
    return values


def by_id(scored: Scored) -> tuple[Scored, np.ndarray]:
    """The rows in the order of their ids, and their positions `[n]` in `scored`: makes a greedy pick repeatable."""
    ids = scored.ids
    order = np.array(sorted(range(len(ids)), key=lambda position: str(ids[position])), dtype=np.int64)
    return scored.take(order), order
