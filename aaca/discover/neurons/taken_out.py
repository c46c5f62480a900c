"""Pooled features of images without a concept: its place is painted over, blurred, or filled from another image."""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from aaca.data.table import ImageTable
from aaca.data.transforms import EvalTransform, normalise
from aaca.discover.attribution.perturb import without as blurred
from aaca.discover.concepts.table import ConceptTable
from aaca.models.classifier import Classifier
from aaca.models.head import Head
from aaca.runtime.errors import ConfigError, nearest
from aaca.runtime.seeding import purpose_seed

Fill = Literal["other", "mean", "blur"]
Others = Callable[[np.ndarray], Tensor]
"""Rows `[B]` of the loop's table → the normalised images `[B, 3, S, S]` that are seen through their masks."""


class WithoutFeatures:
    """Pooled features and logits of every image with what its mask `[N, h, w]` covers taken out.

    `other` shows another image there (see `donors`): the only fill that is no texture of its own. `mean` paints the
    mean colour of the normalisation, which is much like sand; `blur` keeps the colours, so that a neuron for the colour
    of sand does not notice. `others` is for `other` alone.
    """

    dtype = "float32"

    def __init__(
        self, classifier: Classifier, masks: np.ndarray, fill: Fill = "other", others: Others | None = None
    ) -> None:
        if fill not in get_args(Fill):
            raise ConfigError(f"neurons.fill: {fill!r}; {nearest(fill, get_args(Fill))}")
        if (fill == "other") != (others is not None):
            raise ConfigError(f"neurons.fill: {fill} with{'' if others else 'out'} other images; only `other` has them")
        self.classifier, self.masks, self.fill, self.others = classifier, masks, fill, others
        self.dim = Head.of(classifier).neurons

    def __call__(self, images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(features `[B, D]`, logits `[B, K]`)."""
        places = rows.cpu().numpy()
        masks = torch.from_numpy(self.masks[places].astype(np.float32)).to(images.device)
        if self.fill == "blur":
            return self.classifier.embed(blurred(images, masks))
        inside = images.new_zeros(()) if self.others is None else self.others(places).to(images)
        return self.classifier.embed(filled(images, masks, inside))


def filled(images: Tensor, masks: Tensor, inside: Tensor) -> Tensor:
    """Images `[B, C, S, S]`, and `inside` where masks `[B, h, w]` in 0…1 say so, softly at their borders."""
    soft = F.interpolate(masks[:, None].to(images.dtype), size=images.shape[-2:], mode="bilinear", align_corners=False)
    return images * (1 - soft) + inside * soft


def donors(
    labels: np.ndarray, concepts: ConceptTable, pairs: np.ndarray, names: Sequence[str], seed: int
) -> np.ndarray:
    """The row `[P]` of the image that fills the place of each (row, column of `names`) of `pairs` `[P, 2]`.

    Drawn among images of the same class without the concept (so that nothing else about the class changes with it),
    else among those of any class, else, where all show it, among all.
    """
    present = concepts.present(names)
    found = np.zeros(len(pairs), dtype=np.int64)
    for label, column in {(int(labels[row]), int(column)) for row, column in pairs}:
        own = np.flatnonzero((labels[pairs[:, 0]] == label) & (pairs[:, 1] == column))
        lacking = ~present[:, column]
        choices = next(some for some in (lacking & (labels == label), lacking, np.ones_like(lacking)) if some.any())
        rng = np.random.default_rng(purpose_seed(seed, "donors", label, names[column]))
        found[own] = rng.choice(np.flatnonzero(choices), len(own))
    return found


def images_of(table: ImageTable, rows: np.ndarray, classifier: Classifier) -> Others:
    """The images at these rows of `table` (of `donors`), as the classifier sees them."""
    look = EvalTransform(classifier.image_size)

    def read(places: np.ndarray) -> Tensor:
        seen = torch.stack([look(table.image(int(row))) for row in rows[places]]).float() / 255
        return normalise(seen, classifier.mean, classifier.std)

    return read
