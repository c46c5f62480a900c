"""`Painter`: a batch of images optimised for their neurons and classes, each as if it were alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from aaca.concepts.illusion.augment import Augment, AugmentSpec
from aaca.concepts.illusion.mask import neuron_maps, soft_mask
from aaca.concepts.illusion.objective import Combine, Coupling, Objective
from aaca.concepts.illusion.parameters import ImageParameters, Kind, image_parameters
from aaca.models.classifier import Classifier
from aaca.models.text_guide import TextGuide
from aaca.runtime.errors import ConfigError
from aaca.runtime.seeding import purpose_seed


@dataclass(frozen=True, kw_only=True)
class IllusionSpec:
    """How images of neurons are made (NeuroInspect, CLIP-Illusion); the numbers are its debug script's.

    size: pixels a side that are optimised (None: the model's). lr falls on a cosine to lr · lr_min_ratio.
    class_gamma (γ), domain_eps (ε), combine, coupling: see `Objective`. act_norm: "q99" measures activations in their
    99 % quantile on data (1 where that is not above 0). clip_every: steps between two looks of the image-text model; in
    between its last cosine stays. mask_z, mask_floor: see `soft_mask`. batch: images optimised at once.
    """

    param: Kind = "fourier"
    size: int | None = None
    init_std: float = 1e-3
    decay: float = 0.75
    iterations: int = 450
    lr: float = 9e-3
    betas: tuple[float, float] = (0.5, 0.99)
    weight_decay: float = 2e-4
    lr_min_ratio: float = 0.12
    class_gamma: float = 0.5
    domain_eps: float = 0.05
    combine: Combine = "product"
    coupling: Coupling = "per_sample"
    act_norm: Literal["none", "q99"] = "none"
    copies: int = 4
    batch: int = 32
    clip_every: int = 1
    augment: AugmentSpec = field(default_factory=AugmentSpec)
    mask_z: float = 0.25
    mask_floor: float = 0.5

    def __post_init__(self) -> None:
        """Raise `ConfigError` on a number that makes no images."""
        for name in ("iterations", "copies", "batch", "clip_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"illusion.{name}: {getattr(self, name)}; expected 1 or more")
        if self.size is not None and not 8 <= self.size <= 2048:
            raise ConfigError(f"illusion.size: {self.size}; expected 8…2048 pixels")
        if self.lr <= 0:
            raise ConfigError(f"illusion.lr: {self.lr}; expected more than 0")
        if not (0 <= self.lr_min_ratio <= 1 and 0 <= self.mask_floor <= 1):
            raise ConfigError("illusion.lr_min_ratio, illusion.mask_floor: expected 0…1")
        if self.act_norm not in ("none", "q99"):
            raise ConfigError(f"illusion.act_norm: {self.act_norm!r}; expected none or q99")
        self.objective()

    def objective(self) -> Objective:
        """What is maximised."""
        return Objective(gamma=self.class_gamma, epsilon=self.domain_eps, combine=self.combine, coupling=self.coupling)

    def canvas(self, size: int, spectrum: Tensor | None, device: torch.device | str = "cpu") -> ImageParameters:
        """How images are written down, for a model of `size` pixels."""
        return image_parameters(self.param, self.size or size, self.init_std, self.decay, spectrum, device)


@dataclass(frozen=True)
class IllusionRequest:
    """An image of one neuron seen with the eyes of one class; all that is drawn for it follows from `seed`."""

    index: int
    neuron: int
    label: int
    copy: int
    seed: int


@dataclass(frozen=True)
class Illusion:
    """A finished image `[3, S, S]` in 0…1 and its mask `[S, S]` (None: the model has no map of the neuron), on the CPU.

    The neuron's activation on the image at the start and at the end, the class's probability and the cosine with its
    text (None: no text guides) at the end, all without augmentation.
    """

    image: Tensor
    mask: Tensor | None
    activation_before: float
    activation_after: float
    probability: float
    similarity: float | None

    @property
    def finite(self) -> bool:
        """Whether every number is one."""
        numbers = torch.tensor([self.activation_before, self.activation_after, self.probability, self.similarity or 0])
        return bool(numbers.isfinite().all() and self.image.isfinite().all())


class Painter:
    """Draws requests with a frozen classifier that is on `device` already, as is the image encoder of `text`.

    Nothing passes between samples but rounding: convolutions of another batch size add in another order, and where a
    ReLU or a pooling switches for that, two long descents in float32 part. The same batch gives the same images.
    """

    def __init__(
        self,
        classifier: Classifier,
        spec: IllusionSpec,
        text: TextGuide | None,
        quantiles: Tensor | None,
        spectrum: Tensor | None,
        device: torch.device,
    ) -> None:
        self.classifier, self.spec, self.device = classifier, spec, device
        self.encoder: Callable[[Tensor], Tensor] | None = text.image_encoder if text else None
        self.texts = text.vectors.float().to(device) if text else torch.empty(0)
        self.units = torch.where(quantiles > 0, quantiles, 1).float().to(device) if quantiles is not None else None
        self.canvas = spec.canvas(classifier.image_size, spectrum, device)
        self.mean, self.deviation = (
            torch.tensor(values, dtype=torch.float32, device=device).view(3, 1, 1)
            for values in (classifier.mean, classifier.std)
        )
        self.kind = next(classifier.parameters()).dtype

    def __call__(self, requests: Sequence[IllusionRequest]) -> list[Illusion]:
        """An image a request."""
        neurons = torch.tensor([request.neuron for request in requests], device=self.device)
        labels = torch.tensor([request.label for request in requests], device=self.device)
        parameters = self.canvas.start([purpose_seed(request.seed, "start") for request in requests])
        before = self._finish(parameters, neurons, labels)
        self._optimise(parameters, requests, neurons, labels)
        after = self._finish(parameters, neurons, labels)
        return [
            Illusion(
                image=after["images"][row],
                mask=None if after["masks"] is None else after["masks"][row],
                activation_before=float(before["activations"][row]),
                activation_after=float(after["activations"][row]),
                probability=float(after["probabilities"][row]),
                similarity=None if after["cosines"] is None else float(after["cosines"][row]),
            )
            for row in range(len(requests))
        ]

    def _optimise(
        self, parameters: Tensor, requests: Sequence[IllusionRequest], neurons: Tensor, labels: Tensor
    ) -> None:
        spec, objective, rows = self.spec, self.spec.objective(), torch.arange(len(requests), device=self.device)
        seeds = [purpose_seed(request.seed, "augment") for request in requests]
        augment = Augment(spec.augment, seeds, spec.iterations, self.device)
        units = self.units[neurons] if self.units is not None and spec.act_norm == "q99" else 1.0
        optimizer = torch.optim.AdamW([parameters], spec.lr, spec.betas, eps=1e-8, weight_decay=spec.weight_decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, spec.iterations, spec.lr * spec.lr_min_ratio)
        cosines: Tensor | None = None
        for step in range(spec.iterations):
            with torch.autocast(self.device.type, enabled=False):  # transforms and grids need all their digits
                views = augment(self.canvas.to_images(parameters), step)
            embeddings, logits = self.classifier.embed(self._pixels(views))
            if self.encoder is not None:
                fresh = step % spec.clip_every == 0
                cosines = self._cosines(views, labels) if fresh or cosines is None else cosines.detach()
            gains = objective(embeddings[rows, neurons].float(), logits[rows, labels].float(), cosines, units)
            optimizer.zero_grad(set_to_none=True)
            (-gains.sum()).backward()  # type: ignore[no-untyped-call]  # a sum: no sample sees how many there are
            optimizer.step()
            schedule.step()

    def _pixels(self, images: Tensor) -> Tensor:
        side = self.classifier.image_size
        if images.shape[-1] != side:
            images = F.interpolate(images, size=(side, side), mode="bilinear", align_corners=False, antialias=True)
        return ((images - self.mean) / self.deviation).to(self.kind)

    def _cosines(self, images: Tensor, labels: Tensor) -> Tensor:
        assert self.encoder is not None
        return F.cosine_similarity(self.encoder(images).float(), self.texts[labels], dim=1)

    @torch.no_grad()
    def _finish(self, parameters: Tensor, neurons: Tensor, labels: Tensor) -> dict[str, Any]:
        rows, backbone = torch.arange(len(neurons), device=self.device), self.classifier.backbone
        with torch.autocast(self.device.type, enabled=False):
            images = self.canvas.to_images(parameters)
        features = backbone.forward_features(self._pixels(images).contiguous(memory_format=torch.channels_last))
        embeddings = backbone.forward_head(features, pre_logits=True)
        logits = self.classifier.head(embeddings).float()
        maps, masks = neuron_maps(features, embeddings.shape[1], getattr(backbone, "num_prefix_tokens", 0)), None
        if maps is not None:
            masks = soft_mask(maps[rows, neurons], self.canvas.size, self.spec.mask_z, self.spec.mask_floor).cpu()
        return {
            "images": images.cpu(),
            "masks": masks,
            "activations": embeddings[rows, neurons].float().cpu(),
            "probabilities": logits.softmax(dim=1)[rows, labels].cpu(),
            "cosines": None if self.encoder is None else self._cosines(images, labels).float().cpu(),
        }
