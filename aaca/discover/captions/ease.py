"""How easy an image is to caption, by ratings of what its words point at: near 0 hard, 1 easy (EGA's filter)."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal, get_args

import numpy as np

from aaca.discover.captions.records import HIGHEST, Record
from aaca.runtime.errors import ConfigError, DataError, nearest

Pool = Literal["mean", "min"]


@dataclass(frozen=True)
class EaseWeights:
    """What ratings of an object itself, of its attributes and of relations it takes part in weigh for the object."""

    own: float = 1.0
    attribute: float = 1.0
    relationship: float = 1.0

    def __post_init__(self) -> None:
        """Raise `ConfigError` for a weight below 0, and where all are 0."""
        for name, value in vars(self).items():
            if value < 0:
                raise ConfigError(f"weights.{name}: {value}; expected 0 or more")
        if not any(vars(self).values()):
            raise ConfigError("weights: all are 0; expected one above")


def ease(ratings: Sequence[float]) -> float:
    """Σ ratings / (5 · count), as released: in (0, 1]. Raises `DataError` for no rating."""
    if not ratings:
        raise DataError("ease: no rating; expected at least one")
    return float(sum(ratings)) / (HIGHEST * len(ratings))


def object_ease(rows: Iterable[Record], weights: EaseWeights | None = None) -> dict[str, float]:
    """Ease of each object of one image or caption: the weighted mean of all ratings that it has a part in, over 5.

    An attribute speaks for its object, a relation for both of its ends; two objects of a name are one. Answers without
    a rating or without readable text say nothing, and an object that has no rating of any weight is left out.
    """
    weights = weights or EaseWeights()
    total: defaultdict[str, float] = defaultdict(float)
    weight: defaultdict[str, float] = defaultdict(float)
    for row in rows:
        if row.rating is None or not row.kind or not row.parts:
            continue
        share = {"object": weights.own, "attribute": weights.attribute, "relationship": weights.relationship}[row.kind]
        for name in dict.fromkeys(row.parts[::2]):  # (object), (object, …), (subject, …, object)
            total[name] += share * row.rating
            weight[name] += share
    return {name: total[name] / (HIGHEST * weight[name]) for name in total if weight[name]}


def relation_aware_ease(
    rows: Iterable[Record], pool: Pool = "mean", weights: EaseWeights | None = None
) -> float | None:
    """Mean or least ease of an image's objects; None where no object has any. Raises `ConfigError` for another pool."""
    if pool not in get_args(Pool):
        raise ConfigError(f"pool: {pool!r}; {nearest(pool, get_args(Pool))}")
    values = list(object_ease(rows, weights).values())
    return float(np.mean(values) if pool == "mean" else min(values)) if values else None


def ease_of(groups: Mapping[str, Sequence[Record]]) -> dict[str, float]:
    """The released ease of each group of answers (`Records.by_image`, …); groups without rating are left out."""
    rated = {name: [row.rating for row in rows if row.rating is not None] for name, rows in groups.items()}
    return {name: ease(ratings) for name, ratings in rated.items() if ratings}


def relation_aware_ease_of(
    groups: Mapping[str, Sequence[Record]], pool: Pool = "mean", weights: EaseWeights | None = None
) -> dict[str, float]:
    """The relation-aware ease of each group of answers; groups that have none are left out."""
    found = {name: relation_aware_ease(rows, pool, weights) for name, rows in groups.items()}
    return {name: value for name, value in found.items() if value is not None}


def ease_of_samples(samples: np.ndarray, known: Mapping[str, float]) -> dict[str, float]:
    """Ease by `<image id>_<region id>` of the samples `[n, 2]`, from that of captions or else of whole images.

    `known` has the images' file names, which image ids hold after their folder. Samples of which nothing is known are
    left out. Raises `DataError` where not one is known, as for records of another set.
    """
    found = {}
    for image_id, region in samples.tolist():
        image = PurePosixPath(image_id).name
        value = known.get(f"{image}_{region}", known.get(image))
        if value is not None:
            found[f"{image_id}_{region}"] = value
    if known and not found:
        raise DataError(f"ease: of {next(iter(known))!r} and others, but of no sample of the set")
    return found
