"""ROUGE-L of captions (Lin, 2004): F-measure of the longest common subsequence, as the COCO caption evaluation."""

from collections.abc import Sequence

import numpy as np

from aaca.evaluate.captions.texts import Candidates, References, paired

BETA = 1.2
"""Weight of recall against precision."""


def rouge_l(candidate: str, references: Sequence[str]) -> float:
    """ROUGE-L in [0, 1] of one caption; the best precision and the best recall may come from two references."""
    words = candidate.split()
    if not words:
        return 0.0
    others = [reference.split() for reference in references]
    common = [_common(words, other) for other in others]
    precision = max(common) / len(words)
    recall = max(length / len(other) for length, other in zip(common, others, strict=True))
    if not precision:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def rouge(candidates: Candidates, references: References) -> float:
    """Mean ROUGE-L in [0, 1] over the captions. Raises `DataError` as `paired` does."""
    names = paired(candidates, references)
    return float(np.mean([rouge_l(candidates[name], references[name]) for name in names]))


def _common(one: Sequence[str], two: Sequence[str]) -> int:
    """Length of the longest common subsequence: dynamic programme over prefixes, one row kept."""
    row = [0] * (len(two) + 1)
    for word in one:
        diagonal = 0
        for j, other in enumerate(two, start=1):
            above = row[j]
            row[j] = diagonal + 1 if word == other else max(above, row[j - 1])
            diagonal = above
    return row[-1]
