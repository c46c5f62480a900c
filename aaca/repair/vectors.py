"""`PairVectors`: the concept vectors of pairs of image sets in a classifier's layer, with or without a teacher."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from aaca.concepts.activations import Pool, activations_of
from aaca.concepts.cav import Cav, Kind, fit_cav
from aaca.concepts.images import ConceptImages, ConceptPair
from aaca.data.table import ImageReader, ImageTable
from aaca.data.transforms import EvalTransform, normalise
from aaca.models.classifier import Classifier
from aaca.runtime.errors import DataError

log = logging.getLogger(__name__)
Which = Literal["concepts", "random", "shuffled"]
MOST = 2000  # images that a sample holds at once


@dataclass(frozen=True)
class PairVectors:
    """Fits one unit vector `[D]` a pair, from C' to C, to a classifier's activations.

    `which`: of the concepts, or a control: `random` directions, or `shuffled`: between two halves of the same images,
    each with as many of C and of C', which lie where activations vary and mean nothing.
    """

    pairs: Sequence[ConceptPair]
    layer: str
    pool: Pool
    kind: Kind
    folds: int
    seed: int
    which: Which = "concepts"

    def sets(self) -> dict[str, ConceptImages]:
        """Each set of images once, under a name of its own (two folders may be called the same)."""
        return {key_of(one): one for pair in self.pairs for one in (pair.positive, pair.negative)}

    def activations(self, classifier: Classifier) -> dict[str, np.ndarray]:
        """Name of a set → its activations `[N, D]`."""
        return {
            name: activations_of(classifier, as_input(one.images, classifier), [self.layer], self.pool)[
                self.layer
            ].numpy()
            for name, one in self.sets().items()
        }

    def cavs(self, classifier: Classifier) -> list[Cav]:
        """One a pair, of the concepts, with held-out accuracies."""
        return self.fitted(self.activations(classifier))

    def fitted(self, activations: dict[str, np.ndarray]) -> list[Cav]:
        """One a pair, of activations by name of a set."""
        return [
            fit_cav(
                activations[key_of(pair.positive)],
                activations[key_of(pair.negative)],
                self.kind,
                self.folds,
                self.seed,
                {"concept": pair.positive.name, "layer": self.layer, "pool": self.pool},
            )
            for pair in self.pairs
        ]

    def __call__(self, classifier: Classifier) -> Tensor:
        """The directions that a repair works with, `[P, D]`."""
        if self.which == "concepts":
            return self.directions_of(self.cavs(classifier))
        activations = self.activations(classifier)
        return self.control(activations)

    def control(self, activations: dict[str, np.ndarray]) -> Tensor:
        """The directions of a control, `[P, D]`: the same at every call, or of the same shuffled images."""
        if self.which == "random":
            return self.at_random(next(iter(activations.values())).shape[1])
        found = []
        for number, pair in enumerate(self.pairs):
            both = np.concatenate([activations[key_of(pair.positive)], activations[key_of(pair.negative)]])
            rng, cut = np.random.default_rng([self.seed, number]), len(activations[key_of(pair.positive)])
            half = np.concatenate([rng.permutation(n) < n // 2 for n in (cut, len(both) - cut)])
            found.append(both[half].mean(axis=0) - both[~half].mean(axis=0))
        return F.normalize(torch.from_numpy(np.stack(found)), dim=1)

    @staticmethod
    def directions_of(cavs: Sequence[Cav]) -> Tensor:
        """`[P, D]`."""
        return torch.from_numpy(np.stack([cav.direction for cav in cavs]))

    def at_random(self, size: int) -> Tensor:
        """Unit vectors `[P, size]`, the same at every call."""
        generator = torch.Generator().manual_seed(self.seed)
        return F.normalize(torch.randn(len(self.pairs), size, generator=generator), dim=1)


def key_of(one: ConceptImages) -> str:
    """Tells a set from all others of this process."""
    return f"{one.name} {id(one)}"


def as_input(images: np.ndarray, classifier: Classifier) -> Tensor:
    """uint8 `[N, S, S, 3]` as the classifier takes them."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(255)
    return normalise(pixels, classifier.mean, classifier.std)


def sample_of(table: ImageTable, per_class: int, seed: int, classifier: Classifier) -> tuple[Tensor, Tensor]:
    """(normalised images `[N, 3, S, S]`, labels `[N]`): at most `per_class` of each class, `MOST` in all, at random."""
    rng = np.random.default_rng(seed)
    per_class = max(1, min(per_class, MOST // len(table.classes)))
    rows = np.concatenate(
        [rng.permutation(np.flatnonzero(table.labels == label))[:per_class] for label in range(len(table.classes))]
    )
    view, found = EvalTransform(classifier.image_size), ImageReader(table).read(rows)
    images = np.stack([np.asarray(view(image).permute(1, 2, 0)) for image in found])
    return as_input(images, classifier), torch.from_numpy(table.labels[rows])


def strong(cavs: Sequence[Cav], least: float) -> list[int]:
    """The vectors that tell their concept from its opposite on held-out images; the others are named in the log.

    Raises `DataError` where none does.
    """
    reasons = {
        index: f"concept {cav.meta['concept']!r}: its vector tells {cav.balanced_accuracy:.0%} of held-out images "
        f"right (with it {cav.accuracy_positive:.0%}, without {cav.accuracy_negative:.0%}); expected {least:.0%} "
        "(repair.least_accuracy): more or clearer concept images, another repair.layer or repair.cav"
        for index, cav in enumerate(cavs)
        if cav.balanced_accuracy < least
    }
    if len(reasons) == len(cavs):
        raise DataError(reasons[0])
    for reason in reasons.values():
        log.warning("left out: %s", reason)
    return [index for index in range(len(cavs)) if index not in reasons]


def save_cavs(cavs: Sequence[Cav], folder: Path) -> None:
    """Each below its number."""
    for number, cav in enumerate(cavs):
        cav.save(folder / f"{number:03d}")
