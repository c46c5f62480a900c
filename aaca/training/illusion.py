"""`draw_illusions`: images of neurons, shared out over ranks by batches; each finished one is a file, made once."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

from aaca.models.classifier import Classifier
from aaca.models.text_guide import TextGuide
from aaca.runtime.errors import AacaError, ConfigError, DataError
from aaca.runtime.files import atomic_path, digest, read_json, write_json
from aaca.runtime.ranks import current
from aaca.runtime.seeding import purpose_seed
from aaca.runtime.stages import PROGRESS
from aaca.training.illusion_painter import Illusion, IllusionRequest, IllusionSpec, Painter
from aaca.training.trainer import TrainerSpec

__all__ = ["IllusionRequest", "IllusionSpec", "draw_illusions", "requests_for"]
log = logging.getLogger(__name__)
SCHEMA = 1
IMAGES, MASKS, RECORDS, INDEX = "images", "masks", "records", "illusions"
DEAD = 1e-6
"""Activation up to which a neuron counts as one that could not be woken."""


def requests_for(neurons: Mapping[int, Sequence[int]], copies: int, seed: int) -> list[IllusionRequest]:
    """`copies` images of every neuron of every label; a request's seed depends on neuron, label and copy alone."""
    wanted = [(neuron, label, copy) for label, found in neurons.items() for neuron in found for copy in range(copies)]
    return [IllusionRequest(index, *one, purpose_seed(seed, *one)) for index, one in enumerate(wanted)]


class DrawIllusions(pl.LightningModule):
    """Optimises batches of requests and writes each image, its mask and its record, the record last."""

    def __init__(
        self, batches: Sequence[Sequence[IllusionRequest]], folder: Path, key: str, text: TextGuide | None, **parts: Any
    ) -> None:
        super().__init__()
        self.batches, self.folder, self.key, self.text, self.parts = batches, folder, key, text, parts
        self.classifier: Classifier = parts["classifier"]
        encoder = text.image_encoder if text else None
        self.encoder = encoder if isinstance(encoder, nn.Module) else None  # so that it goes to the device, too
        self.painter: Painter | None = None

    def on_predict_start(self) -> None:
        """Lay out what lives on this rank's device."""
        self.painter = Painter(text=self.text, device=self.device, **self.parts)

    def predict_step(self, number: Any, batch_idx: int) -> None:
        """One batch, by its number; what an interrupted call has written of it stays."""
        assert self.painter is not None
        batch = self.batches[int(number)]
        with torch.enable_grad():
            found = self.painter(batch)
        for request, illusion in zip(batch, found, strict=True):
            if not record_of(self.folder, request).is_file():
                self._write(request, illusion)

    def _write(self, request: IllusionRequest, illusion: Illusion) -> None:
        about: dict[str, Any] = {**asdict(request), "failed": not illusion.finite, "key": self.key}
        if illusion.finite:
            quantiles, name = self.parts["quantiles"], f"{request.index:07d}.png"
            quantile = None if quantiles is None else float(quantiles[request.neuron])
            after, masked = illusion.activation_after, illusion.mask is not None
            write_image(self.folder / IMAGES / name, illusion.image)
            if illusion.mask is not None:
                write_image(self.folder / MASKS / name, illusion.image * illusion.mask)
            about |= {
                "activation_before": illusion.activation_before,
                "activation_after": after,
                "quantile": quantile,
                "above_quantile": None if quantile is None else after > quantile,
                "probability": illusion.probability,
                "similarity": illusion.similarity,
                "dead": after <= DEAD,
                "image": f"{IMAGES}/{name}",
                "mask": f"{MASKS}/{name}" if masked else None,
            }
        write_json(record_of(self.folder, request), about)


def record_of(folder: Path, request: IllusionRequest) -> Path:
    """The file that says that a request is done."""
    return folder / PROGRESS / RECORDS / f"{request.index:07d}.json"


