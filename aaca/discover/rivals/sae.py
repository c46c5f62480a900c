"""`sae`: named concepts of a sparse autoencoder that separate failures from successes (after DN-CBM, ECCV 2024)."""

from itertools import permutations

import numpy as np
from scipy.sparse import csr_array
from scipy.stats import hypergeom, mannwhitneyu

from aaca.concepts.concept_sets import ConceptKind
from aaca.discover.concepts.vocabulary import Vocabulary
from aaca.discover.rivals.base import Findings, Rival, Suspect, check_most
from aaca.runtime.errors import ConfigError


class SaeConcepts(Rival):
    """Blames concepts that are stronger in failures than in images that f0 gets right, and at home in the rival class.

    A concept is all latents of one name. Per class and rival, a one-sided rank test of each concept that training
    images of the rival show more than those of the class; Benjamini-Hochberg over all tests. Score: Cliff's δ.

    Args:
        most: concepts a class.
        q: false discovery rate.
        least: failures of a (class, rival) without which nothing is said.
        effect: smallest δ.

    """

    needs_clip = True
    needs_codes = True

    def __init__(self, most: int = 5, q: float = 0.1, least: int = 10, effect: float = 0.1) -> None:
        if not 0 < q < 1:
            raise ConfigError(f"discovery.q: {q}; expected between 0 and 1")
        if least < 1:
            raise ConfigError(f"discovery.least: {least}; expected 1 or more")
        if not 0 <= effect < 1:
            raise ConfigError(f"discovery.effect: {effect}; expected 0 or more, below 1")
        self.most, self.q, self.least, self.effect = check_most(most), q, least, effect

    def suspects(self, findings: Findings) -> list[Suspect]:
        """Of every class and rival with enough failures."""
        assert findings.named is not None
        names, kinds = sorted({name for name in findings.named.names if name}), kinds_of()
        audit, train = (
            by_name(codes, findings.named.names, names) for codes in (findings.named.audit, findings.named.train)
        )
        cases: list[tuple[int, int, str]] = []
        found: list[tuple[float, float]] = []
        for label, rival in permutations(range(len(findings.classes)), 2):
            own = findings.labels == label
            right, wrong = (own & (findings.predictions == said) for said in (label, rival))
            if wrong.sum() < self.least or not right.any():
                continue
            at_home, at_rival = (train[findings.train_labels == one].mean(axis=0) for one in (label, rival))
            failures, successes = (audit[rows].tocsc() for rows in (wrong, right))
            for column in np.flatnonzero(at_rival > at_home):
                high, low = (part[:, [column]].toarray()[:, 0] for part in (failures, successes))
                if high.any() or low.any():  # a choice by failures alone would make the tests too sure
                    cases.append((label, rival, names[column]))
                    found.append(stronger(high, low))
        kept = significant(np.asarray([p for _, p in found]), self.q)
        return [
            Suspect(findings.classes[label], findings.classes[rival], name, kinds.get(name, "object"), score)
            for (label, rival, name), (score, _), is_kept in zip(cases, found, kept, strict=True)
            if is_kept and score >= self.effect
        ]


def by_name(codes: csr_array, of: list[str], names: list[str]) -> csr_array:
    """How strongly images `[N]` show each of `names`: the sum over the latents called so, CSR `[N, names]`."""
    columns = {name: column for column, name in enumerate(names)}
    rows = [latent for latent, name in enumerate(of) if name in columns]
    places = (rows, [columns[of[latent]] for latent in rows])
    called = csr_array((np.ones(len(rows), dtype=np.float32), places), shape=(len(of), len(names)))
    return csr_array(codes @ called)


def stronger(high: np.ndarray, low: np.ndarray) -> tuple[float, float]:
    """(Cliff's δ, one-sided p-value) of strengths `[N]` over strengths `[M]`, not all of them zero.

    Where most are zero, the rank test's normal approximation is far too sure: how many are above zero must say so too,
    by Fisher's exact test.
    """
    found = mannwhitneyu(high, low, alternative="greater")
    p, total, shown = float(found.pvalue), len(high) + len(low), np.count_nonzero(high) + np.count_nonzero(low)
    if 2 * shown < total:
        p = max(p, float(hypergeom.sf(np.count_nonzero(high) - 1, total, shown, len(high))))
    return 2 * float(found.statistic) / (len(high) * len(low)) - 1, p


def significant(p_values: np.ndarray, q: float) -> np.ndarray:
    """Which of p-values `[N]` Benjamini-Hochberg keeps at a false discovery rate of q, bool `[N]`."""
    if not len(p_values):
        return np.zeros(0, dtype=bool)
    order = np.argsort(p_values)
    below = p_values[order] <= q * np.arange(1, len(order) + 1) / len(order)
    kept = np.zeros(len(order), dtype=bool)
    if below.any():
        kept[order[: np.flatnonzero(below)[-1] + 1]] = True
    return kept


def kinds_of() -> dict[str, ConceptKind]:
    """The kind of each word of the embedded world."""
    words = Vocabulary.load(None)
    return dict(zip(words.names, words.kinds, strict=True))
