"""Concept images as a frozen teacher sees them, brought to the student's layer (Concept Distillation, section 3)."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aaca.concepts.activations import activations_of, captured, evaluating
from aaca.concepts.mapping import Kind
from aaca.models.classifier import Classifier
from aaca.repair.base import RepairContext
from aaca.repair.vectors import PairVectors, as_input
from aaca.training.mapper import fit_mapping

MAPPING = "mapping"
PARTS = 5
DEVICES = {"gpu": "cuda", "mps": "mps", "cpu": "cpu"}


def taught_activations(
    context: RepairContext, vectors: PairVectors, classifier: Classifier, kind: Kind, folder: Path
) -> dict[str, np.ndarray]:
    """Key of a set → mapped teacher features `[N, D]` of its images.

    Every image is mapped by a mapping that was fitted without it (five parts, each with images of all sets): what a
    mapping says of its own images is the student's activation again, and a teacher would change nothing. All are left
    in `folder`. Raises `DataError` for a held-out R² below 0.
    """
    assert context.teacher is not None
    sets = vectors.sets()
    teacher: Any = context.teacher.load().to(DEVICES[context.trainer.device_kind])
    pixels = np.concatenate([one.images for one in sets.values()])
    features = teacher.features(pixels)
    student = _student(classifier, vectors, as_input(pixels, classifier))
    rng = np.random.default_rng(vectors.seed)
    part = np.concatenate([rng.permutation(len(one.images)) % PARTS for one in sets.values()])
    mapped = np.zeros((len(pixels), student[0].numel()), dtype=np.float32)
    for number in range(PARTS):
        own, rest = (torch.from_numpy(np.flatnonzero(rows)) for rows in (part == number, part != number))
        place = folder / MAPPING / str(number)
        mapping = fit_mapping(kind, features[rest], student[rest], vectors.seed, context.trainer, place)
        mapped[own.numpy()] = mapping.apply(features[own]).flatten(1).numpy()
    bounds = np.cumsum([len(one.images) for one in sets.values()])[:-1]
    return dict(zip(sets, np.split(mapped, bounds), strict=True))


def _student(classifier: Classifier, vectors: PairVectors, images: Tensor) -> Tensor:
    # [N, …] of the layer's own shape, which the kernels of a mapping need
    found = activations_of(classifier, images, [vectors.layer], vectors.pool)[vectors.layer]
    if vectors.pool != "none":
        return found
    with evaluating(classifier), torch.no_grad(), captured(classifier, [vectors.layer]) as seen:
        classifier(images[:1])
    return found.reshape(len(found), *seen[vectors.layer].shape[1:])
