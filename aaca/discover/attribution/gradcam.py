"""`gradcam`: channels of a feature map, weighted by their mean gradient (Selvaraju et al. 2017, eq. 1-2)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from aaca.discover.attribution.base import Attribution, gradients_of
from aaca.discover.attribution.tokens import grid_of, is_transformer, prefix_of
from aaca.models.classifier import Classifier
from aaca.runtime.errors import ConfigError


class GradCam(Attribution):
    """relu(Σ_c α_c A_c), α_c the mean over places of ∂logit/∂A_c.

    A is the deepest feature map of a convolutional network with at least `least` cells a side: the last one at the
    usual 224 pixels, an earlier one for small images, whose last map has four places in all. Of a transformer it is the
    input of the last block's attention (`blocks[-1].norm1`): under class-token pooling the block's output has no
    gradient at the patches.
    """

    def __init__(self, least: int = 7) -> None:
        if least < 1:
            raise ConfigError(f"attribution.least: {least}; expected 1 or more cells a side")
        self.least = least

    def relevance(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Tensor:
        """Relevance `[B, T, h, w]`."""
        layer = self._layer(classifier)
        features, logits = _seen(classifier, layer, lambda: classifier(images))
        maps = []
        for (gradient,) in gradients_of(logits, targets, [features]):
            act, slope = (_places(classifier, value) for value in (features.detach(), gradient))
            maps.append((act * slope.mean(dim=(1, 2), keepdim=True)).sum(dim=3))
        return torch.stack(maps, dim=1)

    def cells(self, classifier: Classifier) -> tuple[int, int]:
        """The model's patches, or the size of the feature map."""
        if is_transformer(classifier):
            return grid_of(classifier)
        rows, columns = _map_size(classifier, self._layer(classifier))
        return rows, columns

    def _layer(self, classifier: Classifier) -> str:
        # the name of the module whose output is A
        if is_transformer(classifier):
            return f"blocks.{len(classifier.backbone.blocks) - 1}.norm1"
        layers = [str(info["module"]) for info in getattr(classifier.backbone, "feature_info", [])]
        if not layers:
            raise ConfigError(
                f"attribution: {type(classifier.backbone).__name__} does not say where its feature maps are; "
                "expected attribution=occlusion or integrated_gradients"
            )
        wide = [name for name in layers if min(_map_size(classifier, name)) >= self.least]
        return wide[-1] if wide else layers[0]


def _seen(classifier: Classifier, layer: str, forward: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
    # (what the layer gave, what forward gave)
    seen: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Tensor) -> None:
        seen.append(output)

    handle = classifier.backbone.get_submodule(layer).register_forward_hook(keep)
    try:
        logits = forward()
    finally:
        handle.remove()
    return seen[0], logits


@torch.no_grad()
def _map_size(classifier: Classifier, layer: str) -> tuple[int, int]:
    size, device = classifier.image_size, next(classifier.parameters()).device
    training = classifier.training
    classifier.eval()
    features, _ = _seen(classifier, layer, lambda: classifier(torch.zeros(1, 3, size, size, device=device)))
    classifier.train(training)
    _, rows, columns, _ = _places(classifier, features).shape
    return int(rows), int(columns)


def _places(classifier: Classifier, features: Tensor) -> Tensor:
    # as [B, h, w, C]
    if features.ndim == 3 and is_transformer(classifier):
        rows, columns = grid_of(classifier)
        return features[:, prefix_of(classifier) :].reshape(len(features), rows, columns, -1)
    if features.ndim != 4:
        raise ConfigError(
            f"attribution: gradcam needs a feature map, and {type(classifier.backbone).__name__} gives "
            f"{tuple(features.shape[1:])}; expected attribution=occlusion"
        )
    form = str(getattr(classifier.backbone, "output_fmt", "NCHW"))
    return features if form.endswith("NHWC") else features.permute(0, 2, 3, 1)
