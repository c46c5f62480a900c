"""Any timm model by name, from scratch, from timm's own weights, or from a checkpoint file (MAE's included)."""

from pathlib import Path
from typing import Any

import timm

from aaca.models.checkpoint import load_checkpoint
from aaca.models.classifier import Classifier, ClassifierSource, check_image_size
from aaca.runtime.errors import AacaError, ConfigError, nearest
from aaca.runtime.files import file_sha256
from aaca.world.shipped import shipped

IMAGENET_MEAN = [0.485, 0.456, 0.406]
IMAGENET_STD = [0.229, 0.224, 0.225]


class TimmModel(ClassifierSource):
    """`timm.create_model(name, **kwargs)` as a `Classifier`.

    `checkpoint` is a file (safetensors or .pth, or `embedded:` and its name); `pretrained` asks timm's hub instead;
    neither means from scratch. `global_pool` is timm's (`token` = the class token, `avg` = mean of the patch tokens);
    None keeps the model's own.
    """

    def __init__(
        self,
        name: str,
        image_size: int = 224,
        checkpoint: str | None = None,
        pretrained: bool = False,
        global_pool: str | None = None,
        kwargs: dict[str, Any] | None = None,
        mean: list[float] | None = None,
        std: list[float] | None = None,
    ) -> None:
        check_image_size(image_size)
        if not timm.is_model(name):
            raise ConfigError(f"model.name: timm has no model {name!r}; {nearest(name, timm.list_models())}")
        checkpoint = None if checkpoint is None else shipped(checkpoint, "model.checkpoint")
        if checkpoint is not None and not Path(checkpoint).is_file():
            raise ConfigError(f"model.checkpoint: no file {checkpoint}")
        if checkpoint is not None and pretrained:
            raise ConfigError(
                "model.pretrained: both a checkpoint file and timm's own weights are asked for; choose one"
            )
        self.name = name
        self.image_size = image_size
        self.checkpoint = checkpoint
        self.pretrained = pretrained
        self.global_pool = global_pool
        self.kwargs = kwargs or {}
        self.mean = mean or IMAGENET_MEAN
        self.std = std or IMAGENET_STD

    def fingerprint(self) -> dict[str, Any]:
        """All arguments; the checkpoint file by its SHA-256."""
        weights = file_sha256(Path(self.checkpoint)) if self.checkpoint else None
        return {**vars(self), "checkpoint": weights}

    def build(self, n_classes: int, drop_path: float = 0.0, start_weights: bool = True) -> Classifier:
        """The model with its start weights. Raises `AacaError` when timm refuses an argument or has no weights."""
        arguments: dict[str, Any] = {**self.kwargs, "num_classes": n_classes}
        if drop_path:
            arguments["drop_path_rate"] = drop_path
        if self.global_pool is not None:
            arguments["global_pool"] = self.global_pool
        try:
            backbone = timm.create_model(
                self.name, pretrained=self.pretrained and start_weights, **self._sized(arguments)
            )
        except (TypeError, ValueError, AssertionError, RuntimeError, OSError) as error:
            reason = " ".join(str(error).split())[:300]
            raise AacaError(f"model: timm cannot build {self.name!r} with {arguments}: {reason}") from error
        if self.checkpoint and start_weights:
            load_checkpoint(backbone, Path(self.checkpoint))
        return Classifier(backbone, self.image_size, self.mean, self.std).check_head()

    def _sized(self, arguments: dict[str, Any]) -> dict[str, Any]:
        # Models with positions are built for one size; convolutional ones take any and refuse the argument.
        entry = timm.model_entrypoint(self.name)
        positional = any(part in entry.__module__ for part in ("vision_transformer", "deit", "eva", "beit", "mixer"))
        return {"img_size": self.image_size, **arguments} if positional else arguments
