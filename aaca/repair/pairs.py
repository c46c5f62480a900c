"""`PairSource`, the role of the `concept_images` config group: images with and without the concepts to be unlearnt."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np

from aaca.concepts.concept_sets import ConceptSets
from aaca.concepts.images import (
    GENERATORS,
    ConceptImages,
    ConceptPair,
    Direction,
    blobs,
    flat,
    from_folder,
    generate,
    textured,
)
from aaca.concepts.images import grey as grey_patches
from aaca.data.benchmark import Benchmark
from aaca.data.biased_mnist import colour, patch_grey
from aaca.discover.concepts.table import ConceptTable
from aaca.runtime.errors import ConfigError, nearest
from aaca.runtime.files import digest, file_sha256

PLANTED = ("colour", "patch", "texture")
"""Kinds of planted confounders that can be drawn without any image of the benchmark."""


@dataclass(frozen=True)
class Shown:
    """What a source may look at: labelled audit images, what is in them, what was found out. Never a test split."""

    benchmark: Benchmark
    size: int  # pixels a side of the images asked for
    seed: int
    sets: ConceptSets | None = None
    concepts: ConceptTable | None = None  # of the audit images


class PairSource(ABC):
    """Makes pairs of concept sets as images; its constructor arguments are its config."""

    needs_sets: bool = False  # whether it has to be found out first why f0 fails
    needs_concepts: bool = False  # whether `Shown.concepts` is read
    needs_places: bool = False  # whether with masks
    sensitises: bool = False  # whether a pair asks for more of its concept

    @abstractmethod
    def pairs(self, shown: Shown) -> list[ConceptPair]:
        """At least one pair, images of `shown.size`. Raises `ConfigError` or `DataError` where there is none."""

    def check(self, benchmark: Benchmark) -> None:
        """Raise an error where these images cannot be had for this benchmark; called before any training."""
        return None

    def fingerprint(self) -> dict[str, Any]:
        """What influences the images besides the arguments, files by content."""
        return {}


class PlantedImages(PairSource):
    """Procedural images of the benchmark's planted confounders against black and white blobs: the published study.

    Colours become flat patches, patches grey squares, textures whole images (Concept Distillation, sets 8, 5 and 9).

    Args:
        images: images a set.

    """

    def __init__(self, images: int = 150) -> None:
        if images < 10:
            raise ConfigError(f"concept_images.images: {images}; expected 10 or more")
        self.images = images

    def check(self, benchmark: Benchmark) -> None:
        """Raise `ConfigError` where nothing is planted that can be drawn."""
        kinds = sorted({str(bug["kind"]) for bug in benchmark.confounders})
        if not kinds or any(kind not in PLANTED for kind in kinds):
            raise ConfigError(
                f"concept_images: planted draws {', '.join(PLANTED)}; dataset {benchmark.name} has "
                f"{', '.join(kinds) or 'no planted confounder'}; expected concept_images=found or listed"
            )

    def pairs(self, shown: Shown) -> list[ConceptPair]:
        """One pair a planted confounder, all against the same blobs."""
        self.check(shown.benchmark)
        drawn = {str(bug["value"]): str(bug["kind"]) for bug in shown.benchmark.confounders}
        without = blobs(self.images, shown.size, shown.seed)
        return [ConceptPair(self._draw(kind, value, shown), without) for value, kind in drawn.items()]

    def _draw(self, kind: str, value: str, shown: Shown) -> ConceptImages:
        number, rest = int(value.rsplit(" ", 1)[1]), (self.images, shown.size, shown.seed)
        if kind == "colour":
            return flat(colour(number), *rest)
        return grey_patches(patch_grey(number), *rest) if kind == "patch" else textured(number, *rest)


class ListedImages(PairSource):
    """Pairs written down: each `positive` and `negative` a folder of images or a procedural set.

    Args:
        pairs: entries {positive, negative, direction: desensitise | sensitise, weight, classes}; a set is
            {folder: path} or {kind: flat | grey | blobs | texture, and its arguments}.
        images: images a set, at most.

    """

    def __init__(self, pairs: list[dict[str, Any]], images: int = 150) -> None:
        if images < 10:
            raise ConfigError(f"concept_images.images: {images}; expected 10 or more")
        if not pairs:
            raise ConfigError("concept_images.pairs: empty; expected at least one {positive: …, negative: …}")
        self.listed, self.images = pairs, images
        for index, entry in enumerate(pairs):
            where = f"concept_images.pairs[{index}]"
            known = ("positive", "negative", "direction", "weight", "classes")
            for name in entry:
                if name not in known:
                    raise ConfigError(f"{where}.{name}: unknown key; {nearest(str(name), known)}")
            for side in known[:2]:
                _check_set(entry.get(side), f"{where}.{side}")
            weight = entry.get("weight", 1.0)
            if not isinstance(weight, int | float) or weight <= 0:
                raise ConfigError(f"{where}.weight: {weight!r}; expected a number above 0")
            if entry.get("direction", "desensitise") not in ("desensitise", "sensitise"):
                raise ConfigError(f"{where}.direction: {entry['direction']!r}; expected desensitise or sensitise")

    def fingerprint(self) -> dict[str, Any]:
        """The pairs, folders by their files' content."""
        sides = ("positive", "negative")
        return {
            "listed": [
                {**entry, **{side: _files(Path(entry[side]["folder"])) for side in sides if "folder" in entry[side]}}
                for entry in self.listed
            ]
        }

    @property
    def sensitises(self) -> bool:  # type: ignore[override]
        """Where a pair says so."""
        return any(_direction(entry) == "sensitise" for entry in self.listed)

    def check(self, benchmark: Benchmark) -> None:
        """Raise `ConfigError` for a class that the benchmark lacks."""
        for index, entry in enumerate(self.listed):
            for name in entry.get("classes") or ():
                if name not in benchmark.classes:
                    raise ConfigError(
                        f"concept_images.pairs[{index}].classes: no class {name!r}; {nearest(name, benchmark.classes)}"
                    )

    def pairs(self, shown: Shown) -> list[ConceptPair]:
        """The pairs in their order."""
        made: dict[str, ConceptImages] = {}

        def images(spec: Mapping[str, Any]) -> ConceptImages:
            key = digest(dict(spec))
            if key not in made:
                made[key] = self._make(dict(spec), shown)
            return made[key]

        return [
            ConceptPair(
                images(entry["positive"]),
                images(entry["negative"]),
                _direction(entry),
                float(entry.get("weight", 1.0)),
                tuple(entry["classes"]) if entry.get("classes") else None,
            )
            for entry in self.listed
        ]

    def _make(self, spec: dict[str, Any], shown: Shown) -> ConceptImages:
        if "folder" in spec:
            return from_folder(Path(spec["folder"]), shown.size, self.images)
        return generate(**spec, n=self.images, size=shown.size, seed=shown.seed)


