"""Shapes in colours drawn with numpy, a small convolutional network that tells them apart, and what to draw of it."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn

from aaca.models.classifier import Classifier
from aaca.training.illusion import IllusionRequest, IllusionSpec, draw_illusions
from aaca.training.trainer import TrainerSpec

SIDE = 32
SHAPES = ("disc", "square", "triangle", "cross")
COLOURS = np.array([[220, 50, 50], [50, 200, 60], [60, 80, 230], [220, 200, 50]], dtype=np.float32)
CPU = TrainerSpec(accelerator="cpu")


def shape_images(n: int, seed: int, aligned: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """(images uint8 `[n, 32, 32, 3]`, shapes `[n]`) on grey noise; shape k has colour k in a share, else another."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % len(SHAPES)
    others = (labels + rng.integers(1, len(SHAPES), n)) % len(SHAPES)
    colours = np.where(rng.random(n) < aligned, labels, others)
    images = rng.normal(110, 22, (n, SIDE, SIDE, 3))
    down, across = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    for row, (label, colour) in enumerate(zip(labels, colours, strict=True)):
        y, x = down - rng.uniform(11, 21), across - rng.uniform(11, 21)
        inside = _inside(SHAPES[label], y, x, rng.uniform(6, 10))
        images[row][inside] = COLOURS[colour] + rng.normal(0, 12, 3)
    return images.clip(0, 255).astype(np.uint8), labels


def _inside(shape: str, y: np.ndarray, x: np.ndarray, radius: float) -> np.ndarray:
    square = np.maximum(abs(x), abs(y)) < radius
    if shape == "disc":
        return np.hypot(x, y) < radius
    if shape == "square":
        return square
    if shape == "triangle":
        return square & (abs(x) < (y + radius) / 2)
    return square & (np.minimum(abs(x), abs(y)) < radius / 3)


class ShapeNet(nn.Module):
    """Three blocks of convolution, batch norm, ReLU and pooling; 64 neurons."""

    def __init__(self, classes: int = len(SHAPES)) -> None:
        super().__init__()
        widths = (3, 16, 32, 64)
        blocks = [
            nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(inplace=True), nn.MaxPool2d(2))
            for a, b in pairwise(widths)
        ]
        self.num_features = widths[-1]
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(widths[-1], classes)

    def get_classifier(self) -> nn.Module:
        return self.fc

    def forward_features(self, images: Tensor) -> Tensor:
        return self.blocks(images)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        pooled = features.mean(dim=(2, 3))
        return pooled if pre_logits else self.fc(pooled)

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))


def shape_classifier(seed: int = 0, classes: int = len(SHAPES)) -> Classifier:
    """With random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Classifier(ShapeNet(classes), SIDE, [0.5] * 3, [0.25] * 3).check_head().eval()


def inputs(classifier: Classifier, images: np.ndarray) -> Tensor:
    """Normalised `[N, 3, S, S]`."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (classifier.mean, classifier.std))
    return (pixels - mean) / std


def trained_on_shapes(epochs: int = 6, n: int = 1200, seed: int = 0, aligned: float = 0.9) -> tuple[Classifier, Tensor]:
    """(the network after training on shapes, the 99 % quantile `[64]` of its neurons on them)."""
    images, labels = shape_images(n, seed, aligned)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = Classifier(ShapeNet(), SIDE, [0.5] * 3, [0.25] * 3).train()
        pixels, targets = inputs(classifier, images), torch.from_numpy(labels)
        optimizer = torch.optim.AdamW(classifier.parameters(), 3e-3, weight_decay=1e-2)
        for _ in range(epochs):
            for rows in torch.randperm(n).split(64):
                optimizer.zero_grad()
                F.cross_entropy(classifier(pixels[rows]), targets[rows]).backward()
                optimizer.step()
    with torch.no_grad():
        features = classifier.eval().embed(pixels)[0]
    return classifier, features.quantile(0.99, dim=0)


def small_resnet(classes: int = 10, image_size: int = 64) -> Classifier:
    """timm's own ResNet, four thin blocks: 128 neurons."""
    widths = [16, 32, 64, 128]
    network = ResNet(BasicBlock, [1, 1, 1, 1], channels=widths, num_classes=classes, zero_init_last=False)
    return Classifier(network, image_size, [0.5] * 3, [0.25] * 3).check_head().eval()


def small_vit(image_size: int = SIDE, **kwargs: Any) -> Classifier:
    """A ViT of a few thousand parameters with a class token."""
    network = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=image_size,
        patch_size=8,
        embed_dim=16,
        depth=2,
        num_heads=2,
        num_classes=3,
        **kwargs,
    )
    return Classifier(network, image_size, [0.5] * 3, [0.25] * 3).check_head().eval()


class ColourGuide:
    """A text guide that a person understands: an image is its mean colour around grey, a class's text a colour."""

    def __init__(self, *colours: tuple[float, float, float]) -> None:
        self.vectors = torch.tensor(colours)
        self.calls = 0

    def image_encoder(self, images: Tensor) -> Tensor:
        self.calls += 1
        return images.mean(dim=(2, 3)) - 0.5


def requests_on(pairs: list[tuple[int, int]], seed: int = 5) -> list[IllusionRequest]:
    """One image a (neuron, label)."""
    return [IllusionRequest(index, neuron, label, 0, seed + index) for index, (neuron, label) in enumerate(pairs)]


def draw_on_ranks(argument: dict[str, Any]) -> list[str]:
    """What every rank does: five images in batches of two."""
    from aaca.runtime.ranks import current

    spec = IllusionSpec(iterations=4, batch=2)
    requests = requests_on([(3, 0), (8, 1), (3, 1), (20, 2), (9, 3)])
    trainer = TrainerSpec(accelerator="cpu", devices=current().world)
    table = draw_illusions(requests, shape_classifier(), spec, None, None, None, Path(argument["folder"]), trainer)
    return list(table["image"])
