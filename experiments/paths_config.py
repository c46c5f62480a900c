"""The schema of `paths`."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field


@dataclass(frozen=True, kw_only=True)
class PathsConfig:
    """Where everything is written."""

    root: Annotated[str, Field(min_length=1)]
