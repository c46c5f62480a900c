"""`ClipModel`, the role of the `clip` config group: an image-text model, also as a classifier by names (zero-shot)."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from safetensors import SafetensorError
from torch import Tensor, nn

from aaca.models.classifier import Classifier
from aaca.models.template import check_template
from aaca.models.weights import fingerprint_of, load_problem
from aaca.runtime.errors import ConfigError, nearest
from aaca.world.shipped import shipped

WEIGHT_FILES = (".safetensors", ".bin", ".pt", ".pth")


class ClipModel:
    """A model of open_clip.

    Args:
        model: `embedded:clip`, a folder (open_clip's `local-dir`), or the name of an architecture of open_clip.
        pretrained: of an architecture: a tag of open_clip, or a file. A folder has its own weights.
        image_size: pixels a side at which images are read; the model scales them to what it wants.
        templates: texts with `{}` for a name; a name's embedding is the mean over them.

    """

    def __init__(
        self,
        model: str,
        pretrained: str | None = None,
        image_size: Annotated[int, Field(ge=8)] = 224,
        templates: list[str] | None = None,
    ) -> None:
        self.model = shipped(model, "clip.model")
        self.pretrained, self.image_size = pretrained, image_size
        self.templates = templates or ["a photo of {}"]
        if Path(self.model).is_dir():
            if pretrained is not None:
                raise ConfigError("clip.pretrained: a folder has its own weights; expected null")
        else:
            _check_architecture(self.model, pretrained)
        for index, template in enumerate(self.templates):
            check_template(template, f"clip.templates[{index}]")

    @property
    def name(self) -> str:
        """What open_clip calls it."""
        return f"local-dir:{self.model}" if Path(self.model).is_dir() else self.model

    def fingerprint(self) -> dict[str, Any]:
        """All arguments; a folder or file by its content."""
        weights = fingerprint_of(self.pretrained) if self.pretrained else None
        return {
            "model": self._weights,
            "pretrained": weights,
            "image_size": self.image_size,
            "templates": self.templates,
        }

    @cached_property
    def _weights(self) -> dict[str, Any]:
        return fingerprint_of(self.model)

    def load(self) -> "ImageText":
        """The model on the CPU, in evaluation mode. Raises `AacaError` in one line when its weights cannot be had."""
        import open_clip  # seconds: only where it is used

        folder = Path(self.model)
        if folder.is_dir() and not any(file.suffix in WEIGHT_FILES for file in folder.iterdir()):
            raise ConfigError(  # open_clip would go on with random ones
                f"clip.model: {folder} could not be loaded (no file {', '.join(WEIGHT_FILES)}); expected a complete "
                "folder of its model's files"
            )
        try:
            model, _, _ = open_clip.create_model_and_transforms(self.name, pretrained=self.pretrained)
            tokenizer = open_clip.get_tokenizer(self.name)
        except (OSError, RuntimeError, ValueError, SafetensorError) as error:
            raise load_problem("clip.model", self.model, error) from error
        return ImageText(model.float().eval(), tokenizer, self.templates, self.image_size)


def _check_architecture(model: str, pretrained: str | None) -> None:
    import open_clip

    if model not in open_clip.list_models():
        raise ConfigError(f"clip.model: no folder or model {model!r}; {nearest(model, open_clip.list_models())}")
    if pretrained is None:
        tags = open_clip.list_pretrained_tags_by_model(model)
        raise ConfigError(f"clip.pretrained: missing for {model}; valid: {', '.join(tags)}, or a file")
    known = open_clip.get_pretrained_cfg(model, pretrained)
    trained_quick = bool(known.get("quick_gelu", False))
    built_quick = bool((open_clip.get_model_config(model) or {}).get("quick_gelu", False))
    if known and trained_quick != built_quick:  # open_clip only warns, and every embedding would be slightly wrong
        other = f"{model}-quickgelu" if trained_quick else model.removesuffix("-quickgelu")
        raise ConfigError(
            f"clip.model: {model} has {'QuickGELU' if built_quick else 'GELU'}, but the weights {pretrained!r} were "
            f"trained with {'QuickGELU' if trained_quick else 'GELU'}; nearest valid: {other}"
        )


class ImageText(nn.Module):
    """Images and texts as unit vectors of one space."""

    def __init__(self, model: Any, tokenizer: Any, templates: Sequence[str], image_size: int) -> None:
        super().__init__()
        self.model, self.tokenizer, self.templates, self.image_size = model, tokenizer, templates, image_size
        size = model.visual.image_size
        self.model_size: int = size[0] if isinstance(size, tuple) else size
        self.mean, self.std = list(model.visual.preprocess_cfg["mean"]), list(model.visual.preprocess_cfg["std"])

    def image_vectors(self, images: Tensor) -> Tensor:
        """Unit vectors `[B, D]` of normalised images `[B, 3, S, S]`."""
        return F.normalize(self.raw_vectors(images), dim=-1)

    def raw_vectors(self, images: Tensor) -> Tensor:
        """The image tower's output as it is, `[B, D]`, of normalised images `[B, 3, S, S]`."""
        if images.shape[-1] != self.model_size:
            size = (self.model_size, self.model_size)
            images = F.interpolate(images, size=size, mode="bicubic", align_corners=False, antialias=True)
        vectors: Tensor = self.model.encode_image(images)
        return vectors

    @torch.no_grad()
    def sentence_vectors(self, sentences: Sequence[str]) -> np.ndarray:
        """Unit vectors `[N, D]` of whole sentences."""
        tokens = self.tokenizer(list(sentences)).to(self.model.logit_scale.device)
        vectors: np.ndarray = self.model.encode_text(tokens, normalize=True).cpu().numpy()
        return vectors

    @torch.no_grad()
    def text_vectors(self, names: Sequence[str]) -> np.ndarray:
        """Unit vectors `[N, D]` of names (with their articles), each the mean over the templates."""
        found = []
        for name in names:
            tokens = self.tokenizer([template.format(name) for template in self.templates])
            mean = self.model.encode_text(tokens.to(self.model.logit_scale.device), normalize=True).mean(dim=0)
            found.append(F.normalize(mean, dim=0))
        return torch.stack(found).cpu().numpy()


class ZeroShot(Classifier):
    """An image-text model as a classifier: embeddings are unit vectors, logits cosines with the names times the scale.

    So that features of it are extracted, sharded, stored and resumed like any classifier's. `raw`: embeddings are the
    image tower's output as it is.
    """

    def __init__(self, clip: ImageText, names: Sequence[str], raw: bool = False) -> None:
        super().__init__(clip, clip.image_size, clip.mean, clip.std)
        vectors = torch.from_numpy(clip.text_vectors(names))
        self.register_buffer("names", vectors)
        self.raw = raw
        self.backbone.head_hidden_size = vectors.shape[1]

    def embed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(vectors `[B, D]`, logits `[B, names]`)."""
        found = self.backbone.raw_vectors(images.contiguous(memory_format=torch.channels_last))
        vectors = F.normalize(found, dim=-1)
        return found if self.raw else vectors, self.backbone.model.logit_scale.exp() * vectors @ self.names.T

    def forward(self, images: Tensor) -> Tensor:
        """Logits `[B, names]`."""
        return self.embed(images)[1]
