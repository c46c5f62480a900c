"""How good a generated debug set is, class by class: image-text model, judge, distance to the real images."""

import numpy as np

from aaca.data.features import Scored
from aaca.data.table import ImageTable
from aaca.evaluate.kid import kid
from aaca.world.pack import load_pack
from aaca.world.shipped import MODELS


def quality_of(
    table: ImageTable, clip_class: np.ndarray | None, vectors: dict[str, Scored]
) -> dict[str, dict[str, float]]:
    """Class → score → value for the images of `table` (those taken).

    `vectors`: of these images (`generated`) and of `train` in an image-text model's space; without them only the judge
    speaks, and it knows nothing but the embedded world.
    """
    judged = _judged(table)
    found: dict[str, dict[str, float]] = {}
    for label, name in enumerate(table.classes):
        own = table.labels == label
        scores: dict[str, float] = {}
        if clip_class is not None and vectors:
            made, real = vectors["generated"], vectors["train"]
            scores["CLIP"] = float(clip_class[own].mean()) if own.any() else float("nan")
            scores["KID"] = kid(made.embeddings[own], real.embeddings[real.labels == label])
        if judged is not None:
            scores["judge: class"] = float((judged[own] == label).mean()) if own.any() else float("nan")
        found[name] = scores
    return found


def _judged(table: ImageTable) -> np.ndarray | None:
    # the class that the judge sees in each image
    if tuple(table.classes) != load_pack().classes or not (MODELS / "judge").is_dir() or not len(table):
        return None
    from aaca.models.judge import Judge

    images = np.stack([table.image(row) for row in range(len(table))])
    verdicts: np.ndarray = Judge.load(MODELS / "judge").verdicts(images)["class"]
    return verdicts.argmax(axis=1)
