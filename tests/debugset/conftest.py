"""Small random pools with everything a selector may look at."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from aaca.data.features import Scored
from aaca.debugset.selectors.base import SelectionContext


@dataclass(frozen=True)
class Case:
    candidates: Scored
    context: SelectionContext

    def shuffled(self, seed: int) -> "Case":
        """The same rows in another order, everywhere."""
        order = np.random.default_rng(seed).permutation

        def mix(scored: Scored) -> Scored:
            return scored.take(order(len(scored)))

        context = replace(
            self.context,
            failures=mix(self.context.failures),
            audit=mix(self.context.audit),
            train=mix(self.context.train),
        )
        return Case(mix(self.candidates), context)


def scored(rng: np.random.Generator, prefix: str, n: int, dim: int = 6, classes: int = 5, passes: int = 4) -> Scored:
    """n rows of one class, ids in an order that is neither the rows' nor their numbers'."""
    ids = np.array([f"{prefix}/{number}" for number in rng.permutation(10 * n)[:n]], dtype=object)
    embeddings = rng.normal(size=(n, dim)).astype(np.float32) + 1.0
    logits = rng.normal(scale=2.0, size=(n, classes)).astype(np.float32)
    stochastic = (logits[:, None] + rng.normal(size=(n, passes, classes))).astype(np.float32)
    return Scored.of(ids, np.zeros(n, dtype=np.int64), embeddings, logits, stochastic)


@pytest.fixture
def make_case():
    def make(seed: int = 0, n: int = 60, failures: int = 7, duplicates: bool = False) -> Case:
        rng = np.random.default_rng(seed)
        candidates = scored(rng, "pool", n)
        if duplicates:  # the second half has the values of the first, so every score is a tie of two
            half = n // 2
            for values in (candidates.embeddings_all, candidates.logits_all, candidates.passes_all):
                values[half : 2 * half] = values[:half]
        audit = scored(rng, "audit", 20)
        context = SelectionContext(0, audit.take(np.arange(failures)), audit, scored(rng, "train", 15), seed, "kitchen")
        return Case(candidates, context)

    return make
