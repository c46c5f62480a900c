"""Filters: which generated images are fit to be trained on. One after the other; each drop has one reason."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from PIL import Image
from pydantic import Field

from aaca.data.table import ImageTable

REASONS = ("failed", "clip_class", "clip_concept", "third_class", "near_duplicate", "leak")
"""In the order in which they are looked for. failed: every seed gave a blank image."""

RIVAL_SHARE = 0.1
"""A class that takes this share of a class's failures on audit is its rival."""

THUMBNAIL = 16


@dataclass(frozen=True, kw_only=True)
class FilterChain:
    """Thresholds; None switches a filter off.

    `clip_class`, `clip_concept`: the cosine of image and name must reach this percentile of the class's real training
    images. `third_class`: dropped where the failing classifier gives a class that is neither the image's nor a rival of
    it at least this probability; wrong towards a rival is what a debug set is for. `near_duplicate`: dropped where the
    thumbnail correlates this much with one of the same class that was kept before it, or (a leak) with an image of
    train, audit or a test split.
    """

    clip_class: Annotated[float, Field(ge=0, le=100)] | None
    clip_concept: Annotated[float, Field(ge=0, le=100)] | None
    third_class: Annotated[float, Field(gt=0, le=1)] | None
    near_duplicate: Annotated[float, Field(gt=0, le=1)] | None

    @property
    def needs_clip(self) -> bool:
        """Whether an image-text model is looked at."""
        return self.clip_class is not None or self.clip_concept is not None


@dataclass(frozen=True)
class Looks:
    """What the filters look at, of N generated images. Vectors are of unit length; `vectors` is None without CLIP."""

    labels: np.ndarray  # [N]
    concepts: np.ndarray  # [N] of str, "" for none
    probabilities: np.ndarray  # [N, C] of the failing classifier
    thumbnails: np.ndarray  # [N, T]
    rivals: Mapping[int, set[int]]  # label → labels
    known: np.ndarray  # [M, T] thumbnails of the real images
    vectors: np.ndarray | None = None  # [N, D]
    real_vectors: np.ndarray | None = None  # [R, D] of training images
    real_labels: np.ndarray | None = None  # [R]
    class_vectors: np.ndarray | None = None  # [C, D]
    concept_vectors: Mapping[str, np.ndarray] | None = None


def reasons_to_drop(chain: FilterChain, looks: Looks) -> np.ndarray:
    """For each image the first reason to drop it, or "": `[N]` of str."""
    reasons = np.full(len(looks.labels), "", dtype=object)

    def drop(wrong: np.ndarray, reason: str) -> None:
        reasons[(reasons == "") & wrong] = reason

    if chain.clip_class is not None:
        drop(below_real(looks, chain.clip_class, concepts=False), "clip_class")
    if chain.clip_concept is not None:
        drop(below_real(looks, chain.clip_concept, concepts=True), "clip_concept")
    if chain.third_class is not None:
        drop(confident_third(looks, chain.third_class), "third_class")
    if chain.near_duplicate is not None:
        left = np.flatnonzero(reasons == "")
        reasons[left] = repeats(looks.thumbnails[left], looks.labels[left], looks.known, chain.near_duplicate)
    return reasons


def below_real(looks: Looks, percentile: float, concepts: bool) -> np.ndarray:
    """Whether an image is less like its class's name (or its concept's) than `percentile` % of the real images are."""
    assert looks.vectors is not None and looks.real_vectors is not None and looks.real_labels is not None
    assert looks.class_vectors is not None and looks.concept_vectors is not None
    wrong = np.zeros(len(looks.labels), dtype=bool)
    for label in np.unique(looks.labels):
        real = looks.real_vectors[looks.real_labels == label]
        own = looks.labels == label
        texts = sorted(set(looks.concepts[own]) - {""}) if concepts else [""]
        for text in texts:
            vector = looks.concept_vectors[text] if text else looks.class_vectors[label]
            rows = own & (looks.concepts == text) if concepts else own
            if len(real):
                wrong[rows] = looks.vectors[rows] @ vector < np.percentile(real @ vector, percentile)
    return wrong


def confident_third(looks: Looks, probability: float) -> np.ndarray:
    """Whether the failing classifier is sure of a class that is neither the image's nor a rival's."""
    sure, said = looks.probabilities.max(axis=1) >= probability, looks.probabilities.argmax(axis=1)
    allowed = [said[row] in looks.rivals.get(label, set()) | {label} for row, label in enumerate(looks.labels.tolist())]
    return sure & ~np.array(allowed, dtype=bool)


def rivals_of(labels: np.ndarray, predictions: np.ndarray) -> dict[int, set[int]]:
    """For each label the classes that take at least `RIVAL_SHARE` of its failures."""
    found: dict[int, set[int]] = {}
    for label in np.unique(labels).tolist():
        wrong = predictions[(labels == label) & (predictions != label)]
        values, counts = np.unique(wrong, return_counts=True)
        found[label] = set(values[counts >= RIVAL_SHARE * max(len(wrong), 1)].tolist())
    return found


def repeats(
    thumbnails: np.ndarray, labels: np.ndarray, known: np.ndarray, limit: float, chunk: int = 1024
) -> np.ndarray:
    """The reason `leak` where a thumbnail is almost one of `known`, `near_duplicate` where almost an earlier one."""
    reasons = np.full(len(labels), "", dtype=object)
    for start in range(0, len(labels), chunk):
        part = slice(start, start + chunk)
        for begin in range(0, len(known), 16 * chunk):
            close = (thumbnails[part] @ known[begin : begin + 16 * chunk].T).max(axis=1, initial=-1.0) >= limit
            reasons[part][close] = "leak"
    for label in np.unique(labels):
        kept: list[int] = []
        for row in np.flatnonzero((labels == label) & (reasons == "")).tolist():
            if kept and (thumbnails[kept] @ thumbnails[row]).max() >= limit:
                reasons[row] = "near_duplicate"
            else:
                kept.append(row)
    return reasons


def thumbnails_of(table: ImageTable) -> np.ndarray:
    """Unit vectors `[N, 3·16²]` float32 of images made small, brightness taken out: their product is a correlation."""
    found = np.empty((len(table), 3 * THUMBNAIL**2), dtype=np.float32)
    for row in range(len(table)):
        small = Image.fromarray(table.image(row)).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
        values = np.asarray(small, dtype=np.float32).ravel()
        values -= values.mean()
        found[row] = values / max(float(np.linalg.norm(values)), 1e-6)
    return found


def funnel(asked: int, reasons: np.ndarray, redrawn: int, kept: int) -> dict[str, int]:
    """How many images were asked for, redrawn, dropped for each reason, passed, and taken in the end.

    `reasons` are those of the images there are; what is missing of `asked` has failed.
    """
    counts = {reason: int((reasons == reason).sum()) for reason in REASONS} | {"failed": asked - len(reasons)}
    passed = int((reasons == "").sum())
    return {"asked": asked, "redrawn": redrawn, **counts, "passed": passed, "taken": kept}
