"""Foreign checkpoints into timm models: never unpickled code, positions interpolated, every key accounted for."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from aaca.runtime.errors import AacaError, ConfigError

log = logging.getLogger(__name__)
HEAD_INIT_STD = 2e-5  # MAE's fine-tuning start of the classification head (He et al. 2022, released recipe)
WRAPPERS = ("model", "state_dict")
DECODER_PARTS = ("decoder_", "mask_token")  # the half of an MAE checkpoint that a classifier does not have


@dataclass(frozen=True)
class LoadReport:
    """What a checkpoint gave and what it did not: key names."""

    loaded: int
    missing: list[str]
    unexpected: list[str]
    interpolated: list[str]


def read_state(path: Path, key: str = "model.checkpoint") -> dict[str, Tensor]:
    """Tensors of a checkpoint file by name: safetensors, or a pickle read with `weights_only=True`; `key` asked."""
    if not path.is_file():
        raise ConfigError(f"{key}: no file {path}")
    try:
        state: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # broken bytes make the safe unpickler fail in any way it likes
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise AacaError(f"{key}: {path} is not a checkpoint of plain tensors ({reason})") from error
    if not isinstance(state, dict):
        raise AacaError(f"{key}: {path} is not a checkpoint of plain tensors (it holds a {type(state).__name__})")
    for wrapper in WRAPPERS:
        if isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    tensors = {name.removeprefix("module."): value for name, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        raise AacaError(f"{key}: {path} holds no tensors; its keys are {sorted(state)[:5]}")
    return tensors


def interpolate_positions(positions: Tensor, grid: tuple[int, int], extra: int) -> Tensor:
    """Position embeddings `[1, extra + N, D]` resized to `extra + grid[0]·grid[1]`: bicubic, extra tokens kept."""
    kept, patches = positions[:, :extra], positions[:, extra:]
    side = round(patches.shape[1] ** 0.5)
    if side * side != patches.shape[1]:
        raise AacaError(f"model.checkpoint: {patches.shape[1]} position embeddings do not form a square grid")
    square = patches.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(square.float(), size=grid, mode="bicubic", align_corners=False).to(positions.dtype)
    return torch.cat([kept, resized.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


def load_checkpoint(model: nn.Module, path: Path) -> LoadReport:
    """Load `path` into a timm model as MAE fine-tuning does, and say loudly what was not.

    A head of another shape is dropped and drawn anew (trunc-normal, std 2e-5, bias 0); the pooling norm `fc_norm` of
    average-pooled ViTs may be missing. Raises `AacaError` if anything else of the model is missing.
    """
    state = read_state(path)
    head = {f"{name}.{part}" for name in _classifier_names(model) for part in ("weight", "bias")}
    own = model.state_dict()
    state = {name: value for name, value in state.items() if name not in head or _fits(own, name, value)}
    interpolated = _resize_positions(model, state, own)
    wrong = [name for name, value in state.items() if name in own and own[name].shape != value.shape]
    if wrong:
        shapes = f"{tuple(state[wrong[0]].shape)}, expected {tuple(own[wrong[0]].shape)}"
        raise AacaError(f"model.checkpoint: {path}: {wrong[0]} has shape {shapes}; is it a checkpoint of model.name?")
    result = model.load_state_dict(state, strict=False)
    report = LoadReport(len(own) - len(result.missing_keys), result.missing_keys, result.unexpected_keys, interpolated)
    unforgivable = [name for name in report.missing if name not in head and not name.startswith("fc_norm.")]
    if unforgivable:
        raise AacaError(
            f"model.checkpoint: {path} lacks {len(unforgivable)} of the model's tensors, first {unforgivable[0]!r}; "
            "is it a checkpoint of model.name?"
        )
    foreign = [name for name in report.unexpected if not name.startswith((*DECODER_PARTS, "decoder"))]
    log.warning("checkpoint %s: %d tensors loaded, %s resized", path, report.loaded, interpolated or "none")
    log.warning("  missing in it (start fresh): %s", ", ".join(report.missing) or "nothing")
    log.warning("  unexpected in it (ignored): %s", ", ".join(foreign) or "nothing of the encoder")
    if head & set(report.missing):
        init_head(model)
    return report


def init_head(model: nn.Module) -> None:
    """Head weight ~ truncated normal with std 2e-5, bias 0: MAE's start for fine-tuning."""
    for name in _classifier_names(model):
        layer = model.get_submodule(name)
        nn.init.trunc_normal_(layer.weight, std=HEAD_INIT_STD)  # type: ignore[arg-type]
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


def _classifier_names(model: nn.Module) -> tuple[str, ...]:
    name = model.pretrained_cfg.get("classifier", "head")  # type: ignore[union-attr, operator]
    return (name,) if isinstance(name, str) else tuple(name)


def _fits(own: dict[str, Tensor], name: str, value: Tensor) -> bool:
    return name in own and own[name].shape == value.shape


def _resize_positions(model: nn.Module, state: dict[str, Tensor], own: dict[str, Tensor]) -> list[str]:
    if "pos_embed" not in state or "pos_embed" not in own or state["pos_embed"].shape == own["pos_embed"].shape:
        return []
    net: Any = model
    grid = net.patch_embed.grid_size
    extra = own["pos_embed"].shape[1] - grid[0] * grid[1]
    state["pos_embed"] = interpolate_positions(state["pos_embed"], grid, extra)
    return ["pos_embed"]
