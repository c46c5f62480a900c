"""`generate_images`: requests to image files, shared out over ranks; each image is done once, interrupted or not."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch.utils.data import DataLoader

from aaca.runtime.errors import AacaError
from aaca.runtime.files import atomic_path
from aaca.runtime.ranks import current
from aaca.runtime.stages import PROGRESS
from aaca.training.trainer import TrainerSpec

log = logging.getLogger(__name__)
IMAGES = "images"
FAILED = ".failed"
"""Suffix of the empty file that stands for an image of which no seed gave anything."""


class Generate(pl.LightningModule):
    """Draws batches of requests, each blank one again with its next seed, and writes every image as it is done."""

    def __init__(
        self, make_painter: Callable[[torch.device], Any], batches: Sequence[Sequence[Any]], folder: Path
    ) -> None:
        super().__init__()
        self.make_painter, self.batches, self.folder = make_painter, batches, folder
        self.painter: Any = None

    def on_predict_start(self) -> None:
        """Load what draws, on this rank's device."""
        self.painter = self.make_painter(self.device)

    def predict_step(self, number: Any, batch_idx: int) -> None:
        """One batch, by its number."""
        batch = self.batches[int(number)]
        left = list(batch)
        for attempt in range(len(batch[0].seeds)):
            images = self.painter(left, [request.seeds[attempt] for request in left])
            for request, image in zip(left, images, strict=True):
                if image is not None:
                    write_image(self.folder, request, image, attempt)
            left = [request for request, image in zip(left, images, strict=True) if image is None]
            if not left:
                return
        for request in left:
            (self.folder / f"{request.index:07d}{FAILED}").touch()
        log.warning("  %d image(s) stayed blank with every one of %d seeds", len(left), len(batch[0].seeds))


def generate_images(
    requests: Sequence[Any],
    make_painter: Callable[[torch.device], Any],
    batch_size: int,
    folder: Path,
    trainer: TrainerSpec,
    label: str = "generate",
) -> Path:
    """Every request as `images/<index>.png` in `folder`, or `<index>.failed`; returns the folder of the images.

    All ranks call it. Images that are there already are not drawn again. Raises `AacaError` when all stay blank.
    """
    ranks, images = current(), folder / PROGRESS / IMAGES
    if ranks.rank == 0:
        images.mkdir(parents=True, exist_ok=True)
    ranks.exchange("folder")
    files = [*images.iterdir(), *(folder / IMAGES).glob("*.png")]  # the second: killed while they were moved
    done = {int(file.stem) for file in files if file.suffix in (".png", FAILED) and file.stem.isdigit()}
    done = set(ranks.share(sorted(done)))
    if done:
        log.info("  %s  goes on after %d of %d images", label, len(done), len(requests))
    batches = batched([request for request in requests if request.index not in done], batch_size)
    mine = batches[ranks.rank :: ranks.world]
    loader: DataLoader[int] = DataLoader(range(len(mine)), batch_size=None)  # type: ignore[arg-type]
    if len(batches):
        loop = trainer.make(label)
        module = Generate(make_painter, mine, images)
        module.allow_zero_length_dataloader_with_multiple_devices = True
        loop.predict(module, dataloaders=loader, return_predictions=False)
    ranks.exchange("drawn")
    failed = len(list(images.glob(f"*{FAILED}")))
    if failed == len(requests):
        raise AacaError(
            f"{label}: every one of {failed} images is black, blank or not finite; look at diffusion.dtype "
            "(float16 overflows on some devices), diffusion.safety_checker and the prompts"
        )
    ranks.exchange("counted")
    if ranks.rank == 0:
        (folder / IMAGES).mkdir(exist_ok=True)
        for file in sorted(images.glob("*.png")):
            file.rename(folder / IMAGES / file.name)
    ranks.exchange("moved")
    return folder / IMAGES


def batched(requests: Sequence[Any], size: int) -> list[list[Any]]:
    """Batches of at most `size`, each of one strength, and all with a negative prompt or all without."""

    def kind(request: Any) -> tuple[float, bool]:
        return request.strength, bool(request.negative)

    found: list[list[Any]] = []
    for request in sorted(requests, key=lambda request: (*kind(request), request.index)):
        if found and len(found[-1]) < size and kind(found[-1][0]) == kind(request):
            found[-1].append(request)
        else:
            found.append([request])
    return found


def write_image(folder: Path, request: Any, image: np.ndarray, attempt: int) -> None:
    """A PNG that says what it is: prompt, seed and the number of blank ones before it."""
    said = PngInfo()
    for name, value in (("prompt", request.prompt), ("seed", request.seeds[attempt]), ("redrawn", attempt)):
        said.add_itxt(name, str(value))
    with atomic_path(folder / f"{request.index:07d}.png") as temporary:
        Image.fromarray(image).save(temporary, format="PNG", pnginfo=said)


def redraws(images: Path, indices: Sequence[int]) -> tuple[dict[int, int], Counter[str]]:
    """(index → seeds it took before this one, for every image there is; how many were redrawn, how many failed)."""
    taken: dict[int, int] = {}
    counts: Counter[str] = Counter()
    for index in indices:
        file = images / f"{index:07d}.png"
        if not file.is_file():
            counts["failed"] += 1
            continue
        with Image.open(file) as image:
            taken[index] = int(image.text["redrawn"])  # type: ignore[attr-defined]
        counts["redrawn"] += taken[index]
    return taken, counts
