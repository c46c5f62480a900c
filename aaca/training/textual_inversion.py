"""`TextualInversion`: a token a class, learned from its images with everything else frozen (Gal et al. 2022)."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from PIL import Image
from torch import Tensor, nn

from aaca.data.table import ImageTable
from aaca.models.tokens import FILE, SplicedEmbedding, expanded, mean_of_tokens, save_token
from aaca.runtime.errors import ConfigError, DataError
from aaca.runtime.files import write_json
from aaca.runtime.ranks import current
from aaca.runtime.seeding import purpose_seed
from aaca.training.inversion import InversionRecipe
from aaca.training.pretrain import Pretraining, PretrainJob, pretrain
from aaca.training.resume import ResumeSpec
from aaca.training.trainer import TrainerSpec

log = logging.getLogger(__name__)


class TextualInversion(Pretraining):
    """The denoising loss with respect to the new rows alone; the table, and all networks, stay as they are.

    `pipeline` is a loaded Stable Diffusion pipeline. Batches are (means and deviations of latents, plain and mirrored
    `[B, 2, 2, C, s, s]`, labels, rows). `names` and `nouns`: the token and the plain name of each class.
    """

    first: Tensor
    ids: Tensor

    def __init__(self, pipeline: Any, names: Sequence[str], nouns: Sequence[str], recipe: InversionRecipe) -> None:
        super().__init__(recipe.schedule)
        self.recipe, self.names = recipe, list(names)
        self.frozen = (pipeline.unet, pipeline.text_encoder)  # a tuple: neither trained, nor saved in checkpoints
        for network in self.frozen:
            network.requires_grad_(False).eval()
        self.factor, self.shift = pipeline.vae.config.scaling_factor, pipeline.vae.config.shift_factor or 0.0
        self.noise = DDPMScheduler.from_config(pipeline.scheduler.config)
        if self.noise.config.prediction_type not in ("epsilon", "v_prediction"):
            raise ConfigError(
                f"diffusion.model: its scheduler predicts {self.noise.config.prediction_type!r}; expected a model that "
                "predicts epsilon or v_prediction"
            )
        tokenizer, table = pipeline.tokenizer, pipeline.text_encoder.get_input_embeddings().weight
        starts = [self._start(noun, tokenizer, table) for noun in nouns]
        self.rows = nn.Parameter(torch.cat(starts))
        self.register_buffer("first", self.rows.detach().clone(), persistent=True)
        self.spliced = (SplicedEmbedding(table, self.rows),)
        self.spliced[0].rows = self.rows
        pipeline.text_encoder.set_input_embeddings(self.spliced[0])
        tokenizer.add_tokens([token for name in names for token in expanded(name, recipe.vectors)])
        self.register_buffer("ids", self._captions(tokenizer), persistent=False)

    def _start(self, noun: str, tokenizer: Any, table: Tensor) -> Tensor:
        mean = mean_of_tokens(noun, tokenizer, table.detach())
        log.info("  token of %r starts from the tokens %s", noun, " ".join(tokenizer.tokenize(noun)))
        rows = mean.repeat(self.recipe.vectors, 1)
        if self.recipe.initialiser == "random" or self.recipe.vectors > 1:  # equal rows would stay equal
            noise = torch.randn_like(rows)
            noise *= mean.norm() / noise.norm(dim=1, keepdim=True)
            share = 1.0 if self.recipe.initialiser == "random" else 0.1
            rows = (1 - share) * rows + share * noise
        return rows

    def _captions(self, tokenizer: Any) -> Tensor:
        """Token ids `[classes, templates, length]` of every template with every class's whole token."""
        whole = [" ".join(expanded(name, self.recipe.vectors)) for name in self.names]
        texts = [template.format(token) for token in whole for template in self.recipe.templates]
        found = tokenizer(texts, padding="max_length", truncation=False)
        longest = max(map(len, found.input_ids))
        if longest > tokenizer.model_max_length:
            raise ConfigError(
                f"inversion.vectors: {self.recipe.vectors} a token make a caption of {longest} tokens; "
                f"expected at most {tokenizer.model_max_length}"
            )
        return torch.tensor(found.input_ids).view(len(self.names), len(self.recipe.templates), -1)

    def on_fit_start(self) -> None:
        """Bring the frozen networks to the device."""
        for network in (*self.frozen, *self.spliced):
            network.to(self.device)

    def losses(self, batch: Any) -> dict[str, Tensor]:
        """`loss` of the network's target (noise or velocity), the rows' mean norm, their mean cosine with the start."""
        posterior, labels, _ = batch
        unet, text_encoder = self.frozen
        n, device = len(labels), labels.device
        mirrored = torch.randint(2 if self.recipe.flip else 1, (n,), device=device)
        mean, deviation = posterior[torch.arange(n, device=device), mirrored].unbind(dim=1)
        latents = (mean + deviation * torch.randn_like(mean) - self.shift) * self.factor
        times = torch.randint(self.noise.config.num_train_timesteps, (n,), device=device)
        noise = torch.randn_like(latents)
        noisy = self.noise.add_noise(latents, noise, times)
        target = noise
        if self.noise.config.prediction_type == "v_prediction":
            target = self.noise.get_velocity(latents, noise, times)
        templates = torch.randint(self.ids.shape[1], (n,), device=device)
        states = text_encoder(self.ids[labels, templates])[0]
        dtype = next(unet.parameters()).dtype
        predicted = unet(noisy.to(dtype), times, states.to(dtype)).sample
        return {
            "loss": F.mse_loss(predicted.float(), target),
            "norm": self.rows.detach().norm(dim=1).mean(),
            "cosine": F.cosine_similarity(self.rows.detach(), self.first, dim=1).mean(),
        }

    def updated(self, count: int) -> None:
        """Pin the norms."""
        if self.recipe.pin_norm:
            self.rows.mul_(self.first.norm(dim=1, keepdim=True) / self.rows.norm(dim=1, keepdim=True))

    def row_groups(self) -> dict[str, Tensor]:
        """Token → its rows `[V, D]`."""
        groups = self.rows.detach().view(len(self.names), self.recipe.vectors, -1)
        return dict(zip(self.names, groups, strict=True))


