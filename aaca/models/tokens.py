"""Learned tokens: their names, their rows in a text encoder's table, and the files that diffusers loads."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from aaca.runtime.errors import ConfigError

FILE = "learned_embeds.safetensors"


def token_names(classes: Sequence[str]) -> list[str]:
    """One name a class: "<aaca-bird>". Brackets keep a name from being the beginning of another.

    Raises `ConfigError` when two classes would share one.
    """
    names = ["<aaca-" + re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") + ">" for name in classes]
    for index, name in enumerate(names):
        if names.index(name) != index:
            raise ConfigError(
                f"dataset: classes {classes[names.index(name)]!r} and {classes[index]!r} share token {name}"
            )
    return names


def expanded(name: str, vectors: int) -> list[str]:
    """The tokens behind a name, as diffusers' prompt expansion numbers them: tok, tok_1, …"""
    return [name, *(f"{name}_{index}" for index in range(1, vectors))]


class SplicedEmbedding(nn.Module):
    """A frozen token table, followed by new rows that may be trained: those of `ids ≥ len(table)`."""

    table: Tensor

    def __init__(self, table: Tensor, rows: Tensor) -> None:
        super().__init__()
        self.register_buffer("table", table.detach(), persistent=False)
        self.rows = nn.Parameter(rows.detach().clone())

    def forward(self, ids: Tensor) -> Tensor:
        """Embeddings `[*ids.shape, D]` in the table's precision."""
        size = len(self.table)
        old = F.embedding(ids.clamp(max=size - 1), self.table)
        new = F.embedding((ids - size).clamp(min=0), self.rows).to(old.dtype)
        return torch.where((ids >= size).unsqueeze(-1), new, old)


def mean_of_tokens(text: str, tokenizer: Any, table: Tensor) -> Tensor:
    """The mean row `[D]` of a text's tokens: a start for names of several words (Dataset Interfaces)."""
    ids = tokenizer(text, add_special_tokens=False).input_ids
    return table[torch.tensor(ids, device=table.device)].float().mean(dim=0)


def save_token(folder: Path, name: str, rows: Tensor) -> Path:
    """Write `learned_embeds.safetensors`: one key, the token, with its rows `[V, D]`, as diffusers' own script does."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: rows.detach().float().cpu().contiguous()}, folder / FILE, metadata={"format": "pt"})
    return folder / FILE
