"""Whole batches of an embedding store: one gather a batch, shuffled, the same wherever the vectors lie."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args, overload

import numpy as np
import torch
from torch import Tensor

from aaca.data.embeddings import EmbeddingStore, StoreView
from aaca.runtime.errors import ConfigError, nearest

Shuffle = Literal["global", "block", "none"]
Scale = Literal["none", "unit", "sqrt_d"]
Resident = Literal["auto", "memory", "device", "no"]

BUFFER_BLOCKS = 4
"""Blocks that are mixed with each other, and in memory together, under block shuffle."""
LOAD_ROWS = 16_384  # rows that are read at a time into a resident tensor
MEMORY_SHARE, DEVICE_SHARE = 0.25, 0.5
"""What a store may take of available memory, and of a GPU's free memory, for `resident="auto"` to keep it there."""


class EmbeddingBatches:
    """Float32 batches `[B, D]` of a store or a view on `device`; a pure function of (seed, epoch, rank, world).

    The batches do not depend on `resident`, and a run resumes with `skip`. Each rank takes its own share of every
    epoch's rows, and all take equally many batches. With `drop_last` all batches are whole; without it every row comes
    once over all ranks.

    Args:
        source: the store, or the view of some of its rows.
        batch_size: rows a batch (of one rank).
        shuffle: global (one permutation) | block (blocks in random order, rows mixed within `BUFFER_BLOCKS` of them:
            sequential reads, bounded memory, for stores that memory does not hold) | none.
        block_rows: rows a block.
        device: where batches are wanted.
        seed: of all orders.
        center: subtract the store's mean.
        scale: unit (rows of length 1) | sqrt_d (one factor that makes the store's mean norm √D, that of the centred
            rows where they are centred) | none.
        resident: memory, device: the whole source is kept there as one tensor of its own type; no: read from disk, the
            pages kept by the system; auto: device or memory where it takes no more than `DEVICE_SHARE`, `MEMORY_SHARE`.
        drop_last: leave out what fills no whole batch on every rank.
        rank: of this process.
        world: number of processes.

    """

    def __init__(
        self,
        source: EmbeddingStore | StoreView,
        batch_size: int,
        shuffle: Shuffle = "global",
        block_rows: int = 65_536,
        device: str | torch.device = "cpu",
        seed: int = 0,
        center: bool = False,
        scale: Scale = "none",
        resident: Resident = "auto",
        drop_last: bool = True,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        for key, value, valid in (
            ("shuffle", shuffle, Shuffle),
            ("scale", scale, Scale),
            ("resident", resident, Resident),
        ):
            if value not in get_args(valid):
                raise ConfigError(f"sae.{key}: {value!r}; {nearest(value, get_args(valid))}")
        for key, number in (("training.batch_size", batch_size), ("block_rows", block_rows)):
            if number < 1:
                raise ConfigError(f"sae.{key}: {number}; expected 1 or more")
        self.source, self.batch_size, self.shuffle, self.block_rows = source, batch_size, shuffle, block_rows
        self.device, self.seed, self.rank = torch.device(device), seed, rank
        self.first, self.rows = _share(source.n, batch_size, drop_last, rank, world)
        least, most = source.n // world, -(-source.n // world)
        self.count = least // batch_size if drop_last else -(-most // batch_size)
        if not 1 <= self.count <= least:
            raise ConfigError(
                f"sae.training.batch_size: {batch_size}; {source.n} rows give {world} ranks no equal number of "
                f"{'whole ' if drop_last else ''}batches; expected at most {least} (and, without drop_last, 2 or more)"
            )
        store = source.store if isinstance(source, StoreView) else source
        self.unit = scale == "unit"
        self.offset = torch.from_numpy(store.mean).to(self.device) if center else None
        norm = store.centred_norm if center else store.mean_norm
        self.factor = float(np.sqrt(store.dim)) / norm if scale == "sqrt_d" else 1.0
        self.place = _place(source, self.device, world) if resident == "auto" else resident
        self.data = None if self.place == "no" else _load(source, self.device if self.place == "device" else "cpu")

    def __len__(self) -> int:
        """Batches an epoch, of this rank."""
        return self.count

    @overload
    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Tensor]: ...

    @overload
    def epoch(self, epoch: int, skip: int = 0, *, with_rows: Literal[True]) -> Iterator[tuple[Tensor, Tensor]]: ...

    def epoch(
        self, epoch: int, skip: int = 0, *, with_rows: bool = False
    ) -> Iterator[Tensor] | Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch after the first `skip`; `with_rows`: each with its rows in the store, `[B]` int64."""
        read = {"global": self._global, "block": self._blocks, "none": self._sequence}[self.shuffle]
        batches = read(epoch, skip)
        if with_rows:
            return ((self._finish(raw), self._store_rows(positions)) for raw, positions in batches)
        return (self._finish(raw) for raw, _ in batches)

    def _start(self, index: int) -> int:
        # the second bound leaves a row to each later batch, where this rank's rows fill one batch less than another's
        return min(index * self.batch_size, self.rows - (self.count - index))

    def _bounds(self, skip: int) -> Iterator[tuple[int, int]]:
        return ((self._start(index), self._start(index + 1)) for index in range(skip, self.count))

    def _global(self, epoch: int, skip: int) -> Iterator[tuple[Tensor, Tensor]]:
        own = torch.randperm(self.source.n, generator=_generator(self.seed, epoch))
        own = own[self.first : self.first + self.rows].clone()  # lets go of the other ranks' rows
        if self.data is not None:
            own = own.to(self.data.device)
        for start, stop in self._bounds(skip):
            positions = own[start:stop]
            if self.data is not None:
                yield self.data.index_select(0, positions), positions
            else:
                yield torch.from_numpy(self.source.fetch(positions.numpy())), positions

    def _sequence(self, epoch: int, skip: int) -> Iterator[tuple[Tensor, Tensor]]:
        for start, stop in self._bounds(skip):
            low, high = self.first + start, self.first + stop
            positions = torch.arange(low, high)
            if self.data is not None:
                yield self.data[low:high].clone(), positions
            else:
                raw = np.empty((high - low, self.source.dim), self.source.dtype)
                self.source.read(low, raw)
                yield torch.from_numpy(raw), positions

    def _blocks(self, epoch: int, skip: int) -> Iterator[tuple[Tensor, Tensor]]:
        # One row of shuffled blocks is cut into the ranks' equal shares, a share into chunks of whole batches, and each
        # chunk is shuffled: a share may begin and end within a block, which costs nothing and loses no row.
        size = self.batch_size * max(1, BUFFER_BLOCKS * self.block_rows // self.batch_size)
        order = torch.randperm(-(-self.source.n // self.block_rows), generator=_generator(self.seed, epoch)).numpy()
        buffer = np.empty((min(size, self.rows) if self.data is None else 0, self.source.dim), self.source.dtype)
        data, positions, loaded = self.data, torch.empty(0, dtype=torch.long), -1
        for start, stop in self._bounds(skip):
            chunk = start // size
            if chunk != loaded:
                low, high = chunk * size, min((chunk + 1) * size, self.rows)
                spans = self._spans(order, self.first + low, self.first + high)
                mixed = torch.randperm(high - low, generator=_generator(self.seed, epoch, self.rank, chunk))
                positions = torch.cat([torch.arange(*span) for span in spans])[mixed]
                if data is None:
                    self._fill(buffer, spans)
                loaded = chunk
            here = slice(start - chunk * size, stop - chunk * size)
            if data is None:
                yield torch.from_numpy(buffer).index_select(0, mixed[here]), positions[here]
            else:
                yield data.index_select(0, positions[here].to(data.device)), positions[here]

    def _spans(self, order: np.ndarray, low: int, high: int) -> list[tuple[int, int]]:
        """Runs of positions [start, stop) that lie at low…high-1 once the blocks are put in `order`."""
        starts = order * self.block_rows
        lengths = np.minimum(self.block_rows, self.source.n - starts)
        ends = np.cumsum(lengths)
        first = int(np.searchsorted(ends, low, side="right"))
        last = int(np.searchsorted(ends, high, side="left"))
        spans = []
        for block in range(first, last + 1):
            begins = int(ends[block] - lengths[block])
            cut = max(low - begins, 0), min(high - begins, int(lengths[block]))
            spans.append((int(starts[block]) + cut[0], int(starts[block]) + cut[1]))
        return spans

    def _fill(self, buffer: np.ndarray, spans: list[tuple[int, int]]) -> None:
        at = 0
        for start, stop in spans:
            self.source.read(start, buffer[at : at + stop - start])
            at += stop - start

    def _store_rows(self, positions: Tensor) -> Tensor:
        positions = positions.cpu()
        if isinstance(self.source, StoreView):
            return torch.from_numpy(self.source.rows[positions.numpy()])
        return positions.clone()

    def _finish(self, raw: Tensor) -> Tensor:
        """On the device, float32, centred and scaled; `raw` belongs to this batch alone."""
        if self.device.type == "cuda" and raw.device.type == "cpu":
            raw = raw.pin_memory().to(self.device, non_blocking=True)
        batch = raw.to(self.device, torch.float32)
        if self.offset is not None:
            batch -= self.offset
        if self.unit:
            return torch.nn.functional.normalize(batch, dim=1)
        return batch if self.factor == 1.0 else batch.mul_(self.factor)


def _share(n: int, batch_size: int, drop_last: bool, rank: int, world: int) -> tuple[int, int]:
    """Where a rank's share of n shuffled rows begins, and its number of rows."""
    if not 0 <= rank < world:
        raise ConfigError(f"batches.rank: {rank}; expected 0…{world - 1}")
    if drop_last:
        rows = n // world // batch_size * batch_size
        return rank * (n // world), rows
    first = rank * n // world
    return first, (rank + 1) * n // world - first


def _generator(*seeds: int) -> torch.Generator:
    state = np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state))


