"""`repair=rrr | local_penalty`: train f0 on with a penalty on gradients by pixels that shall not matter."""

from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from aaca.data.table import ImageReader, ImageTable
from aaca.data.transforms import EvalTransform
from aaca.discover.concepts.table import ConceptTable
from aaca.models.classifier import Classifier, ClassifierSource
from aaca.repair.base import RepairContext
from aaca.repair.tune import Tuning
from aaca.repair.vectors import as_input
from aaca.runtime.errors import ConfigError, nearest
from aaca.training.input_penalty import InputPenalty, Of, Region, corners, foreground
from aaca.training.recipe import Recipe

Where = Literal["concepts", "corners", "foreground"]
CORNER = 5  # pixels a side (DecoyMNIST)


class PenaliseInput(Tuning):
    """Right for the Right Reasons (Ross et al. 2017), or the local penalty of Concept Distillation ("+L").

    Args:
        where: concepts (below the masks of what is blamed, on training images: concepts= with places) | corners (four
            squares of 5 pixels) | foreground (random pixels that are not black).
        of: log_probabilities (RRR) | loss (the local penalty).
        strength: of the penalty.
        pixels: how many, of foreground.
        epochs, lr, batch_size: of this training; null: the recipe's.

    """

    mixes_well = False

    def __init__(
        self,
        where: Where = "concepts",
        of: Of = "log_probabilities",
        strength: float = 1.0,
        pixels: int = 8,
        epochs: int | None = 8,
        lr: float | None = 1e-3,
        batch_size: int | None = None,
    ) -> None:
        super().__init__(epochs, lr, batch_size)
        if where not in get_args(Where):
            raise ConfigError(f"repair.where: {where!r}; {nearest(where, get_args(Where))}")
        if strength < 0:
            raise ConfigError(f"repair.strength: {strength}; expected 0 or more")
        if pixels < 1:
            raise ConfigError(f"repair.pixels: {pixels}; expected 1 or more")
        self.where, self.of, self.strength, self.pixels = where, of, strength, pixels

    @property
    def needs_masks(self) -> bool:  # type: ignore[override]
        """Where the penalty lies below concepts."""
        return self.where == "concepts"

    @property
    def asks_for(self) -> str:  # type: ignore[override]
        """Masks, or knowledge of where the bias is; lit pixels are nobody's knowledge."""
        asked = {"concepts": "concept masks of train", "corners": "where the bias is", "foreground": "nothing more"}
        return asked[self.where]

    def fingerprint(self) -> dict[str, Any]:
        """All arguments."""
        return {"repair": "input_penalty", "init": "f0", **vars(self)}

    def check(self, model: ClassifierSource, recipe: Recipe) -> None:
        """Raise `ConfigError` for mixed images, and for more pixels than an image has."""
        super().check(model, recipe)
        if self.where == "foreground" and self.pixels > model.image_size**2:
            raise ConfigError(f"repair.pixels: {self.pixels}; an image has {model.image_size**2}")

    def apply(self, context: RepairContext, folder: Path) -> dict[str, Any]:
        """Train on; see `Repair.apply`."""
        classifier = context.start("f0")
        module = partial(InputPenalty, of=self.of, region=self._region(context, classifier), strength=self.strength)
        return context.fit(classifier, folder, self.tuned(context.recipe), module=module, objective=repr(vars(self)))

    def _region(self, context: RepairContext, classifier: Classifier) -> Region:
        if self.where == "corners":
            return corners(CORNER)
        if self.where == "foreground":
            black = torch.tensor([-m / s for m, s in zip(classifier.mean, classifier.std, strict=True)])
            return foreground(self.pixels, black)
        assert context.masks is not None
        return below(context.masks, context.train, classifier)


def below(masks: ConceptTable, table: ImageTable, classifier: Classifier) -> Region:
    """Below all masks of an image, of the image as it is (augmentation would move it away from its masks).

    Rows that `masks` does not know (a debug set's) have none.
    """
    size, reader, view = classifier.image_size, ImageReader(table), EvalTransform(classifier.image_size)
    cells = masks.masks.shape[1:]
    union = np.zeros((len(table), *cells), dtype=np.float16)
    placed = masks.frame[masks.frame["mask"] >= 0]
    for row, mask in zip(placed["row"], placed["mask"], strict=True):
        union[row] = np.maximum(union[row], masks.masks[mask])

    def region(images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        own = rows.cpu().numpy()
        pixels = np.stack([np.asarray(view(image).permute(1, 2, 0)) for image in reader.read(own)])
        where = torch.from_numpy(union[own].astype(np.float32))[:, None]
        return (
            as_input(pixels, classifier).to(images),
            F.interpolate(where, size=(size, size), mode="nearest").to(images),
        )

    return region
