"""`rollout`: how attention mixes patches, whatever the class (Abnar and Zuidema 2020): context, not an explanation."""

from torch import Tensor

from aaca.discover.attribution.base import Attribution
from aaca.discover.attribution.tokens import attention_of, check_transformer, grid_of, prefix_of, reading_row
from aaca.models.classifier import Classifier


class Rollout(Attribution):
    """R ← (½Ā + ½I)R with Ā the mean over heads; the row that the head reads. The same for every target."""

    def relevance(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Tensor:
        """Relevance `[B, T, h, w]`."""
        check_transformer(classifier, "rollout")
        with attention_of(classifier) as attentions:
            classifier(images)
        tokens, (rows, columns) = attentions[0].shape[-1], grid_of(classifier)
        row = reading_row(classifier, tokens, images.device).expand(len(images), 1, tokens)
        for attention in reversed(attentions):
            row = (row @ attention.detach().mean(dim=1) + row) / 2
        patches = row[:, :, prefix_of(classifier) :].reshape(-1, 1, rows, columns)
        return patches.expand(-1, targets.shape[1], -1, -1)

    def cells(self, classifier: Classifier) -> tuple[int, int]:
        """The model's patches."""
        check_transformer(classifier, "rollout")
        return grid_of(classifier)
