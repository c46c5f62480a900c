"""The schema of `trained`: an autoencoder that is there already."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from aaca.runtime.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TrainedConfig:
    """An autoencoder that is there already, in the place of training one; of the same kind of vectors.

    `path`: a folder that `aaca sae` names, learnt from any dataset, or a file or folder in the `format` of others,
    which takes vectors as they are.
    """

    path: str | None = None
    format: Literal["aaca", "dncbm", "saelens", "dictionary_learning"] = "aaca"

    def __post_init__(self) -> None:
        """Raise `ConfigError` where nothing is there."""
        if self.path is not None and not Path(self.path).exists():
            raise ConfigError(f"trained.path: nothing at {self.path}; expected what `aaca sae` calls autoencoders")