def _bytes(source: EmbeddingStore | StoreView) -> int:
    return source.n * source.dim * np.dtype(source.dtype).itemsize


def _place(source: EmbeddingStore | StoreView, device: torch.device, world: int) -> Literal["device", "memory", "no"]:
    """Where a source is kept under "auto"; ranks on one machine share its memory."""
    if device.type == "cuda" and _bytes(source) <= DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]:
        return "device"
    return "memory" if _bytes(source) <= MEMORY_SHARE * available_memory() / world else "no"


def available_memory(meminfo: Path = Path("/proc/meminfo"), limit: Path = Path("/sys/fs/cgroup/memory.max")) -> int:
    """Bytes that programs can still get, caches counted as free: the kernel's estimate, at most a container's limit."""
    if not meminfo.is_file():  # not Linux
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    line = next(line for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable:"))
    free = int(line.split()[1]) * 1024
    allowed = limit.read_text().strip() if limit.is_file() else "max"
    return free if allowed == "max" else min(free, int(allowed))


def _load(source: EmbeddingStore | StoreView, device: torch.device | str) -> Tensor:
    """All rows as one tensor `[N, D]` of the stored type."""
    data = torch.empty(source.n, source.dim, dtype=getattr(torch, source.dtype), device=device)
    buffer = np.empty((min(LOAD_ROWS, source.n), source.dim), source.dtype)
    for start in range(0, source.n, LOAD_ROWS):
        part = buffer[: min(LOAD_ROWS, source.n - start)]
        source.read(start, part)
        data[start : start + len(part)] = torch.from_numpy(part)
    return data
