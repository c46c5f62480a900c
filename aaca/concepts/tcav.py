"""TCAV: does a concept's direction raise a class's logit, more often than random directions (Kim et al. 2018)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import ttest_ind


@dataclass(frozen=True)
class TcavScore:
    """`sign_count`: share of images whose logit rises along the concept; `magnitude`: its mean slope, as captum's."""

    sign_count: float
    magnitude: float


def tcav(gradients: np.ndarray, directions: np.ndarray) -> list[TcavScore]:
    """One score a direction `[P, D]`, of gradients ∂ logit / ∂ activation `[N, D]` of a class's images.

    Logits, not losses, and > 0, as in the paper: 1 means that more of the concept always raises the logit.
    """
    sensitivities = gradients.astype(np.float64) @ directions.astype(np.float64).T  # [N, P]
    signs, means = (sensitivities > 0).mean(axis=0), sensitivities.mean(axis=0)
    return [TcavScore(float(sign), float(mean)) for sign, mean in zip(signs, means, strict=True)]


def p_value(scores: Sequence[float], random_scores: Sequence[float], hypotheses: int = 1) -> float:
    """Two-sided Welch t-test of a concept's scores against those of random directions, times the `hypotheses` tested.

    `scores`: of vectors fitted against several random sets C'. At most 1 (Bonferroni); 1 where neither varies and both
    are equal, 0 where neither varies and they differ.
    """
    if np.ptp(scores) == 0 and np.ptp(random_scores) == 0:
        return 1.0 if scores[0] == random_scores[0] else 0.0
    return float(min(1.0, ttest_ind(scores, random_scores, equal_var=False).pvalue * hypotheses))
