"""`gt`: the benchmark's own truth: what is in each image, and the exact masks."""

import json

import numpy as np

from aaca.concepts.concept_sets import ConceptKind
from aaca.data.table import ImageTable
from aaca.discover.concepts.base import ConceptSource, Look, View
from aaca.discover.concepts.table import ConceptTable
from aaca.runtime.errors import DataError

LAYERS = ("backdrop", "scene", "object", "concept")
"""Roles of a scene graph in the order of the mask's layers; the backdrop is in every image and in no graph."""

KINDS: dict[str, ConceptKind] = {
    "backdrop": "background",
    "scene": "background",
    "object": "object",
    "concept": "object",
}


class GroundTruth(ConceptSource):
    """Reads the columns `graph` (things by role and label) and `masks` (`.npy`, uint8 `[N, 4, S, S]`)."""

    needs_truth = frozenset({"graph", "masks"})

    def find(self, table: ImageTable, view: View, look: Look | None, places: bool) -> ConceptTable:
        """One row a thing of an image's scene graph, and one for its backdrop."""
        frame = table.frame
        if "graph" not in frame or not (frame["graph"] != "").all():
            raise DataError(
                "concepts: the dataset has no ground truth (column `graph`); expected concepts=tags or segment"
            )
        if places and ("masks" not in frame or not (frame["masks"] != "").all()):
            split = ", ".join(sorted(set(frame["split"])))
            raise DataError(
                f"concepts: no masks of split {split}; expected dataset.masks to name it, or concepts=tags or segment"
            )
        rows: list[int] = []
        labels: list[str] = []
        kinds: list[ConceptKind] = []
        layers: list[int] = []
        for row, graph in enumerate(frame["graph"]):
            things = [
                ("backdrop", "backdrop"),
                *((entry["role"], entry["label"]) for entry in json.loads(graph)["objects"]),
            ]
            for role, label in things:
                rows.append(row)
                labels.append(label)
                kinds.append(KINDS[role])
                layers.append(LAYERS.index(role))
        masks = self._masks(table, np.array(rows), np.array(layers), view) if places else None
        return ConceptTable.build(rows, labels, kinds, masks, len(table), view.cells)

    def _masks(self, table: ImageTable, rows: np.ndarray, layers: np.ndarray, view: View) -> np.ndarray:
        found = np.zeros((len(rows), *view.cells), dtype=np.float32)
        files, places = table.frame["masks"], table.frame["row"].to_numpy()
        for name in files.unique():
            array = np.load(table.root / str(name), mmap_mode="r", allow_pickle=False)
            own = np.flatnonzero((files == name).to_numpy()[rows])
            for part in np.array_split(own, max(1, len(own) // 4096)):
                masks = array[places[rows[part]], layers[part]]
                if masks.shape[1:] != (view.size, view.size):
                    masks = np.stack([view.of(mask[..., None])[..., 0] for mask in masks])
                found[part] = shrunk(masks.astype(np.float32) / 255, view.cells)
        return found


def shrunk(masks: np.ndarray, cells: tuple[int, int]) -> np.ndarray:
    """Means of masks `[N, H, W]` over a grid of `cells`, `[N, h, w]`; exact where it does not divide them, too."""
    return np.einsum("ih,nhw,jw->nij", _weights(masks.shape[1], cells[0]), masks, _weights(masks.shape[2], cells[1]))


def _weights(pixels: int, cells: int) -> np.ndarray:
    # [cells, pixels]: which share of a cell each pixel is
    edges = np.linspace(0, pixels, cells + 1)
    places = np.arange(pixels)
    overlap = np.minimum(edges[1:, None], places + 1) - np.maximum(edges[:-1, None], places)
    return (overlap.clip(min=0) * cells / pixels).astype(np.float32)
