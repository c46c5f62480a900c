"""For tests of the embedded models: captioned squares, toy networks, pretraining that is interrupted."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from open_clip.model import CLIP
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Callback
from torch import nn
from transformers import CLIPTextModel

from aaca.data.table import ImageTable
from aaca.models.text_encoder import to_clip_text_model
from aaca.runtime.stages import PROGRESS
from aaca.training.checkpoints import found
from aaca.training.pretrain import Pretraining, PretrainJob, Schedule, pretrain
from aaca.training.resume import ResumeSpec
from aaca.training.trainer import TrainerSpec
from tests.toys import SIZE, Killed, Stop, square_table

CLASSES, SCENES = ("bird", "flower", "mammal", "produce"), ("sand", "snow", "rock")
WIDTH, CONTEXT = 16, 24


def captioned_squares(folder: Path, n: int) -> ImageTable:
    """Squares that claim to be scenes: the columns of `Content` beside the usual ones; every second has a co-object."""
    table = square_table(folder, n)
    rows = range(n)
    frame = table.frame.assign(
        cls=[CLASSES[row % 4] for row in rows],
        name=[CLASSES[row % 4] for row in rows],
        colour=[(None, "red")[row % 2] for row in rows],
        scene=[SCENES[row % 3] for row in rows],
        concept=[("ball", None)[row % 2] for row in rows],
        concept_name=[("tennis ball", None)[row % 2] for row in rows],
        relation=[("left of", None)[row % 2] for row in rows],
    )
    return ImageTable.build(frame, table.classes, folder)


def toy_clip(context: int = CONTEXT) -> CLIP:
    """open_clip's own architecture, tiny, every weight (biases and norms, too) drawn at random."""
    vision = {"image_size": SIZE, "layers": 1, "width": WIDTH, "head_width": 8, "patch_size": 8}
    text = {"context_length": context, "vocab_size": 49408, "width": WIDTH, "heads": 4, "layers": 2}
    return scrambled(CLIP(12, vision, text))


def scrambled(network: nn.Module) -> nn.Module:
    """The same network, all weights normal around what they were."""
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name != "logit_scale":
                weight.add_(0.2 * torch.randn_like(weight))
    return network


def toy_text_encoder() -> CLIPTextModel:
    return to_clip_text_model(toy_clip())


def toy_job(table: ImageTable, updates: int, batch_size: int = 4, lr: float = 1e-2, **schedule: float) -> PretrainJob:
    """A checkpoint after every update."""
    return PretrainJob(
        table=table,
        schedule=Schedule(updates=updates, batch_size=batch_size, lr=lr, warmup=2, **schedule),  # type: ignore[arg-type]
        trainer=TrainerSpec(accelerator="cpu"),
        seed=3,
        label="toy",
        image_size=SIZE,
        settings={},
        resume=ResumeSpec(every=0),
    )


class Began(Callback):
    """At which update a loop began."""

    def on_train_start(self, trainer: Trainer, *_: object) -> None:
        self.update = trainer.global_step


Build = Callable[[], tuple[Pretraining, PretrainJob]]


def attempt(build: Build, folder: Path, callback: Callback) -> Pretraining:
    """One pretraining in `folder`, with a callback more; the trained module."""
    make = TrainerSpec.make
    module, job = build()

    def made(self: TrainerSpec, label: str, callbacks: Sequence[Callback] = (), **more: Any) -> Trainer:
        return make(self, label, callbacks=[*callbacks, callback], **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainerSpec, "make", made)
        pretrain(module, job, folder)
    return module


def weights_after(build: Build, folder: Path, stops: list[tuple[str, int]]) -> dict[str, torch.Tensor]:
    """All weights after a pretraining in `folder` that dies at these hooks, in turn, and goes on each time."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for hook, count in stops:
        with pytest.raises(Killed):
            attempt(build, folder, Stop(hook, count))
    left, began = found(folder / PROGRESS), Began()
    module = attempt(build, folder, began)
    assert began.update == (int(left[0].stem) if left else 0)  # nothing that was saved is done again
    return {name: value.detach().clone() for name, value in module.state_dict().items()}
