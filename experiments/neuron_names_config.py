"""The schema of `neuron_names`: how neurons get names."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from aaca.discover.concepts.base import ConceptSource
from aaca.discover.neurons.taken_out import Fill
from aaca.models.zero_shot import ClipModel
from aaca.runtime.errors import ConfigError

Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True)
class NeuronNamesConfig:
    """How neurons get names.

    `by`: masks (what happens to a neuron when a concept is taken out of audit images), clip (which words fit the images
    it answers to), people (`answers` to the tasks of `aaca inspect`). `least`: images on either side of a comparison.
    """

    by: Literal["none", "masks", "clip", "people"] = "none"
    fill: Fill = "other"
    least: Count = 5
    least_score: Annotated[float, Field(ge=0)] = 0.3
    most: Count = 100
    vocabulary: str | None = None
    answers: str | None = None

    def check(self, concepts: ConceptSource | None, clip: ClipModel | None, truth: Collection[str]) -> None:
        """Raise `ConfigError` for what is missing, or given for nothing. `truth`: what the dataset knows."""
        if self.by == "masks" and concepts is None:
            raise ConfigError("concepts: missing, and neuron_names.by=masks needs it; choose one: concepts=gt")
        if self.by == "masks" and concepts is not None and concepts.needs_clip and clip is None:
            raise ConfigError("clip: missing, and concepts needs it; choose one: clip=tiny")
        if self.by == "masks" and concepts is not None:
            missing = sorted(set(concepts.needs_truth) - set(truth))
            if missing:
                raise ConfigError(
                    f"concepts: {type(concepts).__name__} needs what this dataset does not have: {', '.join(missing)}; "
                    "expected concepts=tags, segment or human, or neuron_names.by=clip"
                )
        if self.by == "clip" and clip is None:
            raise ConfigError("clip: missing, and neuron_names.by=clip needs it; choose one: clip=tiny")
        if (self.by == "people") != (self.answers is not None):
            raise ConfigError("neuron_names.answers: by=people and a file of answers go together; expected both")
        if self.answers is not None and not Path(self.answers).is_file():
            raise ConfigError(f"neuron_names.answers: no file {self.answers}; expected what `aaca annotate` wrote")
