"""Names that may mean the same: proposals by how near their texts are, for a person to accept (`votes.merge`)."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from aaca.annotate.task import Answer
from aaca.concepts.concept_sets import normal

NEAR = 0.9
"""Cosine of two names' texts from which on they are proposed as one (AACA)."""
COLUMNS = ("name", "counts_as", "cosine", "said", "said_other")


def names_said(answers: Sequence[Answer]) -> dict[str, int]:
    """Every name in the answers, as it is counted, and how often it was said; the most frequent first."""
    counts: dict[str, int] = {}
    for answer in answers:
        for name in {normal(name) for name in (answer.content, *answer.valid) if name}:
            counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))


def proposals(said: dict[str, int], vectors: np.ndarray, near: float = NEAR) -> pd.DataFrame:
    """Pairs of names whose unit vectors `[V, D]` (in the order of `said`) have a cosine above `near`, nearest first.

    The name that was said less often counts as the other. Nothing is merged by this table alone.
    """
    names = list(said)
    cosines = vectors @ vectors.T
    rows = [
        (names[second], names[first], float(cosines[first, second]), said[names[second]], said[names[first]])
        for first in range(len(names))
        for second in range(first + 1, len(names))
        if cosines[first, second] > near
    ]
    return pd.DataFrame(sorted(rows, key=lambda row: -row[2]), columns=list(COLUMNS))
