"""Figures that are asked for by `score.metrics`: METEOR and SPICE (Java), CLIPScore (a CLIP model of yours)."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from aaca.data.images import read_image
from aaca.evaluate.captions.external import clip_score, java_score, missing, missing_clip
from aaca.runtime.errors import ConfigError
from aaca.runtime.ranks import current

from .caption_config import CaptionConfig
from .caption_edits import picture_path
from .caption_stages import CaptionStages

CLIP = "clip_score"


def check_metrics(options: CaptionConfig) -> None:
    """Raise `ConfigError` where a metric that was asked for cannot be had on the machine of rank 0, which does it."""
    ranks = current()
    wrong = ranks.share(_first_wrong(options) if ranks.rank == 0 else None)
    if wrong is not None:
        raise ConfigError(wrong)


def extra_scores(
    stages: CaptionStages, said: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    """The figures of `score.metrics` of captions by name, ×100; rank 0 computes them for all.

    Raises `AacaError` where Java fails or the CLIP model does not load.
    """
    options, ranks = stages.options, current()
    if not options.score.metrics:
        return {}
    image = partial(_image, stages.graphs()[0].folder)
    return dict(ranks.share(_scores(options, said, references, image) if ranks.rank == 0 else None))


def _first_wrong(options: CaptionConfig) -> str | None:
    for metric in options.score.metrics:
        if metric != CLIP:
            lack = missing(metric)
        elif not options.graphs.drawn:
            lack = "clip_score: these graphs come without images; expected graphs=stampscenes or graphs=shapes"
        else:
            lack = missing_clip(_weights(options))
        if lack is not None:
            return f"score.metrics: {lack}"
    return None


def _scores(
    options: CaptionConfig,
    said: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    image: Callable[[str], np.ndarray],
) -> dict[str, float]:
    return {
        metric: clip_score(said, image, _weights(options)) if metric == CLIP else java_score(metric, said, references)
        for metric in options.score.metrics
    }


def _weights(options: CaptionConfig) -> Path:
    assert options.score.clip_weights is not None  # the config asks for them with the metric
    return Path(options.score.clip_weights)


def _image(folder: Path, name: str) -> np.ndarray:
    return read_image(picture_path(folder, name.rpartition("_")[0]))
