"""The job `asg`: scene graphs in a folder of region files: what is wrong with them, how many there are, pictures."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import tee
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from aaca.runtime.app import run_job
from aaca.runtime.trial import Trial

if TYPE_CHECKING:
    from aaca.data.scenegraph.files import Region
    from aaca.runtime.errors import DataError

ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
READ_BY = {"limit": ("stats",), "most": ("validate", "draw"), "output": ("draw",)}
"""Options that not every action reads, and those that do."""


def job(trial: Trial) -> None:
    """Do what `action` says. Raises `AacaError` where graphs have serious problems."""
    from aaca.runtime.config import load_config
    from aaca.runtime.errors import ConfigError

    from .paths_config import PathsConfig

    @dataclass(frozen=True, kw_only=True)
    class AsgConfig:
        action: Literal["validate", "stats", "draw"]
        folder: str
        images: str | None
        limit: Annotated[int, Field(ge=1)]
        most: Annotated[int, Field(ge=1)]
        output: str | None
        paths: PathsConfig

    options = load_config(trial.config, AsgConfig)
    given = {item.lstrip("+").split("=")[0] for item in trial.overrides}
    for key, actions in READ_BY.items():
        if key in given and options.action not in actions:
            raise ConfigError(f"{key}: given, but action is {options.action}; expected action={' or '.join(actions)}")
    folder, images = Path(options.folder), None if options.images is None else Path(options.images)
    if options.action == "validate":
        validate(folder, images, options.most)
    elif options.action == "stats":
        stats(folder, images, options.limit)
    else:
        draw(folder, images, options.most, Path(options.output) if options.output else folder / "drawn")


def picture_of(images: Path, image: str) -> Path | None:
    """The file of an image, with any ending."""
    return next((file for end in ENDINGS if (file := images / f"{image}{end}").is_file()), None)


def sized(
    folder: Path,
    images: Path | None,
    kinds: Counter[str],
    on_error: "Callable[[DataError], object] | None" = None,
) -> "Iterator[tuple[Region, tuple[int, int] | None]]":
    """Every region below the folder with (width, height) of its image where there is one; `no image` is counted.

    Files that cannot be read are handed to `on_error`, or raise. Raises `ConfigError` where `images` is no folder.
    """
    from aaca.data.images import upright_size
    from aaca.data.scenegraph.files import walk
    from aaca.runtime.errors import ConfigError, DataError

    if images is not None and not images.is_dir():
        raise ConfigError(f"images: no folder {images}")
    last, size = "", None
    for region in walk(folder, on_error):
        if images is not None and region.image != last:
            last, file, size = region.image, picture_of(images, region.image), None
            kinds["no image"] += file is None
            try:
                size = None if file is None else upright_size(file)
            except DataError as error:
                if on_error is None:
                    raise
                on_error(error)
        yield region, size


def validate(folder: Path, images: Path | None, most: int) -> None:
    """Print every kind of problem and the first serious ones; raise `AacaError` where there are some."""
    from aaca.runtime.errors import AacaError, DataError

    kinds: Counter[str] = Counter()
    serious: list[str] = []

    def unreadable(error: DataError) -> None:
        kinds["unreadable"] += 1
        serious.append(str(error))

    graphs = 0
    for (image, region, graph), size in sized(folder, images, kinds, unreadable):
        graphs += 1
        for problem in graph.problems(size):
            kinds[problem.kind] += 1
            if problem.serious:
                serious.append(f"{image} region {region}: {problem.text}")
    if not graphs and not serious:
        raise DataError(f"{folder}: no graph; expected files <image id>.json")
    print(f"{graphs} graphs")
    for kind, count in (+kinds).most_common():
        print(f"  {kind}: {count}")
    for line in serious[:most]:
        print(line)
    if serious:
        raise AacaError(f"{folder}: {len(serious)} serious problems in {graphs} graphs")


def stats(folder: Path, images: Path | None, limit: int) -> None:
    """Print what the graphs are like, their boxes held against the images where these are given."""
    from aaca.data.scenegraph.files import statistics

    lost: Counter[str] = Counter()
    first, second = tee(sized(folder, images, lost))  # read in step: one region in memory
    sizes = None if images is None else (size for _, size in second)
    found = statistics((region.graph for region, _ in first), limit, sizes=sizes)
    for name, value in {**found, **lost}.items():
        print(f"{name}: {value:.3f}" if isinstance(value, float) else f"{name}: {value}")


def draw(folder: Path, images: Path | None, most: int, output: Path) -> None:
    """Draw graphs over their images as PNG."""
    from aaca.data.images import read_image
    from aaca.data.scenegraph.files import walk
    from aaca.evaluate.graph_picture import draw_graph
    from aaca.runtime.errors import ConfigError
    from aaca.runtime.files import atomic_path

    if images is None:
        raise ConfigError("images: missing, and action=draw needs it; expected the folder of <image id>.png or .jpg")
    drawn = 0
    for image, region, graph in walk(folder):
        file = picture_of(images, image)
        if file is None:
            continue
        with atomic_path(output / f"{image.replace('/', '_')}_{region}.png") as temporary:
            draw_graph(read_image(file), graph).save(temporary, format="PNG")
        drawn += 1
        if drawn == most:
            break
    if not drawn:
        raise ConfigError(f"images: no image of {folder} below {images}; expected files named as the graphs'")
    print(f"{drawn} drawings in {output}")


def main() -> int:
    """Entry point: `aaca asg`, `python -m experiments.asg`."""
    return run_job("asg")


if __name__ == "__main__":
    sys.exit(main())