def learn_tokens(
    pipeline: Any,
    names: Sequence[str],
    nouns: Sequence[str],
    table: ImageTable,
    recipe: InversionRecipe,
    trainer: TrainerSpec,
    folder: Path,
    size: int,
    seed: int,
    resume: ResumeSpec,
) -> dict[str, Path]:
    """Learn one token a class of `table`; token → the file that holds it. All ranks call it.

    Writes `tokens/<class number>/learned_embeds.safetensors`, which diffusers' `load_textual_inversion` takes.
    """
    counts = np.bincount(table.labels, minlength=len(names))
    if not counts.all():
        raise DataError(f"dataset: no training image of class {nouns[int(counts.argmin())]!r} to learn a token from")
    rows = chosen_rows(table.labels, recipe.images, seed)
    images = table.take(rows)
    device = torch.device("cuda" if trainer.device_kind == "gpu" else trainer.device_kind)
    values = posteriors(pipeline.vae.to(device), images, size)
    torch.manual_seed(purpose_seed(seed, "tokens"))
    module = TextualInversion(pipeline, names, nouns, recipe)
    job = PretrainJob(
        table=images,
        schedule=recipe.schedule,
        trainer=trainer,
        seed=seed,
        label="tokens",
        image_size=size,
        settings={"names": list(names), "vectors": recipe.vectors, "pin_norm": recipe.pin_norm, "flip": recipe.flip},
        resume=resume,
        values=values,
    )
    pretrain(module, job, folder)
    files = {name: folder / "tokens" / str(label) / FILE for label, name in enumerate(names)}
    if current().rank == 0:
        groups = module.row_groups()
        if torch.equal(module.rows.detach(), module.first):
            raise ConfigError("inversion.schedule: not one token has moved; expected a larger lr or more updates")
        for name, file in files.items():
            save_token(file.parent, name, groups[name])
        first = module.first.view(len(names), recipe.vectors, -1)
        report = {
            name: {
                "images": int((images.labels == label).sum()),
                "norm": groups[name].norm(dim=1).tolist(),
                "cosine to the start": F.cosine_similarity(groups[name], first[label], dim=1).tolist(),
            }
            for label, name in enumerate(names)
        }
        write_json(folder / "tokens.json", report)
    current().exchange("tokens")
    return files


def chosen_rows(labels: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Positions of at most `most` rows of every class, drawn evenly."""
    rng = np.random.default_rng(purpose_seed(seed, "inversion images"))
    picked = [rng.permutation(np.flatnonzero(labels == label))[:most] for label in np.unique(labels)]
    return np.sort(np.concatenate(picked))


@torch.no_grad()
def posteriors(vae: Any, table: ImageTable, size: int, batch_size: int = 16) -> np.ndarray:
    """Means and deviations of the latents of all images, plain and mirrored: float32 `[N, 2, 2, C, s, s]`."""
    weight = next(vae.parameters())
    found = []
    for start in range(0, len(table), batch_size):
        pictures = [
            Image.fromarray(table.image(row)).convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
            for row in range(start, min(start + batch_size, len(table)))
        ]
        pixels = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures]))
        pixels = (pixels.permute(0, 3, 1, 2).float() / 127.5 - 1).to(weight.device, weight.dtype)
        both = []
        for view in (pixels, pixels.flip(dims=[3])):
            posterior = vae.encode(view).latent_dist
            both.append(torch.stack([posterior.mean, posterior.std], dim=1).float().cpu().numpy())
        found.append(np.stack(both, axis=1))
    return np.concatenate(found)
