"""From a teacher's feature maps to a student's activations: one PCA basis, ridge in closed form, what was fitted."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from aaca.runtime.errors import DataError
from aaca.runtime.files import write_json
from aaca.runtime.seeding import purpose_seed

Kind = Literal["ridge", "conv"]
WEIGHTS, META = "mapping.safetensors", "mapping.json"
LEAST = 10
"""Images that a mapping needs at least, some of them held out."""

HELD_OUT = 0.2
ALPHAS = tuple(float(alpha) for alpha in np.logspace(-6, 3, 19))
"""Ridge penalties to choose from, in units of the mean variance of the features' principal components."""


@dataclass(frozen=True)
class Basis:
    """Principal components of a teacher's patches: `mean` `[c]`, `components` `[k, c]` with orthonormal rows."""

    mean: Tensor
    components: Tensor

    def project(self, features: Tensor) -> Tensor:
        """Feature maps `[N, c, h, w]` in this basis, `[N, k, h, w]`."""
        return torch.einsum("nchw,kc->nkhw", features - self.mean[:, None, None], self.components)


def pca(features: Tensor, k: int) -> Basis:
    """The first `k` principal components over all patches of `features` `[N, c, h, w]` (all c, where c < k).

    To be fitted once, on all concept images together: the released code fitted it for each concept set, and its
    vectors separated bases in the place of concepts. The largest entry of a component is positive.
    """
    channels = features.shape[1]
    count = features.numel() // channels
    mean = features.mean(dim=(0, 2, 3), dtype=torch.float64)
    scatter = torch.zeros(channels, channels, dtype=torch.float64)
    for batch in torch.split(features, 64):  # in parts: 3,000 maps of ViT-B/8 in double precision are 14 GB
        patches = batch.double().transpose(0, 1).flatten(1) - mean[:, None]
        scatter += patches @ patches.T
    _, vectors = torch.linalg.eigh(scatter / count)
    components = vectors.flip(1).T[:k]
    signs = components.gather(1, components.abs().argmax(dim=1, keepdim=True)).sign()
    return Basis(mean.float(), (components * signs).float())


