"""How sure a difference of captioners is, and whether a filter of captions does more than a random one.

The images are what is drawn again: captions of one image rise and fall together. Figures are computed anew from the
sums of every draw, so that BLEU, which is no mean over captions, has an interval too. Images count as independent:
scenes of the embedded world share cut-outs, and intervals over them are somewhat narrow.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from aaca.evaluate.captions.scores import figures_of_sums, sum_columns
from aaca.evaluate.statistics import LEVEL, RESAMPLES, Interval, percentile_interval, resample_weights
from aaca.runtime.errors import DataError
from aaca.runtime.seeding import purpose_seed

_BLOCK = 256  # resamples multiplied at a time


@dataclass(frozen=True)
class FilterEffect:
    """A figure of the captions that a filter keeps, of all captions, and of random choices of as many."""

    kept: float
    all: float
    gain: Interval  # kept − all, over images drawn again
    random: Interval  # mean and central range over random filters
    p: float  # share of random filters at least as far from their mean as this one, either way


def difference(
    first: pd.DataFrame,
    second: pd.DataFrame,
    images: Mapping[str, str],
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> dict[str, Interval]:
    """Each figure of `first` minus that of `second`, with a percentile interval over images (paired bootstrap).

    Both are tables of `caption_table` with the same names; `images` tells each name's image. Figures that only one
    table has, or that cannot be told, are left out. Raises `DataError` where the names differ or one has no image.
    """
    if set(first.index) != set(second.index):
        odd = sorted(set(first.index) ^ set(second.index))
        raise DataError(f"caption tables: {len(odd)} names in one only, such as {odd[0]!r}; expected the same names")
    columns = [column for column in sum_columns(first) if column in second.columns]
    n_images, index = _image_index(first, images)
    weights = resample_weights(n_images, resamples, seed)
    one = _drawn(_sums(first[columns], index, n_images), columns, weights)
    two = _drawn(_sums(second.loc[first.index, columns], index, n_images), columns, weights)
    found = {name: _interval(one[name] - two[name], level) for name in one}
    return {name: interval for name, interval in found.items() if interval is not None}


def filter_effect(
    table: pd.DataFrame,
    kept: Collection[str],
    images: Mapping[str, str],
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> dict[str, FilterEffect]:
    """What keeping only the captions of these names does to each figure, beside random filters that keep as many.

    One table of the full set serves all, so CIDEr's document frequencies are the same on both sides. A random filter
    gives the figure of all captions on average; `gain` is the distance to that. Random filters choose among captions,
    or among images where `kept` has all captions of an image or none. Raises `DataError` where `kept` is empty or holds
    a name that the table lacks.
    """
    strange = sorted(set(kept) - set(table.index))
    if strange or not kept:
        raise DataError(
            f"kept: {strange[0]!r} is no caption of the table" if strange else "kept: no caption; expected some"
        )
    n_images, index = _image_index(table, images)
    columns = sum_columns(table)
    values, mask = table[columns], table.index.isin(list(kept))
    weights = resample_weights(n_images, resamples, seed)
    inside = _drawn(_sums(values[mask], index[mask], n_images), columns, weights)
    overall = _drawn(_sums(values, index, n_images), columns, weights)
    of_image = np.bincount(index[mask], minlength=n_images)
    whole = bool(((of_image == 0) | (of_image == np.bincount(index))).all())
    n_units, unit = (n_images, index) if whole else (len(table), np.arange(len(table)))
    own = np.zeros(n_units, dtype=np.uint8)
    own[unit[mask]] = 1
    rng = np.random.default_rng(purpose_seed(seed, "filter_effect", "random"))
    chosen = rng.permuted(np.tile(own, (resamples, 1)), axis=1)
    control = _drawn(_sums(values, unit, n_units), columns, chosen)
    return {
        name: effect
        for name in overall
        if (effect := _effect(inside[name], overall[name], control[name][1:], level)) is not None
    }


def _effect(inside: np.ndarray, overall: np.ndarray, control: np.ndarray, level: float) -> FilterEffect | None:
    gain, spread = _interval(inside - overall, level), percentile_interval(control, level)
    if gain is None or spread is None:
        return None
    kept, judged = float(inside[0]), control[np.isfinite(control)]
    mean = float(judged.mean())
    # Slack for rounding: a filter that keeps everything is as far from the mean as every random one.
    as_far = int((np.abs(judged - mean) >= abs(kept - mean) - 1e-9 * max(1.0, abs(mean))).sum())
    return FilterEffect(kept, float(overall[0]), gain, Interval(mean, *spread), (1 + as_far) / (1 + len(judged)))


def _image_index(table: pd.DataFrame, images: Mapping[str, str]) -> tuple[int, np.ndarray]:
    """Number of images and the image of each row, `[N]`, numbered in sorted order."""
    lost = [name for name in table.index if name not in images]
    if lost:
        raise DataError(f"images: none for {lost[0]!r} ({len(lost)} in all); expected the image of every name")
    known, index = np.unique([images[name] for name in table.index], return_inverse=True)
    return len(known), index


def _sums(table: pd.DataFrame, index: np.ndarray, n_images: int) -> np.ndarray:
    """Column sums of each image, `[S, C]`."""
    sums = np.zeros((n_images, table.shape[1]))
    np.add.at(sums, index, table.to_numpy(np.float64))
    return sums


def _drawn(sums: np.ndarray, columns: list[str], weights: np.ndarray) -> dict[str, np.ndarray]:
    """Figures `[1 + R]`: of the images as they are, then of each draw with weights `[R, S]`."""
    totals = [sums.sum(axis=0, keepdims=True)]
    for start in range(0, len(weights), _BLOCK):
        totals.append(weights[start : start + _BLOCK].astype(np.float64) @ sums)
    return figures_of_sums(np.concatenate(totals), columns)


def _interval(values: np.ndarray, level: float) -> Interval | None:
    """The first value with the range of the others; None where it cannot be told."""
    spread = percentile_interval(values[1:], level)
    return None if spread is None or not np.isfinite(values[0]) else Interval(float(values[0]), *spread)
