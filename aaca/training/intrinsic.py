"""Intrinsic images: a network learns albedo and shading, and to mind only what each should (Concept Distillation)."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from aaca.concepts.activations import captured
from aaca.evaluate.intrinsic import scale_invariant_mse
from aaca.models.intrinsic_net import BRANCHES, IntrinsicNet, penultimate
from aaca.training.concept_loss import Distance, concept_loss, logit_gradients_at
from aaca.training.intrinsic_vectors import Vectors, count, fit_vectors
from aaca.training.pretrain import Pretraining, Schedule
from aaca.world.intrinsic import Intrinsics

Variant = Literal["base", "r_only", "r_and_s"]
Target = Literal["random_sign", "branch_mean"]
DESENSITISED: dict[Variant, tuple[str, ...]] = {"base": (), "r_only": ("albedo",), "r_and_s": BRANCHES}
"""Which branches a variant gives a concept loss: the rows of the poster's table."""

Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True)
class ConceptLoss:
    """The concept loss of a branch.

    `weight`: λ, on means over images and vectors. `target`: what is differentiated by the activations: random ±1 times
    outputs, one sign a channel and square of `cell` pixels (a light moves neighbours together; signs a pixel would
    cancel it), or the branch's mean. `refresh`: updates between two fits of the vectors. `images`: of a Δ, an update.
    """

    weight: Annotated[float, Field(ge=0)]
    vectors: Vectors
    target: Target
    distance: Distance
    cell: Count
    refresh: Count
    images: Count


@dataclass(frozen=True)
class ConceptSets:
    """Δ_i (only the light changes) and Δ_a (only the albedo does), `[G, M, …]` each, and what is done with them."""

    light: Intrinsics
    albedo: Intrinsics
    variant: Variant
    loss: ConceptLoss
    seed: int

    def ignored(self, branch: str) -> tuple[Intrinsics, np.ndarray, Intrinsics]:
        """The Δ that a branch should not mind, the part of it that varies, and the Δ that the branch should follow."""
        if branch == "albedo":
            return self.light, self.light.shading, self.albedo
        return self.albedo, self.albedo.albedo, self.light


class IntrinsicTraining(Pretraining):
    """Scale-invariant MSE of R, MSE of S, MSE of R · S against the image, plus λ times the variant's concept losses.

    Batches hold exact R and S as four channels; the network sees their product. Without `concepts` (or at λ = 0) the
    weights are, to the bit, those of a training that knows no concepts.
    """

    def __init__(self, net: IntrinsicNet, schedule: Schedule, concepts: ConceptSets | None = None) -> None:
        super().__init__(schedule)
        self.net = net.to(memory_format=torch.channels_last)
        self.concepts = concepts
        self.branches = DESENSITISED[concepts.variant] if concepts is not None and concepts.loss.weight > 0 else ()
        if concepts is None:
            return
        for branch in self.branches:  # buffers: a resumed fit goes on with the vectors that it had
            groups, side = concepts.light.image.shape[0], concepts.light.image.shape[-1]
            vectors = count(concepts.loss.vectors, groups)
            self.register_buffer(f"{branch}_vectors", torch.zeros(vectors, net.width * side**2))
            self.register_buffer(f"{branch}_scenes", torch.zeros(vectors, dtype=torch.long))
            self.register_buffer(f"{branch}_accuracy", torch.zeros(()))

    def losses(self, batch: Any) -> dict[str, Tensor]:
        """`albedo`, `shading`, `reconstruction`; `concept_<branch>`, `vectors_<branch>` (accuracy) where they count."""
        truth, shade = batch[0][:, :3], batch[0][:, 3:]
        image = truth * shade
        albedo, shading = self.net(image.contiguous(memory_format=torch.channels_last))
        parts = {
            "albedo": scale_invariant_mse(albedo, truth).mean(),
            "shading": F.mse_loss(shading, shade),
            "reconstruction": F.mse_loss(albedo * shading, image),
        }
        loss = torch.stack(list(parts.values())).sum()
        for branch in self.branches:
            concept = self._concept_loss(branch)
            loss = loss + self._sets.loss.weight * concept
            parts |= {f"concept_{branch}": concept, f"vectors_{branch}": getattr(self, f"{branch}_accuracy")}
        return {"loss": loss, **parts}

    @property
    def _sets(self) -> ConceptSets:
        assert self.concepts is not None
        return self.concepts

    def _concept_loss(self, branch: str) -> Tensor:
        options, layer = self._sets.loss, penultimate(branch)
        ignored = self._sets.ignored(branch)
        if self.global_step % options.refresh == 0:
            self._refresh(branch)
        groups, members = ignored[0].image.shape[:2]
        group = torch.randint(groups, (options.images,))
        images = torch.from_numpy(ignored[0].image[group.numpy(), torch.randint(members, group.shape).numpy()])
        with captured(self.net, [layer]) as seen:
            output = self.net(images.to(self.device))[BRANCHES.index(branch)]
        gradients = logit_gradients_at(output, seen[layer], probe(output, options.target, options.cell)).flatten(1)
        directions, scenes = getattr(self, f"{branch}_vectors"), getattr(self, f"{branch}_scenes")
        return concept_loss(
            gradients,
            directions,
            torch.ones_like(scenes, dtype=torch.bool),
            mask=(scenes == group.to(scenes)[:, None]) | (scenes < 0),
            distance=options.distance,
        )

    def _refresh(self, branch: str) -> None:
        ignored, varying, wanted = self._sets.ignored(branch)
        found = fit_vectors(
            self.net, penultimate(branch), ignored, varying, wanted, self._sets.loss.vectors, self._sets.seed
        )
        for name, value in (("vectors", found.directions), ("scenes", found.scenes), ("accuracy", found.accuracy)):
            buffer = getattr(self, f"{branch}_{name}")
            buffer.copy_(torch.as_tensor(value).to(buffer))


def probe(output: Tensor, target: Target, cell: int) -> Tensor:
    """What a branch's output is multiplied with before it is summed and differentiated, of the output's shape."""
    if target == "branch_mean":
        return torch.ones_like(output)
    batch, channels, *sides = output.shape
    signs = torch.randint(0, 2, (batch, channels, *(-(-side // cell) for side in sides))) * 2.0 - 1
    wide = signs.repeat_interleave(cell, dim=2).repeat_interleave(cell, dim=3)
    return wide[:, :, : sides[0], : sides[1]].to(output)
