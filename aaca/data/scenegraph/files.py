"""Scene graphs on disk: one JSON file an image, region id → record; a folder of them as a stream, and in numbers."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from aaca.data.scenegraph.graph import SceneGraph
from aaca.data.scenegraph.nodes import Policy, nodes_of
from aaca.runtime.errors import DataError
from aaca.runtime.files import read_json, write_json


class Region(NamedTuple):
    """A graph and where it is from; `image` is the file's path below the folder without its ending, with `/`."""

    image: str
    region: str
    graph: SceneGraph


def read_graphs(path: Path) -> dict[str, SceneGraph]:
    """The graphs of an image by region id, in the file's order. Raises `DataError` naming file, region and field."""
    try:
        records = read_json(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); expected a JSON file of regions") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error})") from error
    if not isinstance(records, dict):
        raise DataError(f"{path}: {type(records).__name__}; expected a JSON object of region ids and records")
    if isinstance(records.get("objects"), list):
        raise DataError(f"{path}: one region record alone; expected {{region id: record}}")
    return {name: SceneGraph.from_region(record, f"{path}: region {name}") for name, record in records.items()}


def write_graphs(path: Path, graphs: Mapping[str, SceneGraph]) -> None:
    """Write an image's graphs as `read_graphs` reads them, atomically."""
    write_json(path, {name: graph.to_region() for name, graph in graphs.items()})


def walk(folder: Path, on_error: Callable[[DataError], object] | None = None) -> Iterator[Region]:
    """Every region of every `.json` below the folder, sorted by path, one file in memory at a time.

    A file that cannot be used is handed to `on_error` and passed over; without it, it raises. Raises `DataError` for a
    folder that is not there.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected one of <image id>.json")
    for path in _files(folder):
        try:
            graphs = read_graphs(path)
        except DataError as error:
            if on_error is None:
                raise
            on_error(error)
            continue
        image = path.relative_to(folder).as_posix().removesuffix(".json")
        for region, graph in graphs.items():
            yield Region(image, region, graph)


def statistics(
    graphs: Iterable[SceneGraph],
    limit: int = 10,
    policy: Policy = "objects_first",
    sizes: Iterable[tuple[int, int] | None] | None = None,
) -> dict[str, Any]:
    """What a set of graphs is like, in one pass: a flat dict of counts and shares of graphs, `problems` one of kinds.

    `truncated`: graphs with more than `limit` nodes under `policy`, `relationships_lost`: by that; `unusable`: graphs
    that `nodes_of` refuses (in neither). `sizes` are the graphs' images (width, height; None: not known), without
    which boxes cannot be told to be whole images (`whole_image_boxes` None) or outside. `duplicate_names`: graphs
    with two objects of a name.
    """
    total: Counter[str] = Counter()
    problems: Counter[str] = Counter()
    pairs = ((graph, None) for graph in graphs) if sizes is None else zip(graphs, sizes, strict=True)
    for graph, size in pairs:
        counts = graph.counts()
        found = graph.problems(size)
        names = {thing.name.lower() for thing in graph.objects}
        total["graphs"] += 1
        total.update(vars(counts))
        total["duplicate_names"] += len(names) < counts.objects
        total["serious"] += any(problem.serious for problem in found)
        problems.update(problem.kind for problem in found)
        try:
            dropped = nodes_of(graph, limit, policy).dropped
        except DataError:
            total["unusable"] += 1
            continue
        total["truncated"] += dropped.total > 0
        total["relationships_lost"] += dropped.relationships
    keys = ("graphs", "objects", "attributes", "relationships", "duplicate_names", "serious")
    return {
        **{key: total[key] for key in (*keys, "unusable", "truncated", "relationships_lost")},
        "limit": limit,
        "policy": policy,
        "disconnected_share": problems["disconnected"] / max(total["graphs"], 1),
        "whole_image_boxes": None if sizes is None else problems["whole_image"],
        "problems": dict(sorted(problems.items())),
    }


def _files(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            yield from _files(Path(entry.path))
        elif entry.name.endswith(".json") and not entry.name.startswith("."):
            yield Path(entry.path)
