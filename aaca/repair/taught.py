"""Concept images as a frozen teacher sees them, brought to the student's layer (Concept Distillation, section 3)."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from aaca.concepts.activations import activations_of, captured, evaluating
from aaca.concepts.mapping import Kind
from aaca.models.classifier import Classifier
from aaca.repair.base import RepairContext
from aaca.repair.vectors import PairVectors, as_input
from aaca.training.mapper import fit_mapping

MAPPING = "mapping"
DEVICES = {"gpu": "cuda", "mps": "mps", "cpu": "cpu"}


def taught_activations(
    context: RepairContext, vectors: PairVectors, classifier: Classifier, kind: Kind, folder: Path
) -> dict[str, np.ndarray]:
    """Name of a set → mapped teacher features `[N, D]` of its images.

    The mapping is fitted to all sets at once, and left in `folder`. Raises `DataError` for a held-out R² below 0.
    """
    assert context.teacher is not None
    sets = vectors.sets()
    teacher: Any = context.teacher.load().to(DEVICES[context.trainer.device_kind])
    pixels = np.concatenate([one.images for one in sets.values()])
    features = teacher.features(pixels)
    images = as_input(pixels, classifier)
    student = activations_of(classifier, images, [vectors.layer], vectors.pool)[vectors.layer]
    if vectors.pool == "none":
        with evaluating(classifier), torch.no_grad(), captured(classifier, [vectors.layer]) as seen:
            classifier(images[:1])
        student = student.reshape(len(student), *seen[vectors.layer].shape[1:])
    mapping = fit_mapping(kind, features, student, vectors.seed, context.trainer, folder / MAPPING)
    mapped = mapping.apply(features).flatten(1).numpy()
    bounds = np.cumsum([len(one.images) for one in sets.values()])[:-1]
    return dict(zip(sets, np.split(mapped, bounds), strict=True))
