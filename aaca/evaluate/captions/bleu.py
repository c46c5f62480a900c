"""BLEU-1 to BLEU-4 of a set of captions (Papineni et al., ACL 2002), as the COCO caption evaluation computes it."""

from collections.abc import Sequence

import numpy as np

from aaca.evaluate.captions.texts import LONGEST, Candidates, References, ngrams, paired

COUNTS = ("words", "reference_words", *(f"match_{n}" for n in range(1, 5)), *(f"ngrams_{n}" for n in range(1, 5)))
"""What BLEU is made of: sums of these over captions give the score of the set."""
_TINY, _SMALL = 1e-15, 1e-9  # the COCO evaluation's guards against 0 / 0; parity where nothing matches needs the same


def bleu_counts(candidate: str, references: Sequence[str]) -> np.ndarray:
    """`[10]` counts of one caption in the order of `COUNTS`.

    Matches are clipped at the most often an n-gram occurs in any one reference. The reference length is the one closest
    to the caption's, the shorter of two that are equally close.
    """
    words = candidate.split()
    others = [reference.split() for reference in references]
    closest = min((abs(len(other) - len(words)), len(other)) for other in others)[1]
    found, possible = np.zeros(LONGEST), np.zeros(LONGEST)
    for n in range(1, LONGEST + 1):
        own, each = ngrams(words, [n]), [ngrams(other, [n]) for other in others]
        possible[n - 1] = own.total()
        found[n - 1] = sum(min(times, max(counts[gram] for counts in each)) for gram, times in own.items())
    return np.concatenate([[len(words), closest], found, possible])


def bleu_of(counts: np.ndarray) -> np.ndarray:
    """BLEU-1 to BLEU-4 in [0, 1], `[..., 4]`, of summed counts `[..., 10]`; a caption's counts give its own BLEU."""
    words, reference = counts[..., 0], counts[..., 1]
    precision = (counts[..., 2 : 2 + LONGEST] + _TINY) / (counts[..., 2 + LONGEST :] + _SMALL)
    means = np.cumprod(precision, axis=-1) ** (1 / np.arange(1, LONGEST + 1))
    ratio = (words + _TINY) / (reference + _SMALL)
    return np.asarray(means * np.exp(np.minimum(0.0, 1 - 1 / ratio))[..., None])


def bleu(candidates: Candidates, references: References) -> np.ndarray:
    """BLEU-1 to BLEU-4 in [0, 1] of the whole set, `[4]`. Raises `DataError` as `paired` does."""
    names = paired(candidates, references)
    return bleu_of(np.sum([bleu_counts(candidates[name], references[name]) for name in names], axis=0))
