"""Made-up features of a last layer with planted spurious neurons: the truth that neuron inspection is held to."""

from dataclasses import dataclass

import numpy as np

from aaca.runtime.errors import ConfigError
from aaca.runtime.seeding import purpose_seed

ANIMAL_CORE, ANIMAL_CUE = 0.7, 3.0
BIRD_CORE, BIRD_CUE = 1.1, 2.0
"""How far a neuron's mean moves where its evidence is there, in units of its noise before the ReLU.

With them a plain cross-entropy head gets about 53 % of the five classes' test images right and 10 % of class 0's, and
60 % of the birds' worst group (tests/data/test_planted_features.py).
"""
STRAY = 0.02
"""Share of the images of other classes that show a class's cue by accident."""
BIRD_COUNTS = {"train": (3498, 184, 56, 1057), "val": (467, 466, 133, 133), "test": (2255, 2255, 642, 642)}
"""Images of the groups of Waterbirds (Sagawa et al. 2020): land and water birds, each on land and water."""


@dataclass(frozen=True)
class FeatureSplit:
    """features `[N, D]` float32 (0 or more, as after a ReLU), labels `[N]` int64, groups `[N]` ("class|cue")."""

    features: np.ndarray
    labels: np.ndarray
    groups: np.ndarray


@dataclass(frozen=True)
class PlantedFeatures:
    """Three splits and the truth: which neurons carry the cue that a class relies on, and which carry its evidence.

    `planted` lists only classes that rely on a cue; `core` lists every class. All other neurons are noise.
    """

    classes: tuple[str, ...]
    train: FeatureSplit
    val: FeatureSplit
    test: FeatureSplit
    planted: dict[int, tuple[int, ...]]
    core: dict[int, tuple[int, ...]]


def five_classes(seed: int, images: int = 100, dim: int = 64) -> PlantedFeatures:
    """Five classes; class 0 has a cue of three neurons on all of its train images and on none of val and test.

    `images` a class in train and val, five times as many in test. Six core neurons a class, weak ones, so that a head
    that has the cue learns little else of class 0 (as MetaShift's "dog(water)"). Raises `ConfigError` for fewer than
    33 neurons or no images.
    """
    classes, cores = 5, 6
    _check(images, dim, classes * cores + 3)
    rng = np.random.default_rng(purpose_seed(seed, "five_classes"))
    order = rng.permutation(dim)
    core = {label: _neurons(order, label * cores, cores) for label in range(classes)}
    cue = _neurons(order, classes * cores, 3)

    def split(count: int, cued: bool) -> FeatureSplit:
        labels = np.repeat(np.arange(classes), count)
        shown = (labels == 0) & cued | (labels != 0) & (rng.random(len(labels)) < STRAY)
        means = np.zeros((len(labels), dim))
        for label, neurons in core.items():
            means[np.ix_(labels == label, neurons)] = ANIMAL_CORE
        means[np.ix_(shown, cue)] = ANIMAL_CUE
        names = [f"class{label}|{'cue' if on else 'plain'}" for label, on in zip(labels, shown, strict=True)]
        return _shuffled(means, labels, names, rng)

    names = tuple(f"class{label}" for label in range(classes))
    train, val, test = split(images, True), split(images, False), split(5 * images, False)
    return PlantedFeatures(names, train, val, test, planted={0: cue}, core=core)


def waterbirds_like(seed: int, dim: int = 64, share: float = 1.0) -> PlantedFeatures:
    """Land and water birds on land and water in Waterbirds' numbers: 8 core neurons a class, 4 cue neurons a place.

    `share` scales the counts (each at least 2). Raises `ConfigError` for fewer than 24 neurons or a share of 0 or less.
    """
    _check(share, dim, 24)
    rng = np.random.default_rng(purpose_seed(seed, "waterbirds_like"))
    order = rng.permutation(dim)
    core = {label: _neurons(order, 8 * label, 8) for label in (0, 1)}
    places = {place: _neurons(order, 16 + 4 * place, 4) for place in (0, 1)}

    def split(name: str) -> FeatureSplit:
        counts = [max(2, round(count * share)) for count in BIRD_COUNTS[name]]
        group = np.repeat(np.arange(4), counts)
        labels, place = group // 2, group % 2
        means = np.zeros((len(group), dim))
        for label, neurons in core.items():
            means[np.ix_(labels == label, neurons)] = BIRD_CORE
        for where, neurons in places.items():
            means[np.ix_(place == where, neurons)] = BIRD_CUE
        names = [f"{('landbird', 'waterbird')[y]}|{('land', 'water')[p]}" for y, p in zip(labels, place, strict=True)]
        return _shuffled(means, labels, names, rng)

    train, val, test = split("train"), split("val"), split("test")
    return PlantedFeatures(("landbird", "waterbird"), train, val, test, planted=places, core=core)


def _neurons(order: np.ndarray, first: int, count: int) -> tuple[int, ...]:
    return tuple(sorted(order[first : first + count].tolist()))


def _shuffled(means: np.ndarray, labels: np.ndarray, groups: list[str], rng: np.random.Generator) -> FeatureSplit:
    # unit noise around the means, cut at zero, in random order
    features = np.maximum(means + rng.normal(size=means.shape), 0).astype(np.float32)
    order = rng.permutation(len(labels))
    return FeatureSplit(features[order], labels[order].astype(np.int64), np.array(groups, dtype=object)[order])


def _check(size: float, dim: int, least: int) -> None:
    if not size > 0:
        raise ConfigError(f"planted features: {size} images; expected more than 0")
    if dim < least:
        raise ConfigError(f"planted features: {dim} neurons; expected {least} or more (core and cue neurons)")
