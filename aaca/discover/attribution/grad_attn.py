"""`grad_attn`: class-specific relevance of patches through all attention layers (Chefer et al. 2021b, eq. 5-6)."""

from torch import Tensor

from aaca.discover.attribution.base import Attribution, gradients_of
from aaca.discover.attribution.tokens import attention_of, check_transformer, grid_of, prefix_of, reading_row
from aaca.models.classifier import Classifier


class GradAttention(Attribution):
    """Ā = mean over heads of relu(∇A ⊙ A); R ← R + ĀR from R = I; the row that the head reads, patches only.

    Only that row is carried, from the last block to the first, so a block costs a product of a vector and a matrix.
    """

    def relevance(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Tensor:
        """Relevance `[B, T, h, w]`."""
        check_transformer(classifier, "grad_attn")
        with attention_of(classifier) as attentions:
            logits = classifier(images)
        found = gradients_of(logits, targets, attentions)
        rows, columns = grid_of(classifier)
        tokens = attentions[0].shape[-1]
        start = reading_row(classifier, tokens, images.device).expand(len(images), 1, tokens)
        maps = images.new_zeros(len(images), targets.shape[1], rows, columns)
        for t, gradients in enumerate(found):
            row = start
            for attention, gradient in zip(reversed(attentions), reversed(gradients), strict=True):
                row = row + row @ (attention.detach() * gradient).clamp(min=0).mean(dim=1)
            # the start row stands for the identity's part: no relevance of a patch for another
            maps[:, t] = (row - start)[:, 0, prefix_of(classifier) :].reshape(-1, rows, columns)
        return maps

    def cells(self, classifier: Classifier) -> tuple[int, int]:
        """The model's patches."""
        check_transformer(classifier, "grad_attn")
        return grid_of(classifier)
