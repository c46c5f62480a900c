"""Keep the captions whose words point at the right things, drop the rest; as a new set in the released layout.

The released `val_sub_opt` is such a part of `val_sub`. A part of the set is easier or harder by chance too, and has
other document frequencies: compare with `random_filter` of the same size.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from aaca.data.scenegraph.layout import Layout
from aaca.data.scenegraph.samples import GraphSet
from aaca.runtime.errors import ConfigError, DataError, nearest
from aaca.runtime.files import atomic_path, write_json
from aaca.runtime.seeding import purpose_seed

THRESHOLD = 0.6
"""Released answers leave a gap in ease from 0.57 to 0.84."""


@dataclass(frozen=True)
class Filtered:
    """Names in their order: what stays, what goes, and which of those that stay nobody rated."""

    kept: tuple[str, ...]
    dropped: tuple[str, ...]
    unrated: tuple[str, ...] = ()


def filter_by_ease(names: Sequence[str], ease: Mapping[str, float], threshold: float = THRESHOLD) -> Filtered:
    """Keep what has at least this ease, and what nobody rated. Raises `ConfigError` for a threshold outside 0…1."""
    if not 0 <= threshold <= 1:
        raise ConfigError(f"filter.threshold: {threshold}; expected 0…1")
    return _filtered(names, {name for name in names if name in ease and ease[name] < threshold}, ease)


def filter_top(names: Sequence[str], ease: Mapping[str, float], share: float) -> Filtered:
    """Keep the easiest `share` of what was rated (rounded; of equals the earlier ones), and what nobody rated.

    Raises `ConfigError` for a share outside 0…1.
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"filter.share: {share}; expected 0…1")
    ranked = sorted((name for name in names if name in ease), key=lambda name: -ease[name])
    return _filtered(names, set(ranked[round(share * len(ranked)) :]), ease)


def random_filter(names: Sequence[str], count: int, seed: int) -> Filtered:
    """Keep `count` names drawn at random: the control. Raises `ConfigError` where there are not so many."""
    if not 0 <= count <= len(names):
        raise ConfigError(f"filter.count: {count}; expected 0…{len(names)}, the names there are")
    order = np.random.default_rng(purpose_seed(seed, "random_filter")).permutation(len(names))
    return _filtered(names, {names[row] for row in order[count:].tolist()}, dict.fromkeys(names, 0.0))


def against_truth(filtered: Filtered, planted: Collection[str]) -> dict[str, float]:
    """How well what was dropped is what was planted: `precision`, `recall` (NaN for a share of nothing), `dropped`.

    Raises `DataError` where a planted name is none of the filter's.
    """
    known, wrong = {*filtered.kept, *filtered.dropped}, set(planted)
    if not wrong <= known:
        name = min(wrong - known)
        raise DataError(f"filter: {name!r} was planted but not filtered; {nearest(name, known)}")
    hits = len(wrong & set(filtered.dropped))
    return {
        "precision": hits / len(filtered.dropped) if filtered.dropped else float("nan"),
        "recall": hits / len(wrong) if wrong else float("nan"),
        "dropped": float(len(filtered.dropped)),
    }


def write_filtered(
    source: GraphSet,
    filtered: Filtered,
    ease: Mapping[str, float],
    new: str | None = None,
    place: Layout | None = None,
) -> Layout:
    """Write what was kept of a set as the set `new` (default `<set>_opt`) into the folders of `place`, else beside it.

    Written are the samples, the images that have one, their features, the reference captions, and
    `<new>_filter.csv` beside these with ease and fate of every sample; words, graphs and region features are not: a set
    in another place is read once its files are copied beside them. Returns `place` with that set. Raises `DataError`
    where names are not the set's, nothing is kept, or a file of that set exists already.
    """
    layout, name = place or source.layout, new or f"{source.set_name}_opt"
    names = [source.name(row) for row in range(len(source))]
    if set(names) != {*filtered.kept, *filtered.dropped} or not filtered.kept:
        raise DataError(
            f"{name}: {len(filtered.kept)} of {len(names)} samples kept; expected some, of names of the set"
        )
    report = layout.annotation / f"{name}_filter.csv"
    files = [
        make(name) for make in (layout.samples_file, layout.images_file, layout.globals_file, layout.references_file)
    ]
    for file in (*files, report):
        if file.exists():
            raise DataError(f"{file}: exists already; expected another name than {name!r}, or the file removed")
    kept = set(filtered.kept)
    samples = source.samples[[own in kept for own in names]]
    images = np.unique([source.image_rows[image] for image in samples[:, 0].tolist()])
    references = source.references()
    cleaned: dict[str, dict[str, dict[str, str]]] = {}
    for image, region in samples.tolist():
        cleaned.setdefault(image, {})[region] = {"phrase": references[f"{image}_{region}"][0]}
    _save(files[1], np.load(source.layout.images_file(source.set_name), allow_pickle=False)[images])
    features = np.load(source.layout.globals_file(source.set_name), allow_pickle=False, mmap_mode="r")
    _save(files[2], features[images])
    write_json(files[3], cleaned)
    rows = [(*source.samples[row].tolist(), ease.get(own), own in kept) for row, own in enumerate(names)]
    with atomic_path(report) as temporary:
        pd.DataFrame(rows, columns=["image", "region", "ease", "kept"]).to_csv(temporary, index=False)
    _save(files[0], samples)  # last: a set is opened by its samples
    return replace(layout, sets=tuple(dict.fromkeys((*layout.sets, name))))


def planted_names(file: Path) -> frozenset[str]:
    """`<image id>_<region id>` of what a file of planted noise lists. Raises `DataError` where it is no such file."""
    try:
        listed = json.loads(file.read_text(encoding="utf-8"))
        return frozenset(f"{image}_{region}" for image, regions in listed.items() for region in regions)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise DataError(f"{file}: not a list of planted noise ({error}); expected image → region → change") from error


def _filtered(names: Sequence[str], gone: Collection[str], ease: Mapping[str, float]) -> Filtered:
    if len(set(names)) != len(names):
        raise DataError("filter: a name comes twice; expected each once")
    return Filtered(
        tuple(name for name in names if name not in gone),
        tuple(name for name in names if name in gone),
        tuple(name for name in names if name not in ease),
    )


def _save(file: Path, array: np.ndarray) -> None:
    with atomic_path(file) as temporary, temporary.open("wb") as stream:
        np.save(stream, array, allow_pickle=False)
