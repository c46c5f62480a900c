"""The embedded image-text model: an open_clip architecture from a config in this repository."""

from typing import Any

from open_clip.model import CLIP
from torch import nn

from aaca.models.efficientnet_lite import ARCHITECTURE, imagenet_model

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"


def clip_config(image_size: int, width: int, layers: int, embed_dim: int, context: int) -> dict[str, Any]:
    """open_clip's config of the model: an EfficientNet-Lite0 image tower and a small causal text transformer."""
    half = [0.5, 0.5, 0.5]
    model = {
        "embed_dim": embed_dim,
        "vision_cfg": {
            "timm_model_name": ARCHITECTURE,
            "timm_model_pretrained": False,
            "timm_pool": "avg",
            "timm_proj": "linear",
            "image_size": image_size,
        },
        "text_cfg": {"context_length": context, "vocab_size": 49408, "width": width, "heads": 4, "layers": layers},
    }
    preprocess = {"mean": half, "std": half, "interpolation": "bicubic", "resize_mode": "squash"}
    return {"model_cfg": model, "preprocess_cfg": preprocess}


def build_clip(config: dict[str, Any], imagenet: bool) -> CLIP:
    """The model with random weights; with `imagenet`, its image tower starts from the package's ImageNet weights."""
    wanted = config["model_cfg"]
    model = CLIP(wanted["embed_dim"], wanted["vision_cfg"], wanted["text_cfg"])
    if imagenet:
        source = imagenet_model().state_dict()
        trunk: nn.Module = model.visual.trunk
        trunk.load_state_dict({name: value for name, value in source.items() if not name.startswith("classifier")})
    return model
