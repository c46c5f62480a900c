"""What the neuron page shows: plain values, filled by a job from inspection, visualisation and editing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from aaca.runtime.errors import DataError

List = Literal["insufficient", "excessive"]


@dataclass(frozen=True)
class Tile:
    """One picture: uint8 `[S, S, 3]`, a caption, and where the neuron fires, `[h, w]` of any scale, None: not known.

    Raises `DataError` for other arrays.
    """

    image: np.ndarray
    caption: str
    mask: np.ndarray | None = None

    def __post_init__(self) -> None:
        shape = self.image.shape
        if self.image.dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or shape[0] != shape[1] or not shape[0]:
            raise DataError(f"tile: image of shape {shape}, {self.image.dtype}; expected uint8 [S, S, 3]")
        if self.mask is not None and (self.mask.ndim != 2 or not self.mask.size or not np.isfinite(self.mask).all()):
            raise DataError(f"tile: mask of shape {self.mask.shape}; expected finite numbers [h, w]")


@dataclass(frozen=True)
class NeuronCard:
    """One neuron as one class sees it.

    `prec`: share of the mistakes that vote for it, per cent. `importance`: p_c with it over p_c without it. `name` and
    `second`: what it seems to respond to, best and next guess ("": not known); `name_score`: how well the name fits.
    `weights`: class → weight in the head, of the classes that matter; `weights_after`: the same classes after the
    edit. `chosen`: was it edited. `means`: mean activation in mistakes and in right images of the class. `quantile`:
    the activation that 99 % of real images stay below. `dead`: no made-up image could excite it.
    """

    neuron: int
    list: List
    prec: float
    importance: float
    name: str
    name_score: float | None
    second: str
    weights: dict[str, float]
    weights_after: dict[str, float] | None
    chosen: bool
    means: tuple[float, float]
    top: Sequence[Tile]
    mistakes: Sequence[Tile]
    illusions: Sequence[Tile]
    quantile: float | None
    dead: bool

    def __post_init__(self) -> None:
        if self.list not in get_args(List):
            raise DataError(f"neuron {self.neuron}: list {self.list!r}; expected insufficient or excessive")
        if self.weights_after is not None and set(self.weights_after) != set(self.weights):
            raise DataError(f"neuron {self.neuron}: weights before and after the edit are of different classes")


@dataclass(frozen=True)
class ClassView:
    """A class and its neurons.

    `images`, `mistakes`: counts of inspected images of the class. `used`: mistakes with a vote; `converged`: those of
    them that a change of features made right (None: nothing was changed). `accuracy`, `accuracy_after`: of the class,
    in [0, 1]. `rivals`: class it is taken for → how often.
    """

    name: str
    images: int
    mistakes: int
    used: int
    converged: int | None
    accuracy: float
    accuracy_after: float | None
    rivals: Sequence[tuple[str, int]]
    cards: Sequence[NeuronCard]

    def __post_init__(self) -> None:
        check_share(f"class {self.name!r}, accuracy", self.accuracy)
        check_share(f"class {self.name!r}, accuracy after", self.accuracy_after)


@dataclass(frozen=True)
class Change:
    """What an edit did on a split.

    `rows`: metric, before, after, in [0, 1] (NaN: not defined). `repaired`, `broken`: images that it made right, made
    wrong. `images`: picture, true class, predicted before, predicted after.
    """

    method: str
    split: str
    rows: Sequence[tuple[str, float, float | None]]
    repaired: int
    broken: int
    images: Sequence[tuple[Tile, str, str, str]]

    def __post_init__(self) -> None:
        for name, before, after in self.rows:
            check_share(f"change, {name}", before)
            check_share(f"change, {name}, after", after)


@dataclass(frozen=True)
class NeuronView:
    """The whole page. `scorer`: how neurons were blamed; `neurons`: D; `notes`: warnings for the reader."""

    title: str
    scorer: str
    neurons: int
    classes: Sequence[ClassView]
    change: Change | None
    notes: Sequence[str]


def check_share(what: str, value: float | None) -> None:
    """Raises `DataError` where the value is neither None, NaN nor in [0, 1] (up to rounding)."""
    if value is not None and (value < -1e-6 or value > 1 + 1e-6):
        raise DataError(f"{what}: {value:g}; expected a share in 0…1, not per cent")
