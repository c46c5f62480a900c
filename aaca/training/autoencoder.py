"""`AutoencoderPretraining`: the image autoencoder (KL, as in latent diffusion) of the embedded text-to-image model."""

from typing import Any

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

    No adversary and no foreign perceptual network: both need longer than the embedded model is given.
    """

    def __init__(self, vae: AutoencoderKL, schedule: Schedule, edges: float = 1.0, kl: float = 1e-4) -> None:
        super().__init__(schedule)
        self.vae = vae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.edges, self.kl = edges, kl

    def losses(self, batch: Any) -> dict[str, Tensor]:
        """`pixels`, `edges` (mean absolute errors) and `kl` (nats a latent value)."""
        images = batch[0].contiguous(memory_format=torch.channels_last)
        posterior = self.vae.encode(images).latent_dist
        back = self.vae.decode(posterior.sample()).sample
        error = back - images
        pixels = error.abs().mean()
        edges = (error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()) / 2
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        loss = pixels + self.edges * edges + self.kl * kl
        return {"loss": loss, "pixels": pixels, "edges": edges, "kl": kl, "mse": F.mse_loss(back, images)}
