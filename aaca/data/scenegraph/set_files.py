"""What tells the files of a set from those that lay in their place another day, without reading the large ones."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from aaca.data.scenegraph.arrays import text_array
from aaca.data.scenegraph.layout import Layout
from aaca.data.scenegraph.vocabulary import INT2WORD, WORD2INT
from aaca.runtime.files import digest, file_sha256


def files_of(layout: Layout, set_name: str) -> dict[str, Any]:
    """Hashes of the files with names, words and references; of features and graphs sizes in bytes and times in ns.

    JSON and HDF5 files are those of the images in the set's split: how many there are, and a digest of all their sizes
    and times. A missing file is told from any other. Raises `DataError` where the split is not readable.
    """
    named = {
        "samples": layout.samples_file(set_name),
        "split": layout.images_file(set_name),
        "int2word": layout.words / INT2WORD,
        "word2int": layout.words / WORD2INT,
        "references": layout.references_file(set_name),
    }
    images = [name.split(".")[0] for name in text_array(layout.images_file(set_name)).tolist()]
    folders = list(map(str, layout.objects))
    flat = [f"{image.replace('/', '_')}.jpg.hdf5" for image in images]
    return {
        **{key: file_sha256(file) if file.is_file() else None for key, file in named.items()},
        "globals": _state([str(layout.globals_file(set_name))]),
        "graphs": _all([f"{layout.regions}/{image}.json"] for image in images),
        "regions": _all([f"{folder}/{name}" for folder in folders] for name in flat),
    }


def _all(places: Iterable[list[str]]) -> dict[str, Any]:
    states = [_state(some) for some in places]
    return {"files": sum(state is not None for state in states), "states": digest(states)}


def _state(places: list[str]) -> tuple[int, int] | None:
    # of the first of these paths that is there, as `region_file` looks for it
    for path in places:
        try:
            found = Path(path).stat()
        except (OSError, ValueError):
            continue
        return found.st_size, found.st_mtime_ns
    return None
