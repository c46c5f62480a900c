"""The job `asg`: scene graphs in a folder of region files: what is wrong with them, how many there are, pictures."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from aaca.runtime.app import run_job
from aaca.runtime.trial import Trial

ENDINGS = (".png", ".jpg", ".jpeg", ".webp")


def job(trial: Trial) -> None:
    """Do what `action` says. Raises `AacaError` where graphs have serious problems."""
    from aaca.runtime.config import load_config

    from .debug_config import without_size_presets
    from .paths_config import PathsConfig

    @dataclass(frozen=True, kw_only=True)
    class AsgConfig:
        seed: Annotated[int, Field(ge=0)]
        size: Literal["smoke", "demo", "full"]
        action: Literal["validate", "stats", "draw"]
        folder: str
        images: str | None
        limit: Annotated[int, Field(ge=1)]
        most: Annotated[int, Field(ge=1)]
        output: str | None
        paths: PathsConfig

    options = load_config(without_size_presets(trial.config), AsgConfig)
    folder, images = Path(options.folder), None if options.images is None else Path(options.images)
    if options.action == "validate":
        validate(folder, images, options.most)
    elif options.action == "stats":
        stats(folder, options.limit)
    else:
        draw(folder, images, options.most, Path(options.output) if options.output else folder / "drawn")


def picture_of(images: Path, image: str) -> Path | None:
    """The file of an image, with any ending."""
    return next((file for end in ENDINGS if (file := images / f"{image}{end}").is_file()), None)


def validate(folder: Path, images: Path | None, most: int) -> None:
    """Print every kind of problem and the first serious ones; raise `AacaError` where there are some."""
    from collections import Counter

    from aaca.data.images import upright_size
    from aaca.data.scenegraph.files import walk
    from aaca.runtime.errors import AacaError, ConfigError, DataError

    if images is not None and not images.is_dir():
        raise ConfigError(f"images: no folder {images}")
    kinds: Counter[str] = Counter()
    serious: list[str] = []

    def unreadable(error: DataError) -> None:
        kinds["unreadable"] += 1
        serious.append(str(error))

    graphs, last = 0, ""
    size: tuple[int, int] | None = None
    for image, region, graph in walk(folder, unreadable):
        graphs += 1
        if images is not None and image != last:
            last, file, size = image, picture_of(images, image), None
            kinds["no image"] += file is None
            try:
                size = None if file is None else upright_size(file)
            except DataError as error:
                unreadable(error)
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


def stats(folder: Path, limit: int) -> None:
    """Print what the graphs are like."""
    from aaca.data.scenegraph.files import statistics, walk

    def graphs() -> Iterator[object]:
        for _, _, graph in walk(folder):
            yield graph

    for name, value in statistics(graphs(), limit).items():  # type: ignore[arg-type]
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
