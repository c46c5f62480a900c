"""How far to trust a map: pointing game, deletion and insertion curves, correlation of maps."""

import numpy as np
import torch
from torch import Tensor

from aaca.discover.attribution.perturb import without_cells
from aaca.models.classifier import Classifier


def pointing_game(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Whether each map `[N, h, w]` peaks on its mask `[N, h, w]` (share of each cell, hit from ½ on); bool `[N]`.

    Zhang et al. 2018. A map without any relevance misses.
    """
    flat = maps.reshape(len(maps), -1)
    covered = masks.reshape(len(masks), -1)[np.arange(len(maps)), flat.argmax(axis=1)]
    return np.asarray((covered >= 0.5) & (flat.max(axis=1) > 0))


def energy(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Share of each map's relevance on its mask, `[N]` in [0, 1] (Wang et al. 2020, energy-based pointing game)."""
    return np.asarray((maps * masks).sum(axis=(1, 2)))


@torch.no_grad()
def deletion_insertion(
    classifier: Classifier, images: Tensor, maps: Tensor, targets: Tensor, steps: int = 16
) -> tuple[np.ndarray, np.ndarray]:
    """(deletion, insertion): mean probability of `targets` `[B]` along both curves, each `[B]` (Petsiuk et al. 2018).

    Cells of `maps` `[B, h, w]` are blurred (deletion) or brought back (insertion), most relevant first, in `steps`
    equal parts. A good map has a low deletion and a high insertion.
    """
    count, height, width = maps.shape
    order = maps.reshape(count, -1).argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    curves = []
    for deletes in (True, False):
        values = []
        for step in range(steps + 1):
            changed = (order < round(step * height * width / steps)).view(count, height, width)
            shown = without_cells(images, changed if deletes else ~changed)
            values.append(classifier(shown).softmax(dim=1).gather(1, targets[:, None])[:, 0])
        curves.append(torch.stack(values).mean(dim=0).cpu().numpy())
    return curves[0], curves[1]


def correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pearson correlation of pairs of maps `[N, h, w]`, `[N]`; 0 where a map is constant."""
    x, y = (values.reshape(len(values), -1).astype(np.float64) for values in (first, second))
    x, y = x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
    size = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    products = (x * y).sum(axis=1)
    return np.divide(products, size, out=np.zeros(len(x)), where=size > 0)