def _files(folder: Path) -> list[list[str]]:
    return [[file.name, file_sha256(file)] for file in sorted(folder.iterdir()) if file.is_file()]


def _direction(entry: Mapping[str, Any]) -> Direction:
    return "sensitise" if entry.get("direction") == "sensitise" else "desensitise"


def _check_set(spec: Any, where: str) -> None:
    if not isinstance(spec, Mapping) or ("folder" in spec) == ("kind" in spec):
        raise ConfigError(f"{where}: {spec!r}; expected a folder: or a kind: (one of {', '.join(GENERATORS)})")
    if "folder" in spec and not Path(str(spec["folder"])).is_dir():
        raise ConfigError(f"{where}.folder: no folder {spec['folder']}")
    if "folder" in spec:
        for name in set(spec) - {"folder"}:
            raise ConfigError(f"{where}.{name}: unknown key beside folder")
        return
    if spec["kind"] not in GENERATORS:
        raise ConfigError(f"{where}.kind: {spec['kind']!r}; {nearest(str(spec['kind']), GENERATORS)}")
    known = [name for name in signature(GENERATORS[spec["kind"]]).parameters if name not in ("n", "size", "seed")]
    for name in set(spec) - {"kind", *known}:
        raise ConfigError(f"{where}.{name}: unknown key; {nearest(str(name), known)}")
    for name in set(known) - set(spec):
        raise ConfigError(f"{where}.{name}: missing; kind {spec['kind']} needs it")


def evenly(groups: Sequence[np.ndarray], most: int, rng: np.random.Generator) -> np.ndarray:
    """At most `most` of the rows of `groups`, as many of each as there are (those with few give all they have)."""
    left, order = most, sorted(range(len(groups)), key=lambda index: len(groups[index]))
    taken: list[np.ndarray] = []
    for position, index in enumerate(order):
        share = min(len(groups[index]), left // (len(order) - position))
        taken.append(rng.permutation(groups[index])[:share])
        left -= share
    return np.sort(np.concatenate(taken)) if taken else np.zeros(0, dtype=np.int64)
