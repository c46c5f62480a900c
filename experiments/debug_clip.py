"""The image-text model as the stages of a run use it: vectors of tables and crops in the store, vectors of texts."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aaca.data.benchmark import Benchmark
from aaca.data.features import FeatureStore, Scored
from aaca.data.table import ImageTable
from aaca.debugset.prompts.base import class_phrase
from aaca.models.zero_shot import ClipModel, ImageText, ZeroShot
from aaca.runtime.errors import ConfigError
from aaca.runtime.stages import StageCache
from aaca.training.extract import extract_features

from .debug_config import DebugConfig

CLIP_BATCH = 128


@dataclass
class Looking:
    """Stages of vectors in the space of the run's image-text model."""

    options: DebugConfig
    cache: StageCache
    benchmark_key: str
    benchmark: Benchmark

    @property
    def clip(self) -> ClipModel:
        """The model. Raises `ConfigError` where the config has none."""
        if self.options.clip is None:
            raise ConfigError("clip: missing, and concepts or annotator need it; choose one: clip=tiny")
        return self.options.clip

    def fingerprint(self) -> dict[str, Any]:
        """What its vectors depend on besides images: the model, and on what they are computed."""
        trainer = self.options.trainer
        return {**self.clip.fingerprint(), "precision": trainer.precision, "accelerator": trainer.device_kind}

    def vectors(self, key: str, table: ImageTable, what: str) -> Scored:
        """Unit vectors of `table` (the rows that `what` names of what `key` stands for)."""
        options, classes = self.options, self.benchmark.classes

        def make(folder: Path) -> None:
            model = ZeroShot(self.clip.load(), [class_phrase(name) for name in classes])
            every = options.resume.every
            extract_features(model, table, folder, options.trainer, CLIP_BATCH, label=f"clip {what}", every=every)

        inputs = {"clip": self.fingerprint(), "images": key, "rows": what, "classes": list(classes)}
        stage = self.cache.stage("vectors", inputs, make, what, together=True)
        return FeatureStore(stage.folder).scored()

    def at(self, split: str, images: bool = True) -> "Look":
        """How a concept source looks at a split: at whole images (their vectors are made now), or only at crops."""
        if not images:
            return Look(self)
        of_audit = self.vectors(self.benchmark_key, self.benchmark.split("audit"), "audit")
        other = split != "audit"
        return Look(
            self, self.vectors(self.benchmark_key, self.benchmark.split(split), split) if other else of_audit, of_audit
        )


@dataclass
class Look:
    """An image-text model for a concept source, vectors of whole images made before it is asked."""

    looking: Looking
    of_split: Scored | None = None
    of_audit: Scored | None = None

    @cached_property
    def _model(self) -> ImageText:
        return self.looking.clip.load()

    def reference(self) -> np.ndarray:
        """Vectors `[R, D]` of the audit images."""
        assert self.of_audit is not None
        return self.of_audit.embeddings

    def images(self, table: ImageTable) -> np.ndarray:
        """Vectors `[N, D]` of the split's images."""
        assert self.of_split is not None
        return self.of_split.embeddings

    def crops(self, crops: np.ndarray) -> np.ndarray:
        """Vectors `[M, D]` of uint8 images `[M, S, S, 3]`."""
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (self._model.mean, self._model.std))
        found = []
        with torch.no_grad():
            for part in np.array_split(crops, max(1, len(crops) // CLIP_BATCH)):
                pixels = torch.from_numpy(part).permute(0, 3, 1, 2).float() / 255
                found.append(self._model.image_vectors((pixels - mean) / std).numpy())
        return np.concatenate(found)

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors `[V, D]` of texts."""
        return self._model.sentence_vectors(texts)
