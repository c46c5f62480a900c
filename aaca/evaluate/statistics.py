"""How sure a difference is: cluster bootstrap over sources, exact McNemar test, mean and spread over seeds.

Images of one source (the same object, the same photo) rise and fall together, so the unit that is drawn again is the
source with all its images, never the single image (Field & Welsh 2007, "Bootstrapping clustered data").
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from aaca.runtime.errors import DataError

RESAMPLES = 2000
LEVEL = 0.95
_BLOCK = 256  # resamples multiplied at a time: bounds memory to _BLOCK × sources


@dataclass(frozen=True)
class Interval:
    """A value with its percentile interval; all three in the unit of what was measured."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class McNemar:
    """Discordant pairs of two classifiers and the two-sided exact p-value of "either is as likely"."""

    only_first: int  # right in the first, wrong in the second
    only_second: int
    p: float


def resample_weights(n_sources: int, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """How often each source is drawn in each resample, `[R, S]` uint8: S draws with replacement from S sources.

    The same weights for two methods make the comparison paired.
    """
    if n_sources < 1:
        raise DataError("bootstrap: no source given; expected at least one")
    chances = np.full(n_sources, 1.0 / n_sources)
    rng = np.random.default_rng(seed)
    weights = np.empty((resamples, n_sources), dtype=np.uint8)
    for start in range(0, resamples, _BLOCK):
        stop = min(start + _BLOCK, resamples)
        weights[start:stop] = rng.multinomial(n_sources, chances, size=stop - start)
    return weights


def resampled_means(sums: np.ndarray, counts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Means over images in each resample, `[R, K]`, from per-source sums and counts `[S, K]` and weights `[R, S]`.

    NaN where a resample holds no image of that column.
    """
    means = np.empty((len(weights), sums.shape[1]))
    for start in range(0, len(weights), _BLOCK):
        block = weights[start : start + _BLOCK].astype(np.float64)
        total = block @ counts
        with np.errstate(invalid="ignore", divide="ignore"):
            means[start : start + _BLOCK] = np.where(total > 0, (block @ sums) / total, np.nan)
    return means


def percentile_interval(samples: np.ndarray, level: float = LEVEL) -> tuple[float, float] | None:
    """The central `level` of the samples `[R]`, NaN left out; None when nothing is left."""
    kept = samples[np.isfinite(samples)]
    if not len(kept):
        return None
    low, high = np.quantile(kept, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_difference(
    first: np.ndarray,
    second: np.ndarray,
    sources: np.ndarray,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Interval:
    """Mean of `first` minus mean of `second` over images `[N]`, with a percentile interval over `sources` `[N]`.

    For several seeds of a method pass each image's correctness averaged over the seeds: the interval then says how the
    result would vary with other test sources, not with other seeds.
    """
    _, index = np.unique(sources, return_inverse=True)
    n_sources = int(index.max()) + 1
    both = np.stack([np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)], axis=1)
    sums = np.zeros((n_sources, 2))
    np.add.at(sums, index, both)
    counts = np.repeat(np.bincount(index).astype(np.float64)[:, None], 2, axis=1)
    means = resampled_means(sums, counts, resample_weights(n_sources, resamples, seed))
    interval = percentile_interval(means[:, 0] - means[:, 1], level)
    assert interval is not None  # every resample holds at least one image
    value = float(both[:, 0].mean() - both[:, 1].mean())
    return Interval(value, *interval)


def mcnemar(first: np.ndarray, second: np.ndarray) -> McNemar:
    """Exact McNemar test on paired correctness `[N]` bool: a binomial test on the discordant pairs (McNemar 1947).

    Pooling seeds or images of one source makes p too small, since such pairs are not independent; read it beside the
    interval over sources. p = 1 where no pair is discordant.
    """
    a, b = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    only_first, only_second = int((a & ~b).sum()), int((~a & b).sum())
    total = only_first + only_second
    p = float(binomtest(only_first, total, 0.5).pvalue) if total else 1.0
    return McNemar(only_first, only_second, p)


def mean_sd(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (n − 1); no deviation from a single value."""
    array = np.asarray(values, dtype=np.float64)
    return float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else None
