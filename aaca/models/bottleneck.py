"""A concept bottleneck: an image's vector as sparse named concepts, and a linear layer on them (DN-CBM)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from scipy.sparse import csr_array, vstack
from torch import Tensor, nn

from aaca.models.classifier import Classifier
from aaca.models.sae.base import SparseAutoencoder
from aaca.models.zero_shot import ImageText
from aaca.runtime.errors import DataError
from aaca.runtime.files import atomic_path

CHUNK = 2048  # vectors that are encoded at once


@dataclass(frozen=True)
class Scaling:
    """What was done to vectors before an autoencoder saw them: less `offset` `[D]`, to unit length, times `factor`."""

    offset: Tensor
    factor: float = 1.0
    unit: bool = False

    def __call__(self, vectors: Tensor) -> Tensor:
        """The same of vectors `[B, D]`."""
        moved = vectors - self.offset.to(vectors)
        return (F.normalize(moved, dim=1) if self.unit else moved) * self.factor

    def save(self, file: Path) -> None:
        """Write a safetensors file."""
        numbers = torch.tensor([self.factor, float(self.unit)], dtype=torch.float64)
        with atomic_path(file) as temporary:
            save_file({"offset": self.offset.float(), "numbers": numbers}, temporary)

    @classmethod
    def load(cls, file: Path) -> "Scaling":
        """Read what `save` wrote."""
        found = load_file(file)
        factor, unit = found["numbers"].tolist()
        return cls(found["offset"], factor, bool(unit))


@torch.no_grad()
def encode_sparse(sae: SparseAutoencoder, vectors: Any, scaling: Scaling) -> csr_array:
    """Codes of vectors `[N, D]` (an array, also memory-mapped) as CSR `[N, H]` float32; never dense as a whole."""
    parts = []
    for start in range(0, len(vectors), CHUNK):
        batch = torch.from_numpy(np.asarray(vectors[start : start + CHUNK], dtype=np.float32))
        parts.append(csr_array(sae.encode(scaling(batch)).numpy()))
    return csr_array(vstack(parts)) if parts else csr_array((0, sae.latents), dtype=np.float32)


class Bottleneck(nn.Module):
    """Vectors `[B, D]` → codes `[B, H]` → logits `[B, C]`; `keep` `[H]`: the factors of the concepts' codes."""

    offset: Tensor
    keep: Tensor

    def __init__(self, sae: SparseAutoencoder, scaling: Scaling, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        if weight.shape[1] != sae.latents:
            raise DataError(f"a probe on {weight.shape[1]} concepts; expected {sae.latents}, as the autoencoder has")
        self.sae = sae
        self.scaling = scaling
        self.register_buffer("offset", scaling.offset.clone())
        self.register_buffer("keep", torch.ones(sae.latents))
        self.head = nn.Linear(sae.latents, len(weight))
        with torch.no_grad():
            self.head.weight.copy_(weight)
            self.head.bias.copy_(bias)

    def codes(self, vectors: Tensor) -> Tensor:
        """Strengths of the concepts, after what was switched off."""
        codes: Tensor = self.sae.encode(Scaling(self.offset, self.scaling.factor, self.scaling.unit)(vectors))
        return codes * self.keep

    def forward(self, vectors: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.head(self.codes(vectors))
        return logits


class BottleneckClassifier(Classifier):
    """An image-text model's image tower with a bottleneck behind it. Embeddings are the tower's vectors."""

    def __init__(self, clip: ImageText, bottleneck: Bottleneck) -> None:
        super().__init__(clip, clip.image_size, clip.mean, clip.std)
        self.bottleneck = bottleneck
        self.backbone.head_hidden_size = len(bottleneck.offset)

    @property
    def head(self) -> nn.Module:
        """Vectors `[B, D]` to logits `[B, C]`."""
        return self.bottleneck

    def embed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(vectors `[B, D]`, logits `[B, C]`)."""
        vectors = self.backbone.raw_vectors(images.contiguous(memory_format=torch.channels_last))
        return vectors, self.bottleneck(vectors)

    def forward(self, images: Tensor) -> Tensor:
        """Logits `[B, C]`."""
        return self.embed(images)[1]


def without(codes: csr_array, latents: Sequence[int]) -> csr_array:
    """The same codes with some latents off."""
    if not len(latents):
        return codes
    keep = ~np.isin(codes.indices, np.asarray(latents, dtype=np.int64))
    found = csr_array((codes.data * keep, codes.indices.copy(), codes.indptr.copy()), shape=codes.shape)
    found.eliminate_zeros()
    return found
