"""`Classifier`: any timm model seen as embedding + linear head; `ClassifierSource`: the role of the `model` group."""

import hashlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from aaca.runtime.errors import AacaError, ConfigError


def parameters_sha256(module: nn.Module) -> str:
    """Of all parameters' bytes, in order."""
    sha = hashlib.sha256()
    for parameter in module.parameters():
        sha.update(parameter.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


class Classifier(nn.Module):
    """A timm backbone whose logits are `head(embedding)`.

    `mean` and `std` (each three numbers, of images scaled to [0, 1]) are what its inputs are normalised with.
    """

    def __init__(self, backbone: nn.Module, image_size: int, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.backbone: Any = backbone.to(memory_format=torch.channels_last)  # twice as fast for convolutions on a CPU
        self.image_size = image_size
        self.mean = mean
        self.std = std

    @property
    def head(self) -> nn.Module:
        """The last layer: embeddings `[B, D]` to logits `[B, C]`."""
        head: nn.Module = self.backbone.get_classifier()
        return head

    def forward(self, images: Tensor) -> Tensor:
        """Logits `[B, C]` of normalised images `[B, 3, S, S]`."""
        logits: Tensor = self.backbone(images.contiguous(memory_format=torch.channels_last))
        return logits

    def embed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(embeddings `[B, D]`, logits `[B, C]`) of normalised images, in one forward pass."""
        features = self.backbone.forward_features(images.contiguous(memory_format=torch.channels_last))
        embeddings = self.backbone.forward_head(features, pre_logits=True)
        return embeddings, self.head(embeddings)

    @torch.no_grad()
    def check_head(self) -> "Classifier":
        """Return self if `head(embedding)` is the model's own output; else raise `AacaError` (an unusual timm head)."""
        training = self.training
        self.eval()
        device = next(self.parameters()).device
        probe = torch.linspace(-2, 2, 2 * 3 * self.image_size**2, device=device)
        images = probe.view(2, 3, self.image_size, self.image_size)
        embeddings, logits = self.embed(images)
        if embeddings.ndim != 2 or not torch.allclose(logits, self(images), rtol=1e-4, atol=1e-5):
            raise AacaError(
                f"model.name: {type(self.backbone).__name__} has a head that is not one layer on top of its pre-logits "
                f"(embedding shape {tuple(embeddings.shape)}); choose a model with a linear head"
            )
        self.train(training)
        return self

    def save(self, path: Path) -> None:
        """Write the weights as safetensors. Raises `AacaError` naming the file when the disk does not take them."""
        try:
            save_file({name: value.contiguous() for name, value in self.state_dict().items()}, path)
        except SafetensorError as error:
            raise AacaError(f"{path}: weights could not be written ({error}); nothing was published") from error

    def load(self, path: Path) -> "Classifier":
        """Read weights written by `save`; every key has to fit."""
        self.load_state_dict(load_file(path))
        return self


class ClassifierSource(ABC):
    """How to build a classifier with its start weights: the role of the `model` config group."""

    image_size: int

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """Everything that influences what `build` returns, weight files by their SHA-256."""

    @abstractmethod
    def build(self, n_classes: int, drop_path: float = 0.0, start_weights: bool = True) -> Classifier:
        """A classifier for `n_classes` with its start weights; unset weights come from torch's global generator.

        Without `start_weights` nothing is loaded: for a classifier whose weights are about to be replaced.
        """


def check_image_size(size: int) -> None:
    """Raise `ConfigError` unless `size` (pixels a side) is a sensible model input."""
    if not 8 <= size <= 2048:
        raise ConfigError(f"model.image_size: expected 8…2048 pixels, got {size}")
