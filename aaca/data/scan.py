"""Looking at every image of a table before anything is trained on it: broken, dangerous, unusual or leaking ones."""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from aaca.data.benchmark import Benchmark, BenchmarkSource
from aaca.data.duplicates import digest_columns, duplicate_findings
from aaca.data.images import MAX_PIXELS
from aaca.data.inspect_file import inspect_file
from aaca.data.scan_report import SEVERITY, ScanReport, findings_frame
from aaca.data.table import ImageTable
from aaca.runtime.errors import ConfigError
from aaca.runtime.log import console

BLOCK = 4096
"""Images handed to the threads at a time: what keeps memory bounded on millions."""

Finding = tuple[int, str, str]  # table position, kind, detail
Advance = Callable[[int], None]


def verify(
    source: BenchmarkSource | Benchmark, workers: int = 0, progress: bool = True, max_pixels: int = MAX_PIXELS
) -> ScanReport:
    """Scan a benchmark (a source is laid out in a temporary folder first), with what its listing left out.

    Raises `DataError` where the benchmark cannot be laid out at all.
    """
    if isinstance(source, BenchmarkSource):
        with TemporaryDirectory(prefix="aaca-verify-") as folder:
            return verify(source.build(Path(folder)), workers, progress, max_pixels)
    report = scan_table(source.table, workers, progress, max_pixels)
    rows: list[dict[str, object]] = [
        {"id": "", "path": one["path"], "row": -1, "split": "", "kind": "left_out", "detail": one["reason"]}
        for one in source.refused
    ]
    findings = pd.concat([findings_frame(rows), report.findings], ignore_index=True)
    return ScanReport(findings, report.images, report.seconds, report.splits)


def scan_table(table: ImageTable, workers: int = 0, progress: bool = True, max_pixels: int = MAX_PIXELS) -> ScanReport:
    """Decode every image file and check every array row of a table, and find equal images.

    `workers` threads (0: one a core); the findings do not depend on it. Files of unique size are not hashed.
    """
    if workers < 0:
        raise ConfigError(f"scan.workers: {workers}; expected 0 (one a core) or more")
    start = time.perf_counter()
    files = np.flatnonzero((table.frame["row"] < 0).to_numpy())
    arrays = np.flatnonzero((table.frame["row"] >= 0).to_numpy())
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True, console=console, disable=not progress) as bar, _pool(workers) as pool:
        task = bar.add_task("scan images", total=len(table))
        advance = partial(bar.advance, task)
        found = [*_scan_files(table, files, pool, max_pixels, advance), *_scan_arrays(table, arrays, advance)]
    found.sort()
    frame = table.frame
    at = [position for position, _, _ in found]
    rows: list[dict[str, object]] = [
        {"id": name, "path": str(table.root / path), "row": row, "split": split, "kind": kind, "detail": detail}
        for name, path, row, split, (_, kind, detail) in zip(
            *(frame[column].iloc[at] for column in ("id", "path", "row", "split")), found, strict=True
        )
    ]
    splits = {str(split): int(count) for split, count in frame["split"].value_counts().items()}
    return ScanReport(findings_frame(rows), len(table), time.perf_counter() - start, splits)


def _pool(workers: int) -> ThreadPoolExecutor:
    """Threads are enough: Pillow's decoders and the hashing let go of the interpreter's lock."""
    return ThreadPoolExecutor(workers or os.cpu_count() or 1)


def _blocks(positions: np.ndarray, size: int = BLOCK) -> Iterator[np.ndarray]:
    return (positions[start : start + size] for start in range(0, len(positions), size))


def _scan_files(
    table: ImageTable, positions: np.ndarray, pool: ThreadPoolExecutor, max_pixels: int, advance: Advance
) -> Iterator[Finding]:
    """Findings about image files: 25 bytes an image stay in memory, beside the findings."""
    paths = table.frame["path"]
    sizes = np.full(len(table), -1, dtype=np.int64)
    for block in _blocks(positions):
        sizes[block] = list(pool.map(_size, (table.root / path for path in paths.iloc[block])))
    repeated = pd.Series(sizes).duplicated(keep=False).to_numpy()
    digests = np.zeros((len(table), 2), dtype=np.uint64)
    hashed = np.zeros(len(table), dtype=bool)
    for block in _blocks(positions):
        files = [table.root / path for path in paths.iloc[block]]
        results = pool.map(partial(inspect_file, max_pixels=max_pixels), files, repeated[block].tolist())
        for position, result in zip(block.tolist(), results, strict=True):
            problems = [(position, kind, detail) for kind, detail in result.problems.items()]
            yield from problems
            if result.sha256 and not any(SEVERITY[kind] == "refused" for _, kind, _ in problems):
                digests[position], hashed[position] = digest_columns([result.sha256])[0], True
            advance(1)
    usable = np.flatnonzero(hashed)
    yield from duplicate_findings(table.frame, usable, digests[usable])


def _size(path: Path) -> int:
    """Bytes of a file, -1 where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _scan_arrays(table: ImageTable, positions: np.ndarray, advance: Advance) -> Iterator[Finding]:
    """Findings about rows of array files: shape, type, range, equal rows."""
    paths, rows = table.frame["path"].iloc[positions], table.frame["row"].to_numpy(dtype=np.int64)
    usable, digests = [], []
    for path, where in paths.groupby(paths, sort=True):
        own = np.sort(where.index.to_numpy())
        array, problem = _array(table.root / str(path))
        last = -1 if array is None else len(array) - 1
        for position in own.tolist():
            if array is None or rows[position] > last:
                yield position, "bad_array", problem or f"row {rows[position]}; the last one is {last}"
            else:
                usable.append(position)
                digests.append(hashlib.sha256(array[rows[position]].tobytes()).digest())
            advance(1)
    if digests:
        yield from duplicate_findings(table.frame, np.array(usable), digest_columns(digests))


def _array(path: Path) -> tuple[np.ndarray | None, str]:
    """The memory-mapped images of an array file, or None and why not."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        return None, " ".join(str(error).split())
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[-1] != 3:
        return None, f"{array.dtype} of shape {list(array.shape)}; expected uint8 [N, H, W, 3]"
    return array, ""
