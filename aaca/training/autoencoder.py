"""The image autoencoder of the embedded text-to-image model (KL, as in latent diffusion): all, then its decoder."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from aaca.training.pretrain import Pretraining, Schedule


def build_autoencoder(channels: list[int], latent_channels: int, image_size: int) -> AutoencoderKL:
    """An `AutoencoderKL` that halves the side once a stage but for the last; random weights."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        block_out_channels=tuple(channels),
        layers_per_block=1,
        latent_channels=latent_channels,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=image_size,
        force_upcast=False,
    )


class AutoencoderPretraining(Pretraining):
    """Absolute error of pixels, and of their differences to the right and lower neighbour (edges), plus β·KL.

    `colours` weighs the squared error of 8 × 8 means: without it the small model draws shapes and forgets hues.

    No adversary and no foreign perceptual network: both need longer than the embedded model is given.
    """

    def __init__(
        self, vae: AutoencoderKL, schedule: Schedule, edges: float = 1.0, kl: float = 1e-4, colours: float = 0.0
    ) -> None:
        super().__init__(schedule)
        self.vae = vae.to(memory_format=torch.channels_last)
        self.edges, self.kl, self.colours = edges, kl, colours

    def losses(self, batch: Any) -> dict[str, Tensor]:
        """`pixels`, `edges` (mean absolute errors) and `kl` (nats a latent value)."""
        images = batch[0].contiguous(memory_format=torch.channels_last)
        posterior = self.vae.encode(images).latent_dist
        back = self.vae.decode(posterior.sample()).sample
        pixels, edges = pixel_errors(back, images)
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        colours = F.avg_pool2d(back - images, 8).square().mean()
        loss = pixels + self.edges * edges + self.kl * kl + self.colours * colours
        mse = F.mse_loss(back, images)
        return {"loss": loss, "pixels": pixels, "edges": edges, "kl": kl, "colours": colours, "mse": mse}


class DecoderPretraining(Pretraining):
    """The decoder alone, with the encoder as it is: latents that a denoiser learns from meanwhile stay what they are.

    `latents` `[N, C, s, s]` are the mean latents of the table's rows.
    """

    def __init__(self, vae: AutoencoderKL, latents: np.ndarray, schedule: Schedule, edges: float = 1.0) -> None:
        super().__init__(schedule)
        self.vae = vae.to(memory_format=torch.channels_last)
        self.vae.encoder.requires_grad_(False)
        self.vae.quant_conv.requires_grad_(False)
        self.latents, self.edges = latents, edges

    def losses(self, batch: Any) -> dict[str, Tensor]:
        """`pixels` and `edges` (mean absolute errors), `mse`."""
        images, _, rows = batch
        latents = torch.from_numpy(self.latents[rows.cpu().numpy()].astype(np.float32)).to(images.device)
        back = self.vae.decode(latents).sample
        pixels, edges = pixel_errors(back, images)
        return {"loss": pixels + self.edges * edges, "pixels": pixels, "edges": edges, "mse": F.mse_loss(back, images)}


def pixel_errors(back: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean absolute error of pixels, and of their differences to the right and lower neighbour."""
    error = back - images
    return error.abs().mean(), (error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()) / 2
