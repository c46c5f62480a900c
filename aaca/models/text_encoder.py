"""The text tower of an open_clip model as transformers' `CLIPTextModel`, as diffusers pipelines want it."""

from typing import Any

import torch
from open_clip.model import CLIP
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel


def to_clip_text_model(clip: CLIP) -> CLIPTextModel:
    """The same network: its last hidden states `[B, T, W]` are the tower's states before pooling and projection."""
    width, context = clip.token_embedding.embedding_dim, clip.positional_embedding.shape[0]
    blocks = clip.transformer.resblocks
    config = CLIPTextConfig(
        vocab_size=clip.token_embedding.num_embeddings,
        hidden_size=width,
        intermediate_size=blocks[0].mlp.c_fc.out_features,
        projection_dim=clip.text_projection.shape[1],
        num_hidden_layers=len(blocks),
        num_attention_heads=blocks[0].attn.num_heads,
        max_position_embeddings=context,
        hidden_act="gelu",
        pad_token_id=0,
        bos_token_id=49406,
        eos_token_id=49407,
    )
    model = CLIPTextModel(config)
    own = model.text_model if hasattr(model, "text_model") else model
    with torch.no_grad():
        own.embeddings.token_embedding.weight.copy_(clip.token_embedding.weight)
        own.embeddings.position_embedding.weight.copy_(clip.positional_embedding)
        for mine, theirs in zip(own.encoder.layers, blocks, strict=True):
            _copy_block(mine, theirs, width)
        _copy(own.final_layer_norm, clip.ln_final.weight, clip.ln_final.bias)
    return model.eval()


def _copy_block(mine: Any, theirs: Any, width: int) -> None:
    attention = theirs.attn
    for index, name in enumerate(("q_proj", "k_proj", "v_proj")):
        rows = slice(index * width, (index + 1) * width)
        _copy(getattr(mine.self_attn, name), attention.in_proj_weight[rows], attention.in_proj_bias[rows])
    for target, source in (
        (mine.self_attn.out_proj, attention.out_proj),
        (mine.layer_norm1, theirs.ln_1),
        (mine.layer_norm2, theirs.ln_2),
        (mine.mlp.fc1, theirs.mlp.c_fc),
        (mine.mlp.fc2, theirs.mlp.c_proj),
    ):
        _copy(target, source.weight, source.bias)


def _copy(layer: Any, weight: Tensor, bias: Tensor) -> None:
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)
