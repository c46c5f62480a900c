"""Example images of a run: contact sheets with a list of what they show, written by the job, read by the report."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from PIL import Image, ImageOps

from aaca.data.images import open_image
from aaca.runtime.errors import DataError
from aaca.runtime.files import atomic_path, write_json

Kind = Literal["benchmark", "failure", "debug"]
SHEETS: dict[str, str] = {"benchmark": "benchmark.png", "failure": "failures.png", "debug": "debugset.png"}
SIZE = 96  # pixels of a tile's side
GAP = 4  # white pixels between tiles


@dataclass(frozen=True)
class Example:
    """One strip of images of one class: what the images show (`kind`), and a caption for each."""

    kind: Kind
    label: str  # class name
    images: list[np.ndarray]  # each `[H, W, 3]` uint8
    captions: list[str]


def contact_sheet(rows: list[list[np.ndarray]], size: int = SIZE) -> Image.Image:
    """Images `[H, W, 3]` uint8 in rows, each cropped to a square of `size` pixels, `GAP` white pixels apart."""
    columns = max((len(row) for row in rows), default=0)
    if columns == 0:
        raise DataError("contact sheet: no image given; expected at least one")
    step = size + GAP
    sheet = Image.new("RGB", (columns * step - GAP, len(rows) * step - GAP), "white")
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            tile = ImageOps.fit(Image.fromarray(image).convert("RGB"), (size, size), Image.Resampling.LANCZOS)
            sheet.paste(tile, (x * step, y * step))
    return sheet


def write_examples(run_dir: Path, examples: list[Example]) -> None:
    """Write `examples/<sheet>.png` for each kind given, and `examples/examples.json`; empty strips are left out.

    Raises `DataError` when a strip has another number of captions than images.
    """
    listing = []
    for kind in get_args(Kind):
        strips = [example for example in examples if example.kind == kind and example.images]
        for row, example in enumerate(strips):
            if len(example.captions) != len(example.images):
                raise DataError(
                    f"examples: {len(example.captions)} captions for {len(example.images)} images of {example.label!r}"
                )
            place = {"file": SHEETS[kind], "row": row, "captions": list(example.captions)}
            listing.append({"kind": kind, "class": example.label, **place})
        if strips:
            with atomic_path(run_dir / "examples" / SHEETS[kind]) as temporary:
                contact_sheet([example.images for example in strips]).save(temporary, format="PNG", optimize=True)
    write_json(run_dir / "examples" / "examples.json", listing)


def read_examples(run_dir: Path, kind: Kind) -> list[Example]:
    """The strips of one kind, tiles cut from the sheet; [] where there is none. Raises `DataError` naming the file."""
    path = run_dir / "examples" / "examples.json"
    if not path.is_file():
        return []
    try:
        entries = [entry for entry in json.loads(path.read_text(encoding="utf-8")) if entry["kind"] == kind]
        if not entries:
            return []
        sheet = np.asarray(open_image(path.parent / SHEETS[kind]))
        return [_cut(sheet, kind, entry["class"], int(entry["row"]), list(entry["captions"])) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not a readable list of examples ({error!r})") from error


def _cut(sheet: np.ndarray, kind: Kind, label: str, row: int, captions: list[str]) -> Example:
    step = SIZE + GAP
    if row < 0 or row * step + SIZE > sheet.shape[0] or len(captions) * step - GAP > sheet.shape[1]:
        raise ValueError(f"strip {row} of {len(captions)} images lies outside the sheet")
    band = sheet[row * step : row * step + SIZE]
    return Example(kind, str(label), [band[:, i * step : i * step + SIZE] for i in range(len(captions))], captions)
