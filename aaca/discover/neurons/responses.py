"""What neurons answer to: how they change when a concept is taken out, and how they tell images of one class apart."""

import zipfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array
from scipy.special import ndtr
from scipy.stats import rankdata

from aaca.concepts.concept_sets import normal
from aaca.discover.concepts.table import ConceptTable
from aaca.runtime.errors import DataError
from aaca.runtime.files import atomic_path

FILE = "responses.npz"
ROWS = 4096
"""Pairs at a time: their differences for 2,048 neurons take 64 MB."""


@dataclass(frozen=True)
class Responses:
    """What D neurons answer to C concepts, `names`; arrays `[D, C]` float32.

    `effect`: mean over images with the concept of f_j(x) − f_j(x without it), in standard deviations of f_j over all
    images; `t`: its t statistic; NaN where no image has the concept in a known place, or f_j never varies.
    `contrast`: 2 · AUC − 1 of f_j for images with against without the concept, within a class, averaged over classes;
    NaN where no class has enough of both. `images` `[C]`: how many show the concept.
    """

    names: list[str]
    effect: np.ndarray
    t: np.ndarray
    contrast: np.ndarray
    images: np.ndarray

    def telling(self, besides: Collection[str]) -> "Responses":
        """Without what cannot be blamed: the names `besides` (the classes'), and what no image lacks or shows."""
        kept = [
            column
            for column, name in enumerate(self.names)
            if normal(name) not in besides and np.isfinite(self.contrast[:, column]).any()
        ]
        parts = (self.effect[:, kept], self.t[:, kept], self.contrast[:, kept], self.images[kept])
        return Responses([self.names[column] for column in kept], *parts)

    def save(self, folder: Path) -> None:
        """Write `responses.npz`."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "names"}
        with atomic_path(folder / FILE) as temporary, temporary.open("wb") as file:
            np.savez(file, names=np.array(self.names, dtype=np.str_), **arrays)

    @classmethod
    def load(cls, folder: Path) -> "Responses":
        """Read what `save` wrote. Raises `DataError` where it is missing or broken."""
        try:
            with np.load(folder / FILE, allow_pickle=False) as kept:
                arrays = {field.name: kept[field.name] for field in fields(cls) if field.name != "names"}
                return cls(names=[str(name) for name in kept["names"]], **arrays)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise DataError(f"{folder / FILE}: responses of neurons cannot be read ({error})") from error


def responses_of(
    features: np.ndarray,
    labels: np.ndarray,
    concepts: ConceptTable,
    pairs: np.ndarray,
    without: np.ndarray | None,
    names: Sequence[str],
    least: int = 5,
    chunk: int = 256,
) -> Responses:
    """The responses of features `[N, D]` of images with `labels` `[N]` to the concepts `names`.

    Args:
        features: of the images as they are.
        labels: their true classes.
        concepts: what they show.
        pairs: (row, column of `names`) `[P, 2]` of what was taken out of which image.
        without: features `[P, D]` without it; None where no place of a concept is known.
        names: the C concepts.
        least: images on each side without which a class says nothing of a contrast.
        chunk: neurons at a time in the contrast.

    Raises `DataError` where the arrays do not fit, or are not finite.

    """
    _check(features, labels, concepts, pairs, without, names)
    present = concepts.present(names)
    effect, t = _effects(features, pairs, without, len(names))
    return Responses(list(names), effect, t, _contrast(features, labels, present, least, chunk), present.sum(axis=0))


def score(responses: Responses) -> np.ndarray:
    """How much a neuron is for a concept, `[D, C]` float32 in 0…1; 0 where nothing is known or a sign is not positive.

    The geometric mean of contrast and effect, the latter as the contrast of two normal distributions that are so far
    apart (2 · Φ(effect / √2) − 1); where one is unknown, the other alone. Both have to be positive: an effect alone
    also shows what the fill looks like, a contrast alone also what comes with the concept.
    """
    apart = 2 * ndtr(responses.effect.astype(np.float64) / np.sqrt(2)) - 1
    both = np.sqrt(apart.clip(min=0) * responses.contrast.astype(np.float64).clip(min=0))
    one = np.where(np.isnan(apart), responses.contrast, apart)
    lacking = np.isnan(apart) | np.isnan(responses.contrast)
    return np.nan_to_num(np.where(lacking, one, both)).clip(min=0).astype(np.float32)


def _effects(
    features: np.ndarray, pairs: np.ndarray, without: np.ndarray | None, count: int
) -> tuple[np.ndarray, np.ndarray]:
    # (effect, t), each [D, C]; sums of differences a concept, in runs of rows
    neurons = features.shape[1]
    if without is None:
        unknown = np.full((neurons, count), np.nan, dtype=np.float32)
        return unknown, unknown.copy()
    sums, squares = np.zeros((2, count, neurons))
    for start in range(0, len(pairs), ROWS):
        rows, columns = pairs[start : start + ROWS].T
        gap = features[rows].astype(np.float64) - without[start : start + ROWS]
        if not np.isfinite(gap).all():
            raise DataError("neurons: features without concepts are NaN or infinite")
        of = csr_array((np.ones(len(rows)), (columns, np.arange(len(rows)))), shape=(count, len(rows)))
        sums += of @ gap
        squares += of @ gap**2
    n = np.bincount(pairs[:, 1], minlength=count).astype(np.float64)[:, None]
    spread = np.where(np.ptp(features, axis=0) > 0, features.std(axis=0, dtype=np.float64), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = sums / n
        error = np.sqrt(np.maximum(squares / n - mean**2, 0) / (n - 1))
        effect, t = mean / spread, mean / error
    t[~np.isfinite(t)] = np.nan
    return effect.T.astype(np.float32), t.T.astype(np.float32)


def _contrast(features: np.ndarray, labels: np.ndarray, present: np.ndarray, least: int, chunk: int) -> np.ndarray:
    # [D, C]: ranks of a class's images by each neuron, once for all concepts (Mann and Whitney)
    total = np.zeros((features.shape[1], present.shape[1]))
    classes = np.zeros(present.shape[1])
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        there = present[own].astype(np.float64)
        have, lack = there.sum(axis=0), len(own) - there.sum(axis=0)
        told = np.flatnonzero((have >= least) & (lack >= least))
        if not len(told):
            continue
        classes[told] += 1
        lowest, both = have[told] * (have[told] + 1) / 2, have[told] * lack[told]
        for start in range(0, features.shape[1], chunk):
            ranks = rankdata(features[own, start : start + chunk], axis=0)
            total[start : start + chunk, told] += 2 * (ranks.T @ there[:, told] - lowest) / both - 1
    with np.errstate(invalid="ignore"):
        return np.asarray((total / classes).astype(np.float32))


def _check(
    features: np.ndarray,
    labels: np.ndarray,
    concepts: ConceptTable,
    pairs: np.ndarray,
    without: np.ndarray | None,
    names: Sequence[str],
) -> None:
    if features.ndim != 2 or len(labels) != len(features) or concepts.images != len(features):
        raise DataError(
            f"neurons: features are {features.shape}, of {len(labels)} labels and concepts of {concepts.images} images"
        )
    if not np.isfinite(features).all():
        raise DataError("neurons: features are NaN or infinite")
    if without is None:
        return
    if without.shape != (len(pairs), features.shape[1]):
        raise DataError(f"neurons: features without concepts are {without.shape}; expected {len(pairs)} pairs' of them")
    if len(pairs) and (pairs.min() < 0 or (pairs.max(axis=0) >= (len(features), len(names))).any()):
        raise DataError(f"neurons: pairs name images and concepts beyond {len(features)} and {len(names)}")
