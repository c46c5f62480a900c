"""`auto`: `grad_attn` for a vision transformer, `gradcam` for anything else."""

from torch import Tensor

from aaca.discover.attribution.base import Attribution
from aaca.discover.attribution.grad_attn import GradAttention
from aaca.discover.attribution.gradcam import GradCam
from aaca.discover.attribution.tokens import is_transformer
from aaca.models.classifier import Classifier


class Auto(Attribution):
    """Chooses by the classifier."""

    def chosen(self, classifier: Classifier) -> Attribution:
        """The method for this classifier."""
        return GradAttention() if is_transformer(classifier) else GradCam()

    def relevance(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Tensor:
        """Relevance `[B, T, h, w]`."""
        return self.chosen(classifier).relevance(classifier, images, targets)

    def cells(self, classifier: Classifier) -> tuple[int, int]:
        """Of the chosen method."""
        return self.chosen(classifier).cells(classifier)
