"""`Quotas`: every prompt keeps its share of the debug set, whatever the selector would rather have."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from aaca.data.features import Scored
from aaca.debugset.generators.base import shared_out
from aaca.debugset.selectors.base import Selection, SelectionContext, Selector


@dataclass(frozen=True)
class Quotas:
    """What was asked for: candidate's id → its group, and (class, group) → how many images were asked for."""

    group_of: Mapping[str, str]
    asked: Mapping[tuple[int, str], int]

    @classmethod
    def by(cls, column: str, frame: pd.DataFrame) -> "Quotas":
        """Of a table of all images that were asked for, dropped ones included, by the values of a column."""
        asked = frame.groupby(["label", column]).size()
        return cls(
            dict(zip(frame["id"], frame[column], strict=True)),
            {(int(label), str(group)): int(count) for (label, group), count in asked.items()},
        )

    def select(self, selector: Selector, pool: Scored, context: SelectionContext, k: int) -> Selection:
        """As `Selector.select`, group by group; what a group cannot give, the selector picks from all that is left."""
        groups = np.array([self.group_of[pool.ids_all[row]] for row in pool.rows], dtype=object)
        names = sorted(group for label, group in self.asked if label == context.label)
        shares = shared_out(min(k, len(pool)), [self.asked[context.label, name] for name in names])
        positions, scores = np.empty(0, dtype=np.int64), np.empty(0)
        for name, share in zip(names, shares, strict=True):
            positions, scores = _more(selector, pool, context, share, groups == name, positions, scores)
        left = np.ones(len(pool), dtype=bool)
        left[positions] = False
        missing = min(k, len(pool)) - len(positions)
        positions, scores = _more(selector, pool, context, missing, left, positions, scores)
        order = np.argsort(-scores, kind="stable")
        return Selection(positions[order], scores[order])


def _more(
    selector: Selector,
    pool: Scored,
    context: SelectionContext,
    k: int,
    allowed: np.ndarray,
    positions: np.ndarray,
    scores: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    members = np.flatnonzero(allowed)
    if k <= 0 or not len(members):
        return positions, scores
    picked = selector.select(pool.take(members), context, k)
    return np.concatenate([positions, members[picked.positions]]), np.concatenate([scores, picked.scores])
