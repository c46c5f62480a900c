"""`occlusion`: how much a logit falls when a cell is covered (Zeiler and Fergus 2014); slow, and the most faithful."""

import torch
from torch import Tensor

from aaca.discover.attribution.base import Attribution, check_cells, target_logits
from aaca.models.classifier import Classifier


class Occlusion(Attribution):
    """f(x) − f(x with one of `cells` × `cells` equal areas set to the mean colour)."""

    def __init__(self, cells: int = 8) -> None:
        check_cells(cells)
        self.side = cells

    @torch.no_grad()
    def relevance(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Tensor:
        """Relevance `[B, T, cells, cells]`."""
        edges = [round(position * images.shape[-1] / self.side) for position in range(self.side + 1)]
        whole = target_logits(classifier(images), targets)
        maps = images.new_zeros(*targets.shape, self.side, self.side)
        for row in range(self.side):
            for column in range(self.side):
                covered = images.clone()
                covered[:, :, edges[row] : edges[row + 1], edges[column] : edges[column + 1]] = 0
                maps[:, :, row, column] = whole - target_logits(classifier(covered), targets)
        return maps

    def cells(self, classifier: Classifier) -> tuple[int, int]:
        """As configured."""
        return self.side, self.side