@dataclass(frozen=True)
class Mapping:
    """A fitted mapping from a teacher's feature maps `[N, c, h, w]` to a student's flattened activations `[N, D]`.

    `shape`: the student's activation of one image. `r2`: 1 − SSE/SST over all images and dimensions that were held out,
    SST about their own mean. `tensors`: ridge: `mean`, `left`, `right`, `offset`; conv: the kernel and the scales.
    """

    kind: Kind
    basis: Basis | None
    tensors: dict[str, Tensor]
    shape: tuple[int, ...]
    r2: float
    meta: dict[str, Any] = field(default_factory=dict)

    def apply(self, features: Tensor) -> Tensor:
        """What the student's activations would be, `[N, D]`, on the CPU."""
        tensors = self.tensors
        found = features if self.basis is None else self.basis.project(features)
        if self.kind == "ridge":
            return (found.flatten(1) - tensors["mean"]) @ tensors["left"] @ tensors["right"] + tensors["offset"]
        found = (found - tensors["shift"]) / tensors["scale"]
        convolve = F.conv_transpose2d if self.meta["grows"] else F.conv2d
        found = convolve(found, tensors["weight"], tensors["bias"], stride=tuple(self.meta["stride"]))
        return (found * tensors["student_scale"] + tensors["student_shift"]).flatten(1)

    def save(self, folder: Path) -> None:
        """Write `mapping.safetensors` and `mapping.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = dict(self.tensors)
        if self.basis is not None:
            tensors |= {"pca_mean": self.basis.mean, "pca_components": self.basis.components}
        save_file({name: value.contiguous() for name, value in tensors.items()}, folder / WEIGHTS)
        write_json(folder / META, {"kind": self.kind, "shape": self.shape, "r2": self.r2, "meta": self.meta})

    @classmethod
    def load(cls, folder: Path) -> "Mapping":
        """Read what `save` wrote. Raises `DataError` where there is none."""
        try:
            fields = json.loads((folder / META).read_text(encoding="utf-8"))
            tensors = load_file(folder / WEIGHTS)
        except (OSError, ValueError) as error:
            raise DataError(f"{folder}: no mapping ({error})") from error
        parts = [tensors.pop(name, None) for name in ("pca_mean", "pca_components")]
        basis = None if parts[0] is None or parts[1] is None else Basis(parts[0], parts[1])
        return cls(fields["kind"], basis, tensors, tuple(fields["shape"]), fields["r2"], fields["meta"])


def r_squared(predicted: Tensor, actual: Tensor) -> float:
    """1 − SSE/SST over all entries of `[N, D]`, SST about the mean of each column; NaN where nothing varies."""
    predicted, actual = predicted.double(), actual.double()
    total = float((actual - actual.mean(dim=0)).square().sum())
    return 1 - float((actual - predicted).square().sum()) / total if total > 0 else float("nan")


def held_out(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """(rows to fit on, rows to measure R² on) of `n` images, shuffled; the latter a fifth.

    Raises `DataError` for fewer than `LEAST`.
    """
    if n < LEAST:
        raise DataError(f"mapping: {n} concept images; expected {LEAST} or more")
    rows = torch.from_numpy(np.random.default_rng(purpose_seed(seed, "mapping", "split")).permutation(n))
    cut = n - round(n * HELD_OUT)
    return rows[:cut], rows[cut:]


def fit_ridge(features: Tensor, student: Tensor, seed: int = 0, basis: Basis | None = None) -> Mapping:
    """Ridge from `features` `[N, c, h, w]` (seen in `basis`) to activations `[N, …]`, flattened both.

    Raises `DataError` for too few images, or where the teacher sees no difference between them.
    """
    fit, held = held_out(len(features), seed)
    seen = (features if basis is None else basis.project(features)).flatten(1)
    targets = student.flatten(1)
    tensors, alpha = ridge(seen[fit].double(), targets[fit].double())
    meta = {"alpha": alpha, "images": len(features), "held_out": len(held), "seed": seed}
    mapping = Mapping("ridge", basis, tensors, tuple(student.shape[1:]), 0.0, meta)
    return replace(mapping, r2=r_squared(mapping.apply(features[held]), targets[held]))


def ridge(x: Tensor, y: Tensor, alpha: float | None = None) -> tuple[dict[str, Tensor], float]:
    """(tensors of a `Mapping`, α) of min ‖y − xW − b‖² + α‖W‖²; `x` `[N, p]` and `y` `[N, D]` in double precision.

    α has the least leave-one-out error among `ALPHAS` where it is None. W = left · right, of rank N at most, by the
    eigenvectors of the smaller of x xᵀ and xᵀ x: 50,000 features of 300 images cost what 300 do.
    """
    mean, offset = x.mean(dim=0), y.mean(dim=0)
    x, y = x - mean, y - offset
    wide = len(x) <= x.shape[1]
    values, vectors = torch.linalg.eigh(x @ x.T if wide else x.T @ x)
    known = values > max(float(values[-1]), 1e-300) * 1e-12
    values, vectors = values[known], vectors[:, known]
    if not len(values):
        raise DataError("mapping: the teacher's features are the same for all concept images")
    left = (x.T @ vectors) / values.sqrt() if wide else vectors
    scores = vectors if wide else (x @ vectors) / values.sqrt()
    rotated = scores.T @ y
    if alpha is None:
        choices = [choice * float(values.mean()) for choice in ALPHAS]
        alpha = min(choices, key=lambda choice: _left_out(scores, values / (values + choice), y, rotated))
    right = (values.sqrt() / (values + alpha))[:, None] * rotated
    tensors = {"mean": mean, "left": left, "right": right, "offset": offset}
    return {name: value.float() for name, value in tensors.items()}, alpha


def _left_out(scores: Tensor, shrink: Tensor, y: Tensor, rotated: Tensor) -> float:
    # The residual of a linear smoother with H on its diagonal grows by 1 / (1 − H_ii) when the image is left out.
    leverage = 1 / len(y) + (scores.square() * shrink).sum(dim=1)
    residual = y - (scores * shrink) @ rotated
    return float((residual.square().sum(dim=1) / (1 - leverage).clamp(min=1e-9).square()).sum())
