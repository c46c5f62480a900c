"""Many images at once: rendered by a pool of processes, each straight into its rows of a memory-mapped array."""

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aaca.runtime.files import allocate_array
from aaca.world.bugs import Bug, Slice
from aaca.world.render import LAYERS, Box, render
from aaca.world.scenes import SceneSpec, Sources, draw_spec

CHUNK = 256
"""Images one process renders at a time; fewer than this start no other process."""


@dataclass(frozen=True)
class Job:
    """One image to make: the arguments of `draw_spec` that differ between images."""

    split: str
    slice_: Slice
    cls: str
    index: int
    bugs: tuple[Bug, ...]
    sources: Sources


@dataclass(frozen=True)
class Made:
    """What is known of a rendered image besides its pixels."""

    spec: SceneSpec
    boxes: dict[str, Box | None]


@dataclass(frozen=True)
class Batch:
    """Images that go into one array, in this order: `images` (.npy, uint8 `[N, S, S, 3]`), `masks` (`[N, 4, S, S]`)."""

    jobs: tuple[Job, ...]
    images: Path
    masks: Path | None = None


@dataclass(frozen=True)
class _Chunk:
    batch: int  # position of the batch
    start: int  # row of the first image
    jobs: tuple[Job, ...]
    images: Path
    masks: Path | None


def _render_chunk(chunk: _Chunk, seed: int, stray: float, size: int) -> tuple[int, int, list[Made]]:
    images = np.load(chunk.images, mmap_mode="r+")
    masks = np.load(chunk.masks, mmap_mode="r+") if chunk.masks else None
    made = []
    for row, job in enumerate(chunk.jobs, start=chunk.start):
        spec = draw_spec(seed, job.split, job.slice_, job.cls, job.index, job.bugs, stray, job.sources)
        rendered = render(spec, size)
        images[row] = rendered.rgb
        if masks is not None:
            masks[row] = rendered.masks
        made.append(Made(spec, rendered.boxes))
    images.flush()
    if masks is not None:
        masks.flush()
    return chunk.batch, chunk.start, made


def _chunks(batches: Sequence[Batch]) -> list[_Chunk]:
    return [
        _Chunk(position, start, batch.jobs[start : start + CHUNK], batch.images, batch.masks)
        for position, batch in enumerate(batches)
        for start in range(0, len(batch.jobs), CHUNK)
    ]


def render_batches(
    batches: Sequence[Batch], *, seed: int, stray: float, size: int, workers: int
) -> Iterator[tuple[int, int, list[Made]]]:
    """Render every job into its batch's arrays, which do not depend on `workers`.

    Yields (position of the batch, row of the first image, what was made) a chunk, in no fixed order.
    """
    for batch in batches:
        allocate_array(batch.images, "uint8", (len(batch.jobs), size, size, 3)).flush()
        if batch.masks is not None:
            allocate_array(batch.masks, "uint8", (len(batch.jobs), len(LAYERS), size, size)).flush()
    chunks = _chunks(batches)
    workers = min(workers, -(-sum(len(chunk.jobs) for chunk in chunks) // CHUNK))
    if workers <= 1:
        yield from (_render_chunk(chunk, seed, stray, size) for chunk in chunks)
        return
    # Spawn, not fork: the parent may have threads (torch) whose locks a forked child would inherit locked.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        for future in as_completed([pool.submit(_render_chunk, chunk, seed, stray, size) for chunk in chunks]):
            yield future.result()
