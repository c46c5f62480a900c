"""`DigitCnn`: the two-convolution network of the ColorMNIST studies (CDEP, Concept Distillation), 28-px RGB inputs."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from aaca.models.classifier import Classifier, ClassifierSource
from aaca.runtime.errors import ConfigError

SIDE = 28


class DigitNet(nn.Module):
    """conv 3→20 (5×5), ReLU, pool, conv 20→50 (5×5), ReLU, pool, fc 800→500, ReLU, fc 500→C."""

    def __init__(self, n_classes: int, hidden: int = 500) -> None:
        super().__init__()
        self.num_features = hidden
        self.conv1 = nn.Conv2d(3, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.fc1 = nn.Linear(800, hidden)
        self.fc2 = nn.Linear(hidden, n_classes)

    def get_classifier(self) -> nn.Module:
        """The last layer (timm's name)."""
        return self.fc2

    def forward_features(self, images: Tensor) -> Tensor:
        """`[B, 50, 4, 4]` of `[B, 3, 28, 28]`."""
        first = F.max_pool2d(F.relu(self.conv1(images)), 2)
        return F.max_pool2d(F.relu(self.conv2(first)), 2)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits `[B, C]`, or what the last layer sees, `[B, hidden]`."""
        embedding = F.relu(self.fc1(features.flatten(1)))
        return embedding if pre_logits else self.fc2(embedding)

    def forward(self, images: Tensor) -> Tensor:
        """Logits `[B, C]`."""
        return self.forward_head(self.forward_features(images))


class DigitCnn(ClassifierSource):
    """The network from scratch; `hidden`: width of its first fully connected layer (500; 256 for DecoyMNIST)."""

    image_size = SIDE

    def __init__(self, hidden: int = 500) -> None:
        if hidden < 1:
            raise ConfigError(f"model.hidden: {hidden}; expected 1 or more")
        self.hidden = hidden

    def fingerprint(self) -> dict[str, Any]:
        """All arguments."""
        return {"net": "digit_cnn", "hidden": self.hidden}

    def build(self, n_classes: int, drop_path: float = 0.0, start_weights: bool = True) -> Classifier:
        """The network. Raises `ConfigError` for a drop path, which it does not have."""
        if drop_path:
            raise ConfigError(f"recipe.drop_path: {drop_path}; digit_cnn has no residual paths; expected 0")
        return Classifier(DigitNet(n_classes, self.hidden), SIDE, [0.5] * 3, [0.5] * 3).check_head()
