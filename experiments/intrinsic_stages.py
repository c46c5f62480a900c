"""The stages of the job `intrinsic`: scenes, a base, its fine-tuned variants, their scores."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from aaca.data.table import ImageTable
from aaca.evaluate.intrinsic import decomposition_metrics, sensitivity
from aaca.models.intrinsic_net import IntrinsicNet
from aaca.runtime.files import write_json
from aaca.runtime.seeding import purpose_seed
from aaca.runtime.stages import Stage, StageCache
from aaca.training.intrinsic import ConceptSets, IntrinsicTraining, Variant
from aaca.training.pretrain import PretrainJob, pretrain
from aaca.world.intrinsic import Intrinsics, delta_albedo, delta_light, draw_scenes, render_all

from .intrinsic_config import IntrinsicConfig

Row = Literal["base", "control", "r_only", "r_and_s"]
ROWS: dict[Row, Variant | None] = {"base": None, "control": "base", "r_only": "r_only", "r_and_s": "r_and_s"}
"""Rows of the table, and what is fine-tuned: nothing (the base itself), without a concept loss (control), with it."""

SHOWN = 6  # test scenes on the sheet of examples
WEIGHTS, SCORES, EXAMPLES = "net.safetensors", "scores.json", "examples.npy"


class IntrinsicStages:
    """Each method makes or finds one stage, whose key holds exactly what influences it."""

    def __init__(self, options: IntrinsicConfig) -> None:
        self.options = options
        self.cache = StageCache(Path(options.paths.root).absolute(), resume=options.resume.mode == "auto")

    def scenes(self) -> Stage:
        """Exact R and S of all scenes, as arrays of four channels."""
        options = self.options.scenes
        size, seed, each = options.image_size, options.seed, (options.groups, options.members)

        def make(folder: Path) -> None:
            for split, number in (("train", options.train), ("test", options.test)):
                _save(folder / f"{split}.npy", render_all(draw_scenes(number, seed, split), size))
                _save(folder / f"light_{split}.npy", delta_light(*each, size, seed, split))
                _save(folder / f"albedo_{split}.npy", delta_albedo(*each, size, seed, split))

        return self.cache.stage("intrinsic_scenes", asdict(options), make)

    def base(self, scenes: Stage, seed: int) -> Stage:
        """The network from scratch."""
        options = self.options

        def make(folder: Path) -> None:
            torch.manual_seed(purpose_seed(seed, "init", "intrinsic"))
            module = IntrinsicTraining(IntrinsicNet(options.channels), options.base)
            self._fit(module, scenes, purpose_seed(seed, "order", "base"), "base", folder)

        inputs = self._inputs(seed, scenes=scenes.key, channels=options.channels, schedule=asdict(options.base))
        return self.cache.stage("intrinsic_base", inputs, make, about=f"seed {seed}", together=True)

    def finetuned(self, row: Row, variant: Variant, scenes: Stage, base: Stage, seed: int) -> Stage:
        """What a variant makes of the base; all see the same batches in the same order."""
        options = self.options

        def make(folder: Path) -> None:
            light, albedo = (_load(scenes.folder / f"{name}_train.npy") for name in ("light", "albedo"))
            sets = ConceptSets(light, albedo, variant, options.concept, purpose_seed(seed, "vectors"))
            module = IntrinsicTraining(load_net(base, options.channels), options.finetune, sets)
            self._fit(module, scenes, purpose_seed(seed, "order", "finetune"), row, folder)

        concept = None if variant == "base" else asdict(options.concept)
        inputs = self._inputs(seed, start=base.key, schedule=asdict(options.finetune), variant=variant, concept=concept)
        return self.cache.stage("intrinsic_finetune", inputs, make, about=f"{row} seed {seed}", together=True)

    def scores(self, row: Row, scenes: Stage, trained: Stage, seed: int) -> Stage:
        """All metrics of one row on test scenes and on the Δ sets that are kept for it."""
        channels = self.options.channels

        def make(folder: Path) -> None:
            net = load_net(trained, channels).eval()
            test, light, albedo = (
                _load(scenes.folder / f"{name}.npy") for name in ("test", "light_test", "albedo_test")
            )
            predicted = predict(net, test.image)
            found = decomposition_metrics(*predicted, torch.from_numpy(test.albedo), torch.from_numpy(test.shading))
            by_light, by_albedo = predict(net, light.image), predict(net, albedo.image)
            found["sensitivity_r"] = sensitivity(by_light[0], by_albedo[0])
            found["sensitivity_s"] = sensitivity(by_albedo[1], by_light[1])
            write_json(folder / SCORES, found)
            np.save(folder / EXAMPLES, torch.cat(predicted, dim=1)[:SHOWN].numpy())

        inputs = {"trained": trained.key, "scenes": scenes.key}
        return self.cache.stage("intrinsic_scores", inputs, make, about=f"{row} seed {seed}")

    def all_scores(self, scenes: Stage) -> dict[tuple[Row, int], Path]:
        """The scores' folder of every row and seed."""
        found = {}
        for seed in range(self.options.seed, self.options.seed + self.options.repeats):
            base = self.base(scenes, seed)
            for row, variant in ROWS.items():
                trained = base if variant is None else self.finetuned(row, variant, scenes, base, seed)
                found[row, seed] = self.scores(row, scenes, trained, seed).folder
        return found

    def _inputs(self, seed: int, **more: Any) -> dict[str, Any]:
        trainer = self.options.trainer
        on = {"on": trainer.device_kind, "devices": trainer.world, "precision": trainer.precision}
        return {"seed": seed, **on, **more}

    def _fit(self, module: IntrinsicTraining, scenes: Stage, order: int, label: str, folder: Path) -> None:
        options, values = self.options, np.load(scenes.folder / "train.npy")
        job = PretrainJob(
            table=ImageTable.build(pd.DataFrame({"id": [f"{row:06d}" for row in range(len(values))]}), ("scene",)),
            schedule=module.schedule,
            trainer=options.trainer,
            seed=order,
            label=label,
            image_size=options.scenes.image_size,
            settings={"row": label, **asdict(options.concept)},
            values=values,
            resume=options.resume,
        )
        pretrain(module, job, folder)
        save_file({key: value.contiguous().cpu() for key, value in module.net.state_dict().items()}, folder / WEIGHTS)


def load_net(stage: Stage, channels: list[int]) -> IntrinsicNet:
    """The network of a base or fine-tuned stage."""
    net = IntrinsicNet(channels)
    net.load_state_dict(load_file(stage.folder / WEIGHTS))
    return net


@torch.no_grad()
def predict(net: IntrinsicNet, images: np.ndarray, batch_size: int = 64) -> tuple[Tensor, Tensor]:
    """R and S of images `[…, 3, S, S]`, with the same leading axes."""
    lead = images.shape[:-3]
    batches = torch.from_numpy(images.reshape(-1, *images.shape[-3:])).split(batch_size)
    albedo, shading = (torch.cat(parts) for parts in zip(*map(net, batches), strict=True))
    return albedo.reshape(*lead, *albedo.shape[1:]), shading.reshape(*lead, *shading.shape[1:])


def _save(file: Path, scenes: Intrinsics) -> None:
    np.save(file, np.concatenate([scenes.albedo, scenes.shading], axis=-3))


def _load(file: Path) -> Intrinsics:
    values = np.load(file)
    return Intrinsics(values[..., :3, :, :], values[..., 3:, :, :])
