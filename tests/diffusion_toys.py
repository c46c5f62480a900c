"""A Stable Diffusion pipeline of a few thousand weights (beside its token table), saved and loaded like any other."""

from pathlib import Path
from typing import Any

import torch
from diffusers import PNDMScheduler
from transformers import CLIPTextConfig, CLIPTextModel

from aaca.models.text_to_image import Diffusion
from aaca.models.tiny_diffusion import build_unet, save_pipeline
from aaca.training.autoencoder import build_autoencoder
from tests.captioned_toys import scrambled

WIDTH, CONTEXT, SIDE, FACTOR = 32, 32, 16, 0.7
VOCABULARY = 49408


def networks(width: int = WIDTH, context: int = CONTEXT) -> dict[str, Any]:
    """Random weights, always the same; torch's global generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = scrambled(build_autoencoder([8, 8], latent_channels=4, image_size=SIDE))
        vae.register_to_config(scaling_factor=FACTOR)
        unet = build_unet([16, 16], heads=2, latent_channels=4, latent_size=SIDE // 2, width=width)
        config = CLIPTextConfig(
            vocab_size=VOCABULARY,
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=context,
            pad_token_id=0,
            bos_token_id=49406,
            eos_token_id=49407,
        )
        return {"vae": vae.eval(), "unet": unet.eval(), "text_encoder": CLIPTextModel(config).eval()}


def save_toy_pipeline(folder: Path) -> Path:
    save_pipeline(folder, **networks(), context=CONTEXT)
    return folder


def toy_diffusion(folder: Path, **changes: Any) -> Diffusion:
    """Settings that are quick: two steps, batches of four."""
    settings = {"steps": 2, "guidance": 3.0, "safety_checker": False, "batch_size": 4, **changes}
    return Diffusion(str(folder), **settings)


def scheduler_of_sd15() -> PNDMScheduler:
    """The scheduler as Stable Diffusion 1.5 has it in `scheduler_config.json`."""
    return PNDMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        set_alpha_to_one=False,
        steps_offset=1,
    )
