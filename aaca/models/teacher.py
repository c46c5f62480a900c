"""`TeacherSource`, the role of the `teacher` config group: a frozen network whose feature maps say what is where."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aaca.models.timm_model import IMAGENET_MEAN, IMAGENET_STD, TimmModel
from aaca.models.zero_shot import ClipModel
from aaca.runtime.errors import AacaError, ConfigError, nearest

BATCH = 32  # images a forward pass: a ViT-B/8 at 224 px has 785 tokens an image
MapOf = Callable[[Any, Tensor], Tensor]


class Teacher(nn.Module):
    """A frozen network that shows images as maps of features (Concept Distillation, section 3: DINO's patch tokens).

    `mean` and `std` (each three numbers, of images scaled to [0, 1]) are the network's own. The released code fed
    images of 28 px as they were, which left a grid of 3 × 3 and four columns unseen, and forgot to normalise them.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, map_of: MapOf, image_size: int, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.map_of, self.image_size = map_of, image_size
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))

    def train(self, mode: bool = True) -> "Teacher":
        """Stay in evaluation mode, whatever it is a part of."""
        return super().train(False)

    @torch.no_grad()
    def features(self, images: np.ndarray) -> Tensor:
        """Feature maps float32 `[N, c, h, w]` on the CPU of images uint8 `[N, S, S, 3]` of any size.

        The last block's patch tokens after its norm, without class and register tokens, where they were in the image;
        of a convolutional network the last map. Runs on the device that the teacher is on.
        """
        found = [self.map_of(self.network, self._shown(batch)).float().cpu() for batch in _batches(images)]
        return torch.cat(found).contiguous()

    def _shown(self, images: np.ndarray) -> Tensor:
        batch = torch.from_numpy(np.ascontiguousarray(images)).to(self.mean.device).permute(0, 3, 1, 2).float() / 255
        if batch.shape[-2:] != (self.image_size, self.image_size):
            size = (self.image_size, self.image_size)
            batch = F.interpolate(batch, size=size, mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)
        return (batch - self.mean) / self.std


def _batches(images: np.ndarray) -> list[np.ndarray]:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or not len(images):
        raise ValueError(f"images {images.dtype} {images.shape}; expected uint8 [N, S, S, 3], N > 0")
    return [images[start : start + BATCH] for start in range(0, len(images), BATCH)]


class TeacherSource(ABC):
    """How to load a teacher: the role of the `teacher` config group."""

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """Everything that influences what `load` returns, weight files by their SHA-256."""

    @abstractmethod
    def load(self) -> Teacher:
        """The teacher on the CPU. Raises `AacaError` in one line when its weights cannot be had."""


class TimmTeacher(TeacherSource):
    """Any timm model that gives feature maps: DINO, or the embedded small ViT.

    Args:
        name: timm's name of it, as `vit_base_patch8_224.dino`.
        image_size: pixels a side that images are resized to (bicubic); a ViT's grid is this over its patch size.
        checkpoint: a file of weights (safetensors or .pth, or `embedded:` and its name).
        pretrained: weights from timm's hub instead. Neither: random ones, always the same (a control).
        kwargs: further arguments of the model.
        mean, std: of its inputs in [0, 1]; null: timm's for this model.

    """

    def __init__(
        self,
        name: str,
        image_size: int = 224,
        checkpoint: str | None = None,
        pretrained: bool = False,
        kwargs: dict[str, Any] | None = None,
        mean: list[float] | None = None,
        std: list[float] | None = None,
    ) -> None:
        self.name, self.image_size, self.checkpoint, self.pretrained = name, image_size, checkpoint, pretrained
        self.kwargs = kwargs or {}
        with _as_teacher():
            self._model()
        try:
            known = timm.get_pretrained_cfg(name)
        except RuntimeError as error:  # a tag that the architecture does not have
            choices = timm.list_models(f"{name.partition('.')[0]}.*", pretrained=True)
            raise ConfigError(f"teacher.name: timm has no weights {name!r}; {nearest(name, choices)}") from error
        self.mean = list(mean or (known.mean if known else IMAGENET_MEAN))
        self.std = list(std or (known.std if known else IMAGENET_STD))

    def fingerprint(self) -> dict[str, Any]:
        """All arguments; the checkpoint file by its SHA-256."""
        return {**vars(self), "checkpoint": self._model().fingerprint()["checkpoint"]}

    def load(self) -> Teacher:
        """The model without its head."""

        def build() -> Teacher:
            with _as_teacher(), torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                network = self._model().build(n_classes=0).backbone
            return Teacher(network, _timm_map, self.image_size, self.mean, self.std)

        return _checked(build, f"teacher.name: {self.name}")

    def _model(self) -> TimmModel:
        return TimmModel(self.name, self.image_size, self.checkpoint, self.pretrained, kwargs=self.kwargs)


class ClipTeacher(TeacherSource):
    """The image tower of an open_clip model, before its pooling and projection, at the size that it was made for.

    Args:
        model: `embedded:clip`, a folder (open_clip's `local-dir`), or the name of an architecture of open_clip.
        pretrained: of an architecture: a tag of open_clip, or a file. A folder has its own weights.

    """

    def __init__(self, model: str, pretrained: str | None = None) -> None:
        self.model, self.pretrained = model, pretrained
        with _as_teacher():
            self._clip()

    def fingerprint(self) -> dict[str, Any]:
        """Which weights these are."""
        known = self._clip().fingerprint()
        return {"model": known["model"], "pretrained": known["pretrained"]}

    def load(self) -> Teacher:
        """The image tower."""

        def build() -> Teacher:
            with _as_teacher():
                clip = self._clip().load()
            return Teacher(clip.model.visual, _clip_map, clip.model_size, clip.mean, clip.std)

        return _checked(build, f"teacher.model: {self.model}")

    def _clip(self) -> ClipModel:
        return ClipModel(self.model, self.pretrained)


def _timm_map(network: Any, images: Tensor) -> Tensor:
    (found,) = network.forward_intermediates(images, indices=1, norm=True, intermediates_only=True)
    return found


def _clip_map(network: Any, images: Tensor) -> Tensor:
    found = network.forward_intermediates(images, indices=1, normalize_intermediates=True, intermediates_only=True)
    return found["image_intermediates"][0]


def _checked(build: Callable[[], Teacher], key: str) -> Teacher:
    """What `build` returns, where it shows a black image as a map of places. `key` names the choice in errors."""
    try:
        teacher = build()
        shape = tuple(teacher.features(np.zeros((1, teacher.image_size, teacher.image_size, 3), np.uint8)).shape)
    except (AttributeError, TypeError, ValueError, AssertionError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{key} gives no feature maps ({reason}); nearest valid: teacher=tiny") from error
    if len(shape) != 4 or min(shape[2:]) < 2:
        size = teacher.image_size
        raise ConfigError(f"{key} gives a map {shape[1:]} of images of {size} px; expected (c, h, w), 2 places a side")
    return teacher


@contextmanager
def _as_teacher() -> Iterator[None]:
    """Errors of the classes that a teacher is made with name its own keys."""
    try:
        yield
    except AacaError as error:
        keys = r"(^|\s)(?:model|clip)(?=:|\.(?:name|image_size|checkpoint|pretrained|model)\b)"
        raise type(error)(re.sub(keys, r"\1teacher", str(error))) from error
