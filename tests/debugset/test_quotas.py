"""Quotas: each prompt keeps the share that was asked for; what it cannot give is picked from the rest."""

import numpy as np
import pandas as pd
import pytest

from aaca.data.features import Scored
from aaca.debugset.quotas import Quotas
from aaca.debugset.selectors.base import ScoringSelector, SelectionContext

PROMPTS = ["on sand"] * 6 + ["on grass"] * 3 + ["on snow"] * 3


class ByNumber(ScoringSelector):
    """Prefers what came first."""

    def score(self, candidates, context):
        return -np.array([float(name) for name in candidates.ids])


def picked(k, left=range(12)):
    frame = pd.DataFrame({"id": [f"{row:02d}" for row in range(12)], "label": 0, "prompt": PROMPTS})
    left = np.array(list(left))
    logits = np.zeros((12, 2), dtype=np.float32)
    everything = Scored.of(frame["id"].to_numpy(dtype=object), np.zeros(12, dtype=int), logits, logits)
    pool = everything.take(left)
    context = SelectionContext(label=0, failures=pool, audit=pool, train=None, seed=0)
    selection = Quotas.by("prompt", frame).select(ByNumber(), pool, context, k)
    assert (np.diff(selection.scores) <= 0).all()  # best first
    return [int(pool.ids[at]) for at in selection.positions]


def test_every_prompt_keeps_its_share_and_the_selector_picks_within():
    assert picked(4) == [0, 1, 6, 9]  # of 12 asked for: 6, 3, 3


def test_what_the_filters_took_from_a_prompt_is_picked_from_all_others():
    assert picked(8, left=[0, 1, *range(6, 12)]) == [0, 1, 6, 7, 8, 9, 10, 11]
    assert picked(4, left=[*range(6), 11]) == [0, 1, 2, 11]


@pytest.mark.parametrize("k", [12, 100])
def test_all_of_them_where_there_are_no_more(k):
    assert sorted(picked(k)) == list(range(12))
