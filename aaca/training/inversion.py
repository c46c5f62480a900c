"""`InversionRecipe`: how learned tokens are trained (the `inversion` config group)."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from aaca.models.template import check_template
from aaca.runtime.errors import ConfigError
from aaca.training.pretrain import Constant


@dataclass(frozen=True, kw_only=True)
class InversionRecipe:
    """How tokens are learned.

    `images`: at most so many training images a class. `vectors` a token. `initialiser`: the token starts as the mean of
    its class name's tokens, or at random of the same norm. `pin_norm` keeps every row as long as it was at the start
    (Dataset Interfaces; without it a token may drown the rest of the prompt). `templates` hold `{}` for the token.
    """

    images: Annotated[int, Field(ge=1)]
    vectors: Annotated[int, Field(ge=1, le=32)]
    initialiser: Literal["mean", "random"]
    pin_norm: bool
    flip: bool
    templates: list[str]
    schedule: Constant

    def __post_init__(self) -> None:
        """Raise `ConfigError` on a template without its slot."""
        for index, template in enumerate(self.templates):
            check_template(template, f"inversion.templates[{index}]")
        if not self.templates:
            raise ConfigError("inversion.templates: none; expected at least one")
