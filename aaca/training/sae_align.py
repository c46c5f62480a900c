"""`AlignToWords`: keeps what the alignment loss pulls codes towards up to date (Byrman et al., TMLR 2025)."""

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from aaca.models.sae.relu import ReluAutoencoder
from aaca.training.sparse_autoencoder import SparseAutoencoderModule

CHUNK = 1024


class AlignToWords(Callback):
    """At the start of every epoch: each latent's best cosine with a word; `words` `[V, D]` unit rows."""

    def __init__(self, words: Tensor) -> None:
        self.words = words

    @torch.no_grad()
    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look it up."""
        assert isinstance(pl_module, SparseAutoencoderModule)
        for sae in pl_module.each():
            if isinstance(sae, ReluAutoencoder):
                sae.align_to(best_cosines(sae.dictionary, self.words.to(sae.dictionary)))

    def state_dict(self) -> dict[str, Any]:
        """Nothing: what it found is in the autoencoder's state."""
        return {}


def best_cosines(atoms: Tensor, words: Tensor) -> Tensor:
    """The largest cosine of each atom `[H, D]` with a word `[V, D]` of length 1: `[H]`."""
    parts = [(torch.nn.functional.normalize(part, dim=1) @ words.T).amax(dim=1) for part in torch.split(atoms, CHUNK)]
    return torch.cat(parts)
