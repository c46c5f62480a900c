"""`segment`: an image falls into parts of like colour; an image-text model names each from a vocabulary."""

from typing import Any

import numpy as np
from PIL import Image
from sklearn.cluster import KMeans

from aaca.concepts.concept_sets import ConceptKind
from aaca.data.table import ImageTable
from aaca.discover.concepts.base import ConceptSource, Look, View
from aaca.discover.concepts.gt import shrunk
from aaca.discover.concepts.table import UNKNOWN, ConceptTable
from aaca.discover.concepts.vocabulary import Vocabulary, vocabulary_file
from aaca.runtime.errors import ConfigError
from aaca.runtime.files import file_sha256

SIDE = 64  # pixels a side at which parts are found
OUTSIDE = 0.35  # how much of the surroundings a crop shows: enough to see where the part is


class Segment(ConceptSource):
    """k-means on colour and place (as SLIC does, Achanta et al. 2012); each part's crop is named by CLIP.

    Args:
        parts: of an image.
        compactness: weight of place against colour; larger gives rounder parts.
        margin: a name must be this much nearer than the second (cosine), or the part stays unknown.
        vocabulary: a YAML file of kinds and names; None: of the embedded world.

    """

    needs_clip = True
    needs_images = False

    def __init__(
        self, parts: int = 6, compactness: float = 0.6, margin: float = 0.02, vocabulary: str | None = None
    ) -> None:
        if not 2 <= parts <= 64:
            raise ConfigError(f"concepts.parts: {parts}; expected 2…64")
        if compactness <= 0:
            raise ConfigError(f"concepts.compactness: {compactness}; expected a positive number")
        Vocabulary.load(vocabulary)  # a mistake in the file is said before any work
        self.parts, self.compactness, self.margin, self.vocabulary = parts, compactness, margin, vocabulary

    def fingerprint(self) -> dict[str, Any]:
        """The vocabulary by content."""
        return {"words": file_sha256(vocabulary_file(self.vocabulary))}

    def find(self, table: ImageTable, view: View, look: Look | None, places: bool) -> ConceptTable:
        """One row a part of an image; parts of one name in an image count together wherever sums are taken."""
        assert look is not None
        words = Vocabulary.load(self.vocabulary)
        named = words.vectors(look)
        rows: list[int] = []
        masks: list[np.ndarray] = []
        crops: list[np.ndarray] = []
        for row in range(len(table)):
            seen = Image.fromarray(view.of(table.image(row)))
            image = np.asarray(seen.resize((SIDE, SIDE), Image.Resampling.BOX))
            for mask in parts_of(image, self.parts, self.compactness):
                rows.append(row)
                masks.append(shrunk(mask[None].astype(np.float32), view.cells)[0])
                crops.append(crop_of(image, mask))
        cosines = look.crops(np.stack(crops)) @ named.T
        best = cosines.argsort(axis=1)[:, ::-1]
        at = np.arange(len(rows))
        sure = cosines[at, best[:, 0]] - cosines[at, best[:, 1]] >= self.margin
        names = [words.names[place] if known else UNKNOWN for place, known in zip(best[:, 0], sure, strict=True)]
        kinds: list[ConceptKind] = [words.kinds[place] for place in best[:, 0]]
        return ConceptTable.build(rows, names, kinds, np.stack(masks) if places else None, len(table), view.cells)


def parts_of(image: np.ndarray, parts: int, compactness: float) -> list[np.ndarray]:
    """Masks bool `[H, W]` that make up the image uint8 `[H, W, 3]`; at most `parts`, none empty."""
    height, width = image.shape[:2]
    rows, columns = np.mgrid[0:height, 0:width] / max(height, width)
    colours = image.astype(np.float64) / 255
    points = np.concatenate([colours, compactness * np.stack([rows, columns], axis=2)], axis=2).reshape(-1, 5)
    start = points.reshape(height, width, 5)[:: max(1, height // 8), :: max(1, width // 8)].reshape(-1, 5)
    chosen = start[np.linspace(0, len(start) - 1, parts).round().astype(int)]
    labels = KMeans(parts, init=chosen, n_init=1, max_iter=20).fit_predict(points).reshape(height, width)
    return [labels == part for part in np.unique(labels)]


def crop_of(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image with everything but the part faded to grey, uint8, as large as the image."""
    weight = np.where(mask, 1.0, OUTSIDE)[..., None]
    return np.asarray((weight * image + (1 - weight) * 128).round().astype(np.uint8))
