"""The embedded text-to-image model: Stable Diffusion's classes at the size of a small world."""

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextModel

from aaca.models.tokenizer import clip_tokenizer
from aaca.runtime.files import read_json, write_json


def build_unet(
    channels: list[int], heads: int, latent_channels: int, latent_size: int, width: int
) -> UNet2DConditionModel:
    """A denoiser with cross-attention to text states of `width` at all but the finest resolution; random weights."""
    coarse = len(channels) - 1
    return UNet2DConditionModel(
        sample_size=latent_size,
        in_channels=latent_channels,
        out_channels=latent_channels,
        down_block_types=("DownBlock2D", *["CrossAttnDownBlock2D"] * coarse),
        up_block_types=(*["CrossAttnUpBlock2D"] * coarse, "UpBlock2D"),
        block_out_channels=tuple(channels),
        layers_per_block=1,
        cross_attention_dim=width,
        attention_head_dim=heads,  # diffusers' name for the number of heads
        norm_num_groups=16,
    )


def noise_schedule() -> DDPMScheduler:
    """Training noise: 1000 steps of the cosine schedule (Nichol & Dhariwal 2021), the network predicts v."""
    return DDPMScheduler(
        num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", clip_sample=False
    )


def save_pipeline(
    folder: Path, vae: AutoencoderKL, unet: UNet2DConditionModel, text_encoder: CLIPTextModel, context: int
) -> None:
    """Write a folder that `StableDiffusionPipeline.from_pretrained` loads; weights in half precision."""
    scheduler = DPMSolverMultistepScheduler.from_config(
        noise_schedule().config, algorithm_type="dpmsolver++", steps_offset=1
    )
    pipeline = StableDiffusionPipeline(
        vae=vae.to(torch.float16),
        text_encoder=text_encoder.to(torch.float16),
        tokenizer=clip_tokenizer(context),
        unet=unet.to(torch.float16),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    file = folder / "text_encoder" / "config.json"
    write_json(file, {**read_json(file), "dtype": "float32"})  # a plain call loads all parts in one precision
