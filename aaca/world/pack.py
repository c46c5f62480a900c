"""The embedded image pack: cut-outs, ground textures and panoramas, with source, split and licence of each file."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from aaca.runtime.errors import DataError

PACK = Path(__file__).with_name("pack")
"""The folder of the pack: `manifest.json`, the images, `LICENCES.md` and the licence texts."""

Kind = Literal["object", "scene", "concept", "backdrop"]
"""object: a class's cut-out; scene: a ground texture; concept: a co-object's cut-out; backdrop: a panorama."""

NOT_DRAWN = frozenset({"concept/car/sedan_police.webp"})
"""Files of the pack that no image uses: this one holds a police car's decals without the car."""


@dataclass(frozen=True)
class Piece:
    """One image of the pack. Pieces of one `group` are near-duplicates; a group lies in one split only."""

    kind: Kind
    label: str  # class, ground, co-object, or "backdrop"
    name: str
    group: str
    split: str  # train | val | test
    text: str  # what a person called it: "An Adelaide Rosella"
    path: str  # below the pack's folder
    licence: str
    package: str
    origin: str
    sha: str  # the first 16 hex digits of the file's SHA-256

    @property
    def source(self) -> str:
        """What must not leak across splits: `kind/label/group`."""
        return f"{self.kind}/{self.label}/{self.group}"

    @property
    def file(self) -> Path:
        """The image file."""
        return PACK / self.path

    def pixels(self) -> np.ndarray:
        """The image, uint8 `[H, W, 4]` (object, concept) or `[H, W, 3]` (scene, backdrop); read-only, cached."""
        return _decode(self.path, "RGBA" if self.kind in ("object", "concept") else "RGB")


@cache
def _decode(path: str, mode: str) -> np.ndarray:
    try:
        with Image.open(PACK / path) as image:
            pixels = np.array(image.convert(mode))
    except OSError as error:
        raise DataError(f"{PACK / path}: the embedded image pack is damaged ({error}); install aaca again") from error
    pixels.setflags(write=False)
    return pixels


class Pack:
    """All pieces, in the manifest's order."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.all = tuple(pieces)
        self._groups: dict[tuple[str, str | None, str | None], list[list[Piece]]] = {}

    def pieces(self, kind: Kind, label: str | None = None, split: str | None = None) -> list[Piece]:
        """The pieces of a kind that images may use; None means any label, any split."""
        return [
            piece
            for piece in self.all
            if piece.kind == kind
            and label in (None, piece.label)
            and split in (None, piece.split)
            and piece.path not in NOT_DRAWN
        ]

    def groups(self, kind: Kind, label: str | None = None, split: str | None = None) -> list[list[Piece]]:
        """The same pieces, near-duplicates together: draw a group first, so that none counts twice."""
        key = (kind, label, split)
        if key not in self._groups:
            found: dict[str, list[Piece]] = {}
            for piece in self.pieces(kind, label, split):
                found.setdefault(piece.source, []).append(piece)
            self._groups[key] = list(found.values())
        return self._groups[key]

    def labels(self, kind: Kind) -> tuple[str, ...]:
        """The labels of a kind, sorted."""
        return tuple(sorted({piece.label for piece in self.all if piece.kind == kind}))

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The class names, in label order."""
        return self.labels("object")


@cache
def load_pack() -> Pack:
    """The embedded pack. Raises `DataError` when its manifest is missing or damaged."""
    manifest = PACK / "manifest.json"
    try:
        entries: list[dict[str, Any]] = json.loads(manifest.read_text(encoding="utf-8"))
        names = [column.name for column in fields(Piece)]
        return Pack([Piece(**{name: entry[name] for name in names}) for entry in entries])
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{manifest}: the embedded image pack is damaged ({error!r}); install aaca again") from error
