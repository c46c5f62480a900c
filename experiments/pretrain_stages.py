"""The stages of the job `pretrain`: captioned scenes, then the models, each a stage of its own."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import timm
import torch
from diffusers import AutoencoderKL
from open_clip.model import CLIP
from safetensors.torch import load_file, save_file

from aaca.data.captioned import TABLE, CaptionedScenes, Captions
from aaca.data.table import ImageTable
from aaca.data.transforms import BatchAugment
from aaca.models.judge import ASPECTS, NOTHING, Judge
from aaca.models.text_encoder import to_clip_text_model
from aaca.models.tiny_clip import build_clip, clip_config
from aaca.models.tiny_diffusion import build_unet, noise_schedule, save_pipeline
from aaca.models.tokenizer import clip_tokenizer
from aaca.runtime.files import read_json, write_json
from aaca.runtime.seeding import purpose_seed
from aaca.runtime.stages import Stage, StageCache
from aaca.training.autoencoder import AutoencoderPretraining, DecoderPretraining, build_autoencoder
from aaca.training.contrastive import ContrastivePretraining
from aaca.training.diffusion import LatentDiffusion
from aaca.training.judge import JudgePretraining
from aaca.training.masked_autoencoder import MaskedAutoencoder
from aaca.training.pretrain import Pretraining, PretrainJob, pretrain
from aaca.world.pack import load_pack

from .pretrain_config import PretrainConfig


class PretrainStages:
    """Each method makes or finds one stage, whose key holds exactly what influences it."""

    def __init__(self, options: PretrainConfig) -> None:
        self.options = options
        self.root = Path(options.paths.root).absolute()
        self.cache = StageCache(self.root, resume=options.resume.mode == "auto")

    def scenes(self, sources: tuple[Any, ...] = ("train",), part: Any = "seen") -> tuple[Stage, ImageTable]:
        """Captioned scenes of these sources."""
        options = self.options
        scenes = CaptionedScenes(options.images, sources, part, seed=options.seed, workers=options.workers)
        stage = self.cache.stage("captioned", scenes.fingerprint(), lambda folder: scenes.build(folder) and None)
        return stage, ImageTable.load(stage.folder / TABLE, load_pack().classes)

    def _inputs(self, section: Any, **upstream: str) -> dict[str, Any]:
        options = self.options
        device = {"devices": options.trainer.world, "precision": options.trainer.precision}
        return {
            "settings": asdict(section),
            "seed": options.seed,
            "on": options.trainer.device_kind,
            **device,
            **upstream,
        }

    def _fit(
        self, module: Pretraining, table: ImageTable, name: str, folder: Path, augment: BatchAugment | None
    ) -> None:
        options = self.options
        section = getattr(options, name)
        job = PretrainJob(
            table=table,
            schedule=section.schedule,
            trainer=options.trainer,
            seed=purpose_seed(options.seed, "order", name),
            label=name,
            image_size=64,
            settings=asdict(section),
            resume=options.resume,
            **({} if augment is None else {"augment": augment}),
        )
        pretrain(module, job, folder)

    def _begin(self, name: str) -> None:
        torch.manual_seed(purpose_seed(self.options.seed, "init", name))

    def clip(self) -> Stage:
        """The image-text model."""
        options, (scenes, table) = self.options.clip, self.scenes()

        def make(folder: Path) -> None:
            self._begin("clip")
            config = clip_config(options.image_size, options.width, options.layers, options.embed_dim, options.context)
            model = build_clip(config, imagenet=True)
            tokenizer = open_clip.SimpleTokenizer(context_length=options.context)
            seed = purpose_seed(self.options.seed, "captions")
            captions = Captions(table)
            module = ContrastivePretraining(model, tokenizer, captions, options.image_size, options.schedule, seed)
            self._fit(module, table, "clip", folder, BatchAugment(scale_min=0.6, hflip=0.0, brightness=0.3))
            save_weights(model, folder / "clip.safetensors")

        return self.cache.stage("clip", self._inputs(options, scenes=scenes.key), make, together=True)

    def autoencoder(self) -> Stage:
        """The image autoencoder."""
        options, (scenes, table) = self.options.autoencoder, self.scenes()

        def make(folder: Path) -> None:
            self._begin("autoencoder")
            vae = build_autoencoder(options.channels, options.latent_channels, 64)
            module = AutoencoderPretraining(vae, options.schedule, options.edges, options.kl)
            self._fit(module, table, "autoencoder", folder, None)
            save_weights(vae, folder / "autoencoder.safetensors")

        return self.cache.stage("autoencoder", self._inputs(options, scenes=scenes.key), make, together=True)

    def latents(self, autoencoder: Stage, scenes: Stage, table: ImageTable) -> Stage:
        """All scenes as latents of standard deviation 1, and the factor that made them so."""

        def make(folder: Path) -> None:
            vae = self.load_autoencoder(autoencoder.folder / "autoencoder.safetensors")
            latents = encode_all(vae.eval(), np.load(scenes.folder / "images.npy", mmap_mode="r"))
            factor = 1 / float(latents.std(dtype=np.float64))
            np.save(folder / "latents.npy", (latents * factor).astype(np.float16))
            write_json(folder / "factor.json", factor)

        return self.cache.stage("latents", {"autoencoder": autoencoder.key, "scenes": scenes.key}, make)

    def diffusion(self) -> Stage:
        """The text-to-image pipeline."""
        options, (scenes, table) = self.options.diffusion, self.scenes()
        clip, autoencoder = self.clip(), self.colours()
        latents = self.latents(autoencoder, scenes, table)

        def make(folder: Path) -> None:
            self._begin("diffusion")
            text_encoder = to_clip_text_model(self.load_clip(clip))
            width, context = text_encoder.config.hidden_size, text_encoder.config.max_position_embeddings
            channels = self.options.autoencoder.latent_channels
            values = np.load(latents.folder / "latents.npy")
            unet = build_unet(options.channels, options.heads, channels, values.shape[-1], width)
            module = LatentDiffusion(
                unet,
                text_encoder,
                clip_tokenizer(context),
                noise_schedule(),
                values,
                Captions(table),
                options.schedule,
                purpose_seed(self.options.seed, "captions"),
                options.drop_caption,
                options.ema,
                options.snr,
                options.text_lr,
            )
            self._fit(module, table, "diffusion", folder, None)
            module.use_average()
            save_weights(unet, folder / "unet.safetensors")
            save_weights(text_encoder, folder / "text_encoder.safetensors")

        return self.cache.stage(
            "diffusion", self._inputs(options, latents=latents.key, clip=clip.key), make, together=True
        )

    def colours(self) -> Stage:
        """The autoencoder, trained on with a loss that sees hues."""
        options, (scenes, table), before = self.options.colours, self.scenes(), self.autoencoder()

        def make(folder: Path) -> None:
            self._begin("colours")
            vae = self.load_autoencoder(before.folder / "autoencoder.safetensors")
            module = AutoencoderPretraining(vae, options.schedule, options.edges, options.kl, options.weight)
            self._fit(module, table, "colours", folder, None)
            save_weights(vae, folder / "autoencoder.safetensors")

        inputs = self._inputs(options, scenes=scenes.key, autoencoder=before.key)
        return self.cache.stage("colours", inputs, make, together=True)

    def decoder(self) -> Stage:
        """The autoencoder with a decoder that was trained on."""
        options, (scenes, table) = self.options.decoder, self.scenes()
        autoencoder = self.colours()
        latents = self.latents(autoencoder, scenes, table)

        def make(folder: Path) -> None:
            self._begin("decoder")
            vae = self.load_autoencoder(autoencoder.folder / "autoencoder.safetensors")
            factor = read_json(latents.folder / "factor.json")
            values = np.load(latents.folder / "latents.npy").astype(np.float32) / factor
            self._fit(DecoderPretraining(vae, values, options.schedule, options.edges), table, "decoder", folder, None)
            save_weights(vae, folder / "autoencoder.safetensors")

        return self.cache.stage("decoder", self._inputs(options, latents=latents.key), make, together=True)

    def load_autoencoder(self, file: Path) -> AutoencoderKL:
        """An image autoencoder with these weights."""
        options = self.options.autoencoder
        vae = build_autoencoder(options.channels, options.latent_channels, 64)
        load_weights(vae, file)
        return vae

    def save_pipeline(self, folder: Path) -> list[Stage]:
        """The whole text-to-image pipeline from the stages that made its parts, which are returned."""
        options, (scenes, table) = self.options, self.scenes()
        autoencoder, decoder, diffusion = self.colours(), self.decoder(), self.diffusion()
        latents = self.latents(autoencoder, scenes, table)
        vae = self.load_autoencoder(decoder.folder / "autoencoder.safetensors")
        vae.register_to_config(scaling_factor=read_json(latents.folder / "factor.json"))
        text_encoder = to_clip_text_model(self.load_clip(self.clip()))
        load_weights(text_encoder, diffusion.folder / "text_encoder.safetensors")
        size, width = np.load(latents.folder / "latents.npy", mmap_mode="r").shape[-1], options.clip.width
        unet = build_unet(
            options.diffusion.channels, options.diffusion.heads, options.autoencoder.latent_channels, size, width
        )
        load_weights(unet, diffusion.folder / "unet.safetensors")
        save_pipeline(folder, vae, unet, text_encoder, options.clip.context)
        return [self.autoencoder(), autoencoder, decoder, diffusion]

    def load_clip(self, stage: Stage) -> CLIP:
        """The trained image-text model."""
        options = self.options.clip
        config = clip_config(options.image_size, options.width, options.layers, options.embed_dim, options.context)
        model = build_clip(config, imagenet=False)
        load_weights(model, stage.folder / "clip.safetensors")
        return model

    def backbone(self) -> Stage:
        """The start weights of the small ViT, learned without labels."""
        options, (scenes, table) = self.options.backbone, self.scenes()

        def make(folder: Path) -> None:
            self._begin("backbone")
            encoder = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=0, **options.network)
            module = MaskedAutoencoder(
                encoder, options.schedule, options.mask, options.decoder_width, options.decoder_depth
            )
            self._fit(module, table, "backbone", folder, BatchAugment(scale_min=0.4, hflip=0.5, brightness=0.0))
            save_weights(encoder, folder / "backbone.safetensors")

        return self.cache.stage("backbone", self._inputs(options, scenes=scenes.key), make, together=True)

    def judge(self) -> Stage:
        """The referee, on sources that no other model sees."""
        options, (scenes, table) = self.options.judge, self.scenes(("val", "test"), None)

        def make(folder: Path) -> None:
            self._begin("judge")
            judge = Judge(imagenet=True)
            module = JudgePretraining(judge, aspects(table), options.schedule)
            self._fit(module, table, "judge", folder, BatchAugment(scale_min=0.5, hflip=0.5, brightness=0.3))
            save_weights(judge, folder / "judge.safetensors")

        return self.cache.stage("judge", self._inputs(options, scenes=scenes.key), make, together=True)


def aspects(table: ImageTable) -> torch.Tensor:
    """What the judge should say, `[N, 3]`."""
    frame = table.frame
    said = {"class": frame["cls"], "scene": frame["scene"], "concept": frame["concept"].fillna(NOTHING)}
    columns = [[choices.index(word) for word in said[name]] for name, choices in ASPECTS.items()]
    return torch.from_numpy(np.array(columns, dtype=np.int64).T.copy())


@torch.no_grad()
def encode_all(vae: AutoencoderKL, images: np.ndarray, batch_size: int = 64) -> np.ndarray:
    """Mean latents `[N, C, s, s]` of uint8 images `[N, S, S, 3]`."""
    found = []
    for start in range(0, len(images), batch_size):
        pixels = torch.from_numpy(images[start : start + batch_size].copy()).permute(0, 3, 1, 2).float() / 127.5 - 1
        found.append(vae.encode(pixels).latent_dist.mean.numpy())
    return np.concatenate(found)


def save_weights(model: torch.nn.Module, file: Path) -> None:
    """All weights in full precision."""
    save_file({name: value.detach().contiguous().cpu() for name, value in model.state_dict().items()}, file)


def load_weights(model: torch.nn.Module, file: Path) -> None:
    """Read what `save_weights` wrote."""
    model.load_state_dict(load_file(file))
