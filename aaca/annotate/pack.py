"""The pack of tasks: a folder with everything that a person has to see, for the page, for a static file, for export."""

import base64
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from aaca.annotate.task import NEURON, Task, load_lines, save_lines, to_line
from aaca.runtime.errors import DataError
from aaca.runtime.files import digest, write_text

TASKS, PICTURES = "tasks.jsonl", "pictures.jsonl"
OVERLAYS = ("predicted", "true", "contrast")
LONGEST_SIDE = 512  # pixels of a picture
SHEET_SIDE = 1024  # pixels of a sheet of many
DARKEST = 205  # of 255: what is shown of the irrelevant is little, not nothing


@dataclass(frozen=True)
class Pack:
    """Tasks, and in the same order their pictures: image, overlays (none of a sheet), controls; all data URIs."""

    tasks: list[Task]
    pictures: list[dict[str, object]]

    def fingerprint(self) -> str:
        """Tells these tasks from those of any other run."""
        return digest([to_line(task) for task in self.tasks])[:16]

    @classmethod
    def load(cls, folder: Path) -> "Pack":
        """Read what `write_pack` wrote. Raises `DataError` where a file is missing or does not fit the other."""
        for name in (TASKS, PICTURES):
            if not (folder / name).is_file():
                raise DataError(f"{folder}: no tasks to annotate ({name} is missing); expected a run of method=aaca")
        tasks = load_lines(folder / TASKS, Task)
        lines = (folder / PICTURES).read_text(encoding="utf-8").splitlines()
        if len(lines) != len(tasks):
            raise DataError(f"{folder}: {len(tasks)} tasks and pictures of {len(lines)}; make the run again")
        return cls(tasks, [json.loads(line) for line in lines])


def write_pack(
    folder: Path,
    tasks: Sequence[Task],
    image: Callable[[str], np.ndarray],
    maps: Callable[[str], Mapping[str, np.ndarray]],
) -> None:
    """Write tasks and pictures. `image`: id → uint8 `[H, W, 3]`; `maps`: id → a map `[h, w]` for each of `OVERLAYS`.

    Sheets of neurons have no overlays: their `maps` are never asked for.
    """
    lines = []
    for task in tasks:
        sheet = task.kind == NEURON
        found: dict[str, object] = {} if sheet else {name: _overlay(maps(task.image_id)[name]) for name in OVERLAYS}
        found["image"] = _picture(image(task.image_id), SHEET_SIDE if sheet else LONGEST_SIDE)
        found["controls"] = [_picture(image(control), 128) for control in task.controls]
        lines.append(json.dumps(found))
    save_lines(folder / TASKS, tasks)
    write_text(folder / PICTURES, "".join(line + "\n" for line in lines))


def _picture(pixels: np.ndarray, side: int = LONGEST_SIDE) -> str:
    image = Image.fromarray(pixels)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, format="WEBP", quality=90)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()


def _overlay(relevance: np.ndarray) -> str:
    # a spotlight: what is not relevant is dark (any colour would be lost on an image of that colour); smoothed by the
    # browser
    values = np.asarray(relevance, dtype=np.float64)
    strength = values / values.max() if values.max() > 0 else values
    pixels = np.zeros((*values.shape, 4), dtype=np.uint8)
    pixels[..., 3] = (DARKEST * (1 - strength)).round()
    stream = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(stream, format="PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
