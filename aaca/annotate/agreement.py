"""Krippendorff's alpha: how far people agree beyond chance."""

import numpy as np


def krippendorff_alpha(values: np.ndarray) -> float:
    """Alpha for interval data `[raters, units]`, NaN where somebody did not answer (Krippendorff 2011).

    1 is perfect agreement, 0 what chance gives; NaN with no unit that two people answered. All equal values give 1.
    """
    values = np.asarray(values, dtype=np.float64)
    answered = ~np.isnan(values)
    pairable = answered.sum(axis=0) >= 2
    if not pairable.any():
        return float("nan")
    kept, known = values[:, pairable], answered[:, pairable]
    counts = known.sum(axis=0)
    filled = np.where(known, kept, 0.0)
    # sum over ordered pairs of squared differences: 2 (m Σx² − (Σx)²)
    within = 2 * (counts * (filled**2).sum(axis=0) - filled.sum(axis=0) ** 2)
    observed = (within / (counts - 1)).sum() / counts.sum()
    total, everything = counts.sum(), kept[known]
    expected = 2 * (total * (everything**2).sum() - everything.sum() ** 2) / (total * (total - 1))
    return 1.0 if expected == 0 else float(1 - observed / expected)