def write_image(path: Path, image: Tensor) -> None:
    """A PNG of `[3, S, S]` in 0…1, rounded."""
    pixels = (255 * image.clamp(0, 1)).round().to(torch.uint8).permute(1, 2, 0).numpy()
    with atomic_path(path) as temporary:
        Image.fromarray(np.ascontiguousarray(pixels)).save(temporary, format="PNG")


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradients for weights; afterwards every part as it was."""
    wanted = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    modes = [(part, part.training) for part in module.modules()]
    module.eval().requires_grad_(False)
    try:
        yield
    finally:
        for parameter, needs in wanted:
            parameter.requires_grad_(needs)
        for part, mode in modes:
            part.training = mode


def draw_illusions(
    requests: Sequence[IllusionRequest],
    classifier: Classifier,
    spec: IllusionSpec,
    text: TextGuide | None,
    quantiles: Tensor | None,
    spectrum: Tensor | None,
    folder: Path,
    trainer: TrainerSpec,
    label: str = "illusions",
) -> pd.DataFrame:
    """Every request as `images/<index>.png` and `masks/<index>.png` (the image, dimmed where the neuron is not active).

    Returns the table, one row a request, that `illusions.parquet` holds: activation at start and end, `quantiles` `[D]`
    (99 % on data) and whether above, class probability, likeness to the text, dead, failed, file names; what is not
    known is missing. All ranks call it. Images that are there already are not drawn again, and a batch is the same one
    whoever draws it, so an interrupted call goes on to the same files.
    Raises `ConfigError` or `DataError` for arguments that do not fit together, `AacaError` when every image fails.
    """
    check(requests, classifier, spec, text, quantiles)
    spec.canvas(classifier.image_size, spectrum)  # raises what it has to before work starts
    ranks, key = current(), digest({"spec": asdict(spec), "requests": [asdict(request) for request in requests]})
    if ranks.rank == 0:
        (folder / PROGRESS / RECORDS).mkdir(parents=True, exist_ok=True)
    ranks.exchange("folder")
    batches = [requests[start : start + spec.batch] for start in range(0, len(requests), spec.batch)]
    left = ranks.share(_left(batches, folder, key))  # every rank looks: a folder of another run is each one's error
    if len(left) < len(batches):
        log.info("  %s  goes on after %d of %d batches", label, len(batches) - len(left), len(batches))
    mine = [batches[number] for number in left[ranks.rank :: ranks.world]]
    if left:
        module = DrawIllusions(
            mine, folder, key, text, classifier=classifier, spec=spec, quantiles=quantiles, spectrum=spectrum
        )
        module.allow_zero_length_dataloader_with_multiple_devices = True
        loader: DataLoader[int] = DataLoader(range(len(mine)), batch_size=None)  # type: ignore[arg-type]
        with ExitStack() as stack:
            for part in (classifier, module.encoder):
                if part is not None:
                    stack.enter_context(frozen(part))
            loop = trainer.make(label, inference_mode=False)  # gradients of images are what it is about
            loop.predict(module, dataloaders=loader, return_predictions=False)
    ranks.exchange("drawn")
    if ranks.rank == 0:
        _publish(requests, spec, folder)
    ranks.exchange("published")
    table = pd.read_parquet(folder / f"{INDEX}.parquet")
    if table["failed"].all():
        raise AacaError(f"{label}: none of {len(table)} images is finite; expected a smaller illusion.lr, or 32-true")
    return table


def check(
    requests: Sequence[IllusionRequest],
    classifier: Classifier,
    spec: IllusionSpec,
    text: TextGuide | None,
    quantiles: Tensor | None,
) -> None:
    """Raise `ConfigError` or `DataError` unless neurons, labels, texts and quantiles are the classifier's."""
    head = classifier.head
    if not isinstance(head, nn.Linear):
        raise ConfigError(f"model: neurons are inputs of a linear head, and this model has a {type(head).__name__}")
    if not requests:
        raise ConfigError("illusion.neurons: none; expected 1 or more")
    for request in requests:
        if not 0 <= request.neuron < head.in_features:
            raise ConfigError(f"illusion.neurons: {request.neuron}; expected 0…{head.in_features - 1}")
        if not 0 <= request.label < head.out_features:
            raise ConfigError(f"illusion.class: {request.label}; expected 0…{head.out_features - 1}")
    if text is not None and len(text.vectors) != head.out_features:
        raise DataError(f"illusion: {len(text.vectors)} text vectors for {head.out_features} classes")
    if quantiles is None and spec.act_norm == "q99":
        raise ConfigError("illusion.act_norm: 'q99' needs the neurons' quantiles on data; expected none without them")
    if quantiles is not None and tuple(quantiles.shape) != (head.in_features,):
        raise DataError(f"illusion: quantiles of shape {tuple(quantiles.shape)} for {head.in_features} neurons")


def _left(batches: Sequence[Sequence[IllusionRequest]], folder: Path, key: str) -> list[int]:
    left = []
    for number, batch in enumerate(batches):
        files = [record_of(folder, request) for request in batch]
        for file in files:
            if file.is_file() and read_json(file)["key"] != key:
                raise DataError(f"{folder}: holds images of other requests or settings; expected an empty folder")
        if not all(file.is_file() for file in files):
            left.append(number)
    return left


def _publish(requests: Sequence[IllusionRequest], spec: IllusionSpec, folder: Path) -> None:
    records = [read_json(record_of(folder, request)) for request in requests]
    columns = [*asdict(requests[0]), "activation_before", "activation_after", "quantile", "above_quantile"]
    columns += ["probability", "similarity", "dead", "failed", "image", "mask"]
    table = pd.DataFrame.from_records(records).reindex(columns=columns)
    numbers = ["activation_before", "activation_after", "quantile", "probability", "similarity"]
    kinds = {name: "float64" for name in numbers} | {"above_quantile": "boolean", "dead": "boolean", "failed": "bool"}
    table = table.astype(kinds | {"image": "string", "mask": "string"})
    failed, dead = int(table["failed"].sum()), int(table["dead"].sum())
    if failed:
        log.warning("  %d of %d images are not finite and reported as failed", failed, len(table))
    if dead:
        log.warning("  %d of %d images leave their neuron dead", dead, len(table))
    with atomic_path(folder / f"{INDEX}.parquet") as temporary:
        table.to_parquet(temporary, index=False)
    about = {"schema": SCHEMA, "spec": asdict(spec), "images": len(table), "failed": failed, "dead": dead}
    write_json(folder / f"{INDEX}.json", about)
