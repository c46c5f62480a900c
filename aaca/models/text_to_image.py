"""`Diffusion`, the role of the `diffusion` config group: which text-to-image pipeline, and how it is run."""

import logging
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from safetensors import SafetensorError

from aaca.models.weights import fingerprint_of, load_problem
from aaca.runtime.errors import AacaError, ConfigError, nearest
from aaca.world.shipped import shipped

log = logging.getLogger(__name__)
Dtype = Literal["float32", "float16", "bfloat16"]


class Diffusion:
    """A pipeline of diffusers by folder or hub id, and its settings.

    Args:
        model: `embedded:diffusion`, a folder, or a hub's id.
        revision: of a hub's model.
        variant: which of the weight files, e.g. fp16.
        dtype: of all its networks.
        scheduler: a scheduler class of diffusers; None keeps the pipeline's own.
        steps: denoising steps an image.
        guidance: weight of classifier-free guidance; 1 is none.
        size: pixels a side; None is the pipeline's own.
        safety_checker: whether the pipeline's safety checker looks at every image; what it blanks is drawn again. It
            is never switched off silently: False is logged where the model has one, True is refused where it has none.
        batch_size: images drawn together on a device.

    """

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        variant: str | None = None,
        dtype: Dtype = "float32",
        scheduler: str | None = None,
        steps: Annotated[int, Field(ge=1)] = 50,
        guidance: Annotated[float, Field(ge=0)] = 7.5,
        size: Annotated[int, Field(ge=8)] | None = None,
        safety_checker: bool = True,
        batch_size: Annotated[int, Field(ge=1)] = 4,
    ) -> None:
        self.model = shipped(model, "diffusion.model")
        self.revision, self.variant, self.dtype = revision, variant, dtype
        self.scheduler, self.steps, self.guidance, self.size = scheduler, steps, guidance, size
        self.safety_checker, self.batch_size = safety_checker, batch_size
        folder = Path(self.model)
        if folder.is_dir() and not (folder / "model_index.json").is_file():
            raise ConfigError(
                f"diffusion.model: {self.model} is no pipeline of diffusers (model_index.json is missing)"
            )
        if not folder.exists() and (self.model.startswith(("/", ".", "~")) or self.model.count("/") != 1):
            raise ConfigError(f"diffusion.model: no folder {self.model}; expected one, or a hub's id owner/name")
        if size is not None and size % 8:
            raise ConfigError(f"diffusion.size: {size}; expected a multiple of 8, the side of a latent in pixels")
        if scheduler is not None and scheduler not in _schedulers():
            raise ConfigError(f"diffusion.scheduler: no {scheduler!r}; {nearest(scheduler, _schedulers())}")

    def fingerprint(self) -> dict[str, Any]:
        """Every setting that influences an image; a folder by the content of its files."""
        settings = {name: value for name, value in vars(self).items() if name not in ("model", "_weights")}
        return {**settings, "model": self._weights}

    @cached_property
    def _weights(self) -> dict[str, Any]:
        return fingerprint_of(self.model, self.revision)

    def check(self) -> None:
        """Raise one line if there is no such pipeline, before any other work; fetches its index at most."""
        from diffusers import DiffusionPipeline  # seconds: only where something is generated

        try:
            DiffusionPipeline.load_config(self.model, revision=self.revision)
        except (OSError, ValueError) as error:
            raise load_problem("diffusion.model", self.model, error) from error

    def load(self, device: torch.device | str = "cpu") -> Any:
        """The pipeline on `device`. Raises `AacaError` in one line where files are missing or the network is."""
        import diffusers
        import transformers

        for library in (diffusers, transformers):  # a bar for what takes a second
            library.utils.logging.disable_progress_bar()
        more: dict[str, Any] = {} if self.safety_checker else {"safety_checker": None, "requires_safety_checker": False}
        try:
            pipeline = diffusers.AutoPipelineForText2Image.from_pretrained(
                self.model,
                revision=self.revision,
                variant=self.variant,
                dtype=getattr(torch, self.dtype),
                use_safetensors=True,
                **more,
            )
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
            raise load_problem("diffusion.model", self.model, error) from error
        words, rows = len(pipeline.tokenizer), pipeline.text_encoder.config.vocab_size
        if words < rows:
            raise AacaError(
                f"diffusion.model: {self.model} could not be loaded (its tokenizer knows {words} tokens, its text "
                f"encoder {rows}); expected a complete folder of its model's files"
            )
        self._settle_checker(pipeline)
        if self.scheduler is not None:
            pipeline.scheduler = getattr(diffusers, self.scheduler).from_config(pipeline.scheduler.config)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline.to(device)

    def _settle_checker(self, pipeline: Any) -> None:
        has_one = getattr(pipeline, "safety_checker", None) is not None
        if self.safety_checker and not has_one:
            raise ConfigError(
                f"diffusion.safety_checker: true, but {self.model} has none; diffusion.safety_checker=false says so"
            )
        if not self.safety_checker:
            log.info("diffusion: images are not looked at by a safety checker (diffusion.safety_checker=false)")


def _schedulers() -> list[str]:
    import diffusers

    return [name for name in dir(diffusers) if name.endswith("Scheduler") and not name.startswith(("Flax", "_"))]
