"""Captioned scenes: an unbiased rendering of the embedded world, from which the embedded models learn."""

import hashlib
from collections.abc import Iterator
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import PIL
from rich.progress import Progress

from aaca.data.table import ImageTable
from aaca.runtime.files import file_sha256
from aaca.runtime.log import console
from aaca.world.batch import Batch, Job, render_batches
from aaca.world.captions import Content, content_of, describe
from aaca.world.pack import PACK, load_pack
from aaca.world.render import VERSION
from aaca.world.scenes import Sources, draw_spec

TABLE = "captioned.parquet"
HELD_OUT = 10  # of a hundred combinations

Part = Literal["seen", "held_out"]


def is_held_out(cls: str, scene: str, concept: str | None, relation: str | None) -> bool:
    """Whether this combination is kept from training, so that prompts for it show what a model puts together itself."""
    word = hashlib.sha256(f"{cls}/{scene}/{concept}/{relation}".encode()).digest()
    return int.from_bytes(word[:4], "little") % 100 < HELD_OUT


class CaptionedScenes:
    """Scenes in which class, ground and co-object are drawn independently, with what can be said of each.

    Holding combinations out bends that a little: three of them have no co-object (flower on snow, produce on grass and
    on wood), so the `seen` part shows those grounds with those classes more rarely than others.

    Args:
        images: how many a class.
        sources: whose cut-outs and photos they show; what a model is trained on must show `train` alone.
        part: `seen` leaves the held-out combinations away, `held_out` keeps nothing else, None takes all.
        image_size: pixels a side.
        seed: of all choices.
        workers: processes that render; the images do not depend on it.

    """

    def __init__(
        self,
        images: int,
        sources: tuple[Sources, ...] = ("train",),
        part: Part | None = "seen",
        image_size: int = 64,
        seed: int = 0,
        workers: int = 2,
    ) -> None:
        self.images, self.sources, self.part = images, sources, part
        self.image_size, self.seed, self.workers = image_size, seed, workers

    def fingerprint(self) -> dict[str, Any]:
        """All arguments but `workers`, the pack's manifest, the renderer's and Pillow's versions."""
        arguments = {name: value for name, value in vars(self).items() if name != "workers"}
        versions = {"pack": file_sha256(PACK / "manifest.json"), "renderer": VERSION, "pillow": PIL.__version__}
        return {"dataset": "captioned_scenes", **arguments, **versions}

    def build(self, folder: Path) -> ImageTable:
        """Render into `images.npy` (uint8 `[N, S, S, 3]`) and write the table beside it."""
        folder.mkdir(parents=True, exist_ok=True)
        batch = Batch(tuple(self._jobs()), folder / "images.npy")
        rows: list[dict[str, Any]] = [{}] * len(batch.jobs)
        with Progress(transient=True, console=console) as progress:
            bar = progress.add_task("render captioned scenes", total=len(rows))
            made_in = render_batches([batch], seed=self.seed, stray=0.0, size=self.image_size, workers=self.workers)
            for _, start, made in made_in:
                for row, one in enumerate(made, start=start):
                    rows[row] = {
                        "id": f"captioned/{row:07d}",
                        "label": load_pack().classes.index(one.spec.cls),
                        "path": "images.npy",
                        "row": row,
                        "source": one.spec.object.piece.source,
                        **asdict(content_of(one.spec)),
                    }
                progress.advance(bar, len(made))
        table = ImageTable.build(pd.DataFrame(rows), load_pack().classes, folder)
        table.save(folder / TABLE)
        return table

    def _jobs(self) -> Iterator[Job]:
        for cls in load_pack().classes:
            count = index = 0
            while count < self.images:
                sources = self.sources[index % len(self.sources)]
                spec = draw_spec(self.seed, "captioned", "balanced", cls, index, (), 0.0, sources)
                concept = spec.concept.piece.label if spec.concept else None
                held_out = is_held_out(spec.cls, spec.scene, concept, spec.relation)
                if self.part is None or held_out == (self.part == "held_out"):
                    yield Job("captioned", "balanced", cls, index, (), sources)
                    count += 1
                index += 1


class Captions:
    """The captions of a table of captioned scenes, drawn anew at every showing."""

    def __init__(self, table: ImageTable) -> None:
        self.frame = table.frame

    @cached_property
    def contents(self) -> list[Content]:
        """What can be said of each row."""
        names = list(Content.__dataclass_fields__)
        frame = self.frame[names].astype(object)
        frame = frame.where(frame.notna(), None)
        return [Content(**row) for row in frame.to_dict("records")]

    def draw(self, rows: np.ndarray, seed: int) -> list[str]:
        """One caption for each of these rows; the same for the same seed."""
        rng = np.random.default_rng(seed)
        return [describe(self.contents[row], rng) for row in rows.tolist()]
