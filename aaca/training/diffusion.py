"""`LatentDiffusion`: a text-conditional denoiser of latents (Rombach et al. 2022), its text encoder trained along."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from aaca.data.captioned import Captions
from aaca.runtime.seeding import purpose_seed
from aaca.training.pretrain import Pretraining, Schedule


class LatentDiffusion(Pretraining):
    """Mean squared error of v with min-SNR weights (Hang et al. 2023); keeps a moving average of all weights.

    `latents` `[N, C, s, s]` are the scaled latents of the table's rows. A share `drop_caption` of the images is shown
    without caption, for classifier-free guidance (Ho & Salimans 2022).
    """

    alphas: Tensor

    def __init__(
        self,
        unet: UNet2DConditionModel,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        scheduler: DDPMScheduler,
        latents: np.ndarray,
        captions: Captions,
        schedule: Schedule,
        seed: int,
        drop_caption: float = 0.12,
        ema: float = 0.999,
        snr: float = 5.0,
        text_lr: float = 0.3,
    ) -> None:
        super().__init__(schedule)
        self.unet = unet.to(memory_format=torch.channels_last)
        self.text_encoder = text_encoder.train()
        self.tokenizer, self.latents, self.captions, self.seed = tokenizer, latents, captions, seed
        self.drop_caption, self.ema, self.snr, self.text_lr = drop_caption, ema, snr, text_lr
        self.register_buffer("alphas", scheduler.alphas_cumprod.clone(), persistent=False)
        self.average = nn.ParameterList(
            nn.Parameter(weight.detach().clone(), requires_grad=False) for weight in self._weights()
        )

    def _weights(self) -> Iterator[nn.Parameter]:
        yield from self.unet.parameters()
        yield from self.text_encoder.parameters()

    def losses(self, batch: Any) -> dict[str, Tensor]:
        """`loss` (weighted) and `mse` of v."""
        rows = batch[2].cpu().numpy()
        device = self.alphas.device
        clean = torch.from_numpy(self.latents[rows].astype(np.float32)).to(device)
        n = len(clean)
        texts = self.captions.draw(rows, purpose_seed(self.seed, "caption", self.global_step))
        texts = ["" if drop else text for text, drop in zip(texts, torch.rand(n) < self.drop_caption, strict=True)]
        tokens = self.tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        states = self.text_encoder(tokens.to(device)).last_hidden_state
        times = torch.randint(len(self.alphas), (n,), device=device)
        noise = torch.randn_like(clean)
        signal = self.alphas[times][:, None, None, None]
        noisy = signal.sqrt() * clean + (1 - signal).sqrt() * noise
        velocity = signal.sqrt() * noise - (1 - signal).sqrt() * clean
        error = F.mse_loss(self.unet(noisy, times, states).sample, velocity, reduction="none").mean(dim=(1, 2, 3))
        ratio = signal.flatten() / (1 - signal.flatten())
        weight = ratio.clamp(max=self.snr) / (ratio + 1)
        return {"loss": (weight * error).mean(), "mse": error.mean()}

    def updated(self, count: int) -> None:
        """Move the average; its memory is shorter at the start."""
        decay = min(self.ema, (1 + count) / (10 + count))
        torch._foreach_lerp_(list(self.average), list(self._weights()), 1 - decay)

    def trained(self) -> list[dict[str, Any]]:
        """The denoiser; the text encoder at its own rate, without decay (most of its rows never occur)."""
        denoiser = list(self.unet.parameters())
        return [
            {"params": [weight for weight in denoiser if weight.ndim > 1]},
            {"params": [weight for weight in denoiser if weight.ndim <= 1], "weight_decay": 0.0},
            {
                "params": list(self.text_encoder.parameters()),
                "weight_decay": 0.0,
                "lr": self.schedule.lr * self.text_lr,
            },
        ]

    @torch.no_grad()
    def use_average(self) -> None:
        """Put the average in place of the weights."""
        for weight, average in zip(self._weights(), self.average, strict=True):
            weight.copy_(average)
