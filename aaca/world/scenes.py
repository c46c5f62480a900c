"""`SceneSpec`: every choice that makes one image, drawn from a random stream of its own.

The stream's key is (seed, split, slice, class, index), so that an image depends on nothing else: not on the order, the
number or the process of the others. Every image uses up the same uniform numbers in the same order; a bug's
strength therefore changes the ground or co-object of the images it touches, and no other choice.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from aaca.runtime.errors import DataError, nearest
from aaca.world.bugs import DEFAULT_BUGS, Bug, Slice, draw_concept, draw_scene, pick
from aaca.world.pack import Kind, Pack, Piece, load_pack

Relation = Literal["left of", "right of"]
Sources = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Placed:
    """A cut-out in an image. Lengths are fractions of the image's width; the angle is in degrees."""

    piece: Piece
    centre: float  # horizontal
    foot: float  # height of the lowest point, from the image's top
    size: float  # longer side
    flip: bool
    angle: float
    brightness: float


@dataclass(frozen=True)
class Ground:
    """The textured plane below the horizon."""

    piece: Piece
    tiles: float  # copies of the texture across the image's lower edge
    offset: tuple[float, float]  # of the texture, in tiles
    flip: bool
    lift: float  # how far above the horizon the plane would vanish, as a fraction of the image; small = steep


@dataclass(frozen=True)
class Backdrop:
    """The part of a panorama that stands above the horizon."""

    piece: Piece
    start: float  # left edge, as a fraction of the panorama's turn
    span: float  # fraction of the turn that fills the image's width
    flip: bool


@dataclass(frozen=True)
class SceneSpec:
    """All choices of one image, at any size."""

    object: Placed
    concept: Placed | None  # the co-object
    ground: Ground
    backdrop: Backdrop
    horizon: float  # fraction of the height
    brightness: float

    @property
    def cls(self) -> str:
        """The class."""
        return self.object.piece.label

    @property
    def scene(self) -> str:
        """The ground's label."""
        return self.ground.piece.label

    @property
    def relation(self) -> Relation | None:
        """Where the class object is, seen from the co-object; None without one."""
        if self.concept is None:
            return None
        return "left of" if self.object.centre < self.concept.centre else "right of"

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources of all pieces in the image."""
        placed = (self.object, self.ground, self.backdrop, self.concept)
        return tuple(part.piece.source for part in placed if part is not None)


def stream(seed: int, *key: str | int) -> np.random.Generator:
    """The random stream of this key; equal on every machine."""
    words = np.frombuffer(hashlib.sha256("/".join(map(str, key)).encode()).digest(), dtype="<u4")
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *words.tolist()])))


def draw_spec(
    seed: int,
    split: str,
    slice_: Slice,
    cls: str,
    index: int,
    bugs: Sequence[Bug] = DEFAULT_BUGS,
    stray: float = 0.03,
    sources: Sources = "train",
) -> SceneSpec:
    """The spec of image `index` of a class in a slice of a split; `sources` says whose cut-outs and photos it uses."""
    rng, pack = stream(seed, split, slice_, cls, index), load_pack()
    u = rng.random(5).tolist()
    scene = draw_scene((u[0], u[1]), slice_, cls, bugs, pack.labels("scene"))
    concept = draw_concept((u[2], u[3], u[4]), slice_, cls, bugs, pack.labels("concept"), stray)
    return _compose(rng, cls, scene, concept, None, sources)


def request_spec(
    seed: int, cls: str, scene: str, concept: str | None = None, relation: Relation | None = None, index: int = 0
) -> SceneSpec:
    """The spec of an image with exactly this content, everything else drawn; uses train sources only.

    `relation` places the class object left or right of the co-object (None: drawn). Images of one content differ by
    `index`. Raises `DataError` for a label that the pack lacks and for a relation to nothing.
    """
    wanted: list[tuple[Kind, str | None]] = [("object", cls), ("scene", scene), ("concept", concept)]
    for kind, label in wanted:
        choices = load_pack().labels(kind)
        if label is not None and label not in choices:
            raise DataError(f"the embedded image pack has no {kind} {label!r}; {nearest(label, choices)}")
    if relation is not None and concept is None:
        raise DataError(f"relation {relation!r}: expected a co-object to be {relation}; valid: {', '.join(choices)}")
    rng = stream(seed, "request", cls, scene, concept or "", relation or "", index)
    return _compose(rng, cls, scene, concept, relation, "train")


def _draw_piece(u: list[float], pack: Pack, kind: Kind, label: str, sources: Sources) -> Piece:
    groups = pack.groups(kind, label, sources)
    if not groups and sources == "val":  # cars have no val source (NOT_DRAWN); whoever may use val may use train
        groups = pack.groups(kind, label, "train")
    return pick(u[1], pick(u[0], groups))


def _compose(
    rng: np.random.Generator, cls: str, scene: str, concept: str | None, relation: Relation | None, sources: Sources
) -> SceneSpec:
    pack = load_pack()
    u = rng.random((4, 2)).tolist()
    left = rng.random() < 0.5 if relation is None else relation == "left of"
    placed = _place(rng, _draw_piece(u[0], pack, "object", cls, sources), concept is not None, left)
    beside = _draw_piece(u[1], pack, "concept", concept, sources) if concept else None
    second = _place_beside(rng, beside or placed.piece, left, placed.foot)
    return SceneSpec(
        object=placed,
        concept=second if beside else None,
        ground=_lay(rng, _draw_piece(u[2], pack, "scene", scene, sources)),
        backdrop=_stand(rng, _draw_piece(u[3], pack, "backdrop", "backdrop", sources)),
        horizon=rng.uniform(0.16, 0.40),
        brightness=rng.uniform(0.88, 1.1),
    )


def _place(rng: np.random.Generator, piece: Piece, has_concept: bool, left: bool) -> Placed:
    size, foot, shift, angle, brightness, flip = rng.random(6).tolist()
    aside = (0.10 + 0.06 * shift) * (-1 if left else 1) if has_concept else 0.2 * shift - 0.1
    return Placed(
        piece,
        centre=0.5 + aside,
        foot=0.80 + 0.13 * foot,
        size=0.50 + 0.16 * size,
        flip=flip < 0.5,
        angle=12 * angle - 6,
        brightness=0.88 + 0.24 * brightness,
    )


def _place_beside(rng: np.random.Generator, piece: Piece, left: bool, foot: float) -> Placed:
    size, nearer, shift, angle, brightness, flip = rng.random(6).tolist()
    return Placed(
        piece,
        centre=0.5 + (0.30 + 0.06 * shift) * (1 if left else -1),
        foot=min(max(foot - 0.08 + 0.13 * nearer, 0.74), 0.96),
        size=0.30 + 0.10 * size,
        flip=flip < 0.5,
        angle=12 * angle - 6,
        brightness=0.88 + 0.24 * brightness,
    )


def _lay(rng: np.random.Generator, piece: Piece) -> Ground:
    tiles, x, y, flip, lift = rng.random(5).tolist()
    return Ground(piece, tiles=0.6 + 0.4 * tiles, offset=(x, y), flip=flip < 0.5, lift=0.25 + 0.2 * lift)


def _stand(rng: np.random.Generator, piece: Piece) -> Backdrop:
    start, span, flip = rng.random(3).tolist()
    return Backdrop(piece, start=start, span=0.25 + 0.12 * span, flip=flip < 0.5)
