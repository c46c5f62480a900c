"""Seeded choices of which images go where: they hang on an image's own id, never on the order of a listing."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from aaca.data.benchmark import SPLITS
from aaca.runtime.errors import ConfigError, DataError, nearest


def check_per_class(per_class: Mapping[str, int | None] | None) -> dict[str, int | None]:
    """Images a class for each of the four splits, None = all. Raises `ConfigError` on a wrong key or number."""
    given = dict(per_class or {})
    for split, count in given.items():
        if split not in SPLITS:
            raise ConfigError(f"dataset.per_class.{split}: no such split; {nearest(split, SPLITS)}")
        if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
            raise ConfigError(f"dataset.per_class.{split}: {count!r}; expected a number of images from 1 up, or null")
    return {split: given.get(split) for split in SPLITS}


def stable_ranks(names: Iterable[str], seed: int) -> np.ndarray:
    """A pseudo-random uint64 a name, `[N]`, that depends on the name and the seed alone."""
    key = str(seed).encode()
    digests = (hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8, key=key) for name in names)
    return np.frombuffer(b"".join(one.digest() for one in digests), dtype="<u8")


def limit_per_class(
    frame: pd.DataFrame, per_class: Mapping[str, int | None], classes: Sequence[str], seed: int
) -> pd.DataFrame:
    """Keep `per_class[split]` images of every class, chosen by seeded rank of `id`; the rows keep their order.

    Raises `ConfigError` where a class has fewer images than asked.
    """
    keep = np.ones(len(frame), dtype=bool)
    for split, count in per_class.items():
        if count is None:
            continue
        for label, name in enumerate(classes):
            rows = np.flatnonzero(((frame["split"] == split) & (frame["label"] == label)).to_numpy())
            if len(rows) < count:
                raise ConfigError(
                    f"dataset.per_class.{split}: {count} images a class asked, class {name!r} has {len(rows)}; "
                    f"expected at most {len(rows)}, or null for all"
                )
            order = np.argsort(stable_ranks(frame["id"].iloc[rows], seed), kind="stable")
            keep[rows[order[count:]]] = False
    return frame[keep].reset_index(drop=True)


def cut_by_source(
    frame: pd.DataFrame, fractions: Mapping[str, float], rest: str, classes: Sequence[str], seed: int
) -> np.ndarray:
    """A split name a row, `[N]`: of every class, each named fraction of its sources (at least one), then `rest`.

    A source (where it is "", the image itself) goes to one split whole, also when it has images of several classes.
    Raises `DataError` where a class has too few sources.
    """
    units = frame["source"].where(frame["source"] != "", frame["id"])
    # A source of several classes is counted with one of them, that of a pseudo-random image of it.
    rows = pd.DataFrame({"unit": units, "label": frame["label"], "rank": stable_ranks(frame["id"], seed)})
    homes = rows.sort_values("rank").drop_duplicates("unit").set_index("unit")["label"]
    placed: dict[str, str] = {}
    for label, name in enumerate(classes):
        own = homes.index[(homes == label).to_numpy()].to_numpy(dtype=object)
        own = own[np.argsort(stable_ranks(own, seed), kind="stable")]
        sizes = [max(1, round(fraction * len(own))) for fraction in fractions.values()]
        if sum(sizes) >= len(own):
            raise DataError(
                f"dataset.root: class {name!r} has {len(own)} images or sources, too few to make "
                f"{rest}, {', '.join(fractions)} from; expected at least {len(fractions) + 1}, or a folder a split"
            )
        bounds = np.cumsum([0, *sizes])
        for split, start, stop in zip(fractions, bounds[:-1], bounds[1:], strict=True):
            placed.update(dict.fromkeys(own[start:stop], split))
    return units.map(placed).fillna(rest).to_numpy(dtype=object)


def cut_counts(
    frame: pd.DataFrame, counts: Mapping[str, int], rest: str, classes: Sequence[str], seed: int
) -> np.ndarray:
    """A split name a row, `[N]`: of every class, the named numbers of images, then `rest` (at least one).

    Raises `ConfigError` where a class has too few images.
    """
    placed = np.full(len(frame), rest, dtype=object)
    for label, name in enumerate(classes):
        rows = np.flatnonzero((frame["label"] == label).to_numpy())
        wanted = sum(counts.values())
        if wanted >= len(rows):
            asked = " and ".join(f"{count} for {split}" for split, count in counts.items())
            raise ConfigError(
                f"dataset.per_class.{next(iter(counts))}: {asked} asked, class {name!r} has {len(rows)} images; "
                f"expected fewer than {len(rows)} in all, {rest} is what they leave"
            )
        rows = rows[np.argsort(stable_ranks(frame["id"].iloc[rows], seed), kind="stable")]
        bounds = np.cumsum([0, *counts.values()])
        for split, start, stop in zip(counts, bounds[:-1], bounds[1:], strict=True):
            placed[rows[start:stop]] = split
    return placed


def cut_groups(frame: pd.DataFrame, share: float, taken: str, rest: str, seed: int) -> np.ndarray:
    """A split name a row, `[N]`: of every `group`, `share` of the images (but never all) are `taken`, others `rest`."""
    placed = np.full(len(frame), rest, dtype=object)
    for _, rows in frame.reset_index(drop=True).groupby("group"):
        order = np.argsort(stable_ranks(rows["id"], seed), kind="stable")
        count = min(round(share * len(rows)), len(rows) - 1)
        placed[rows.index.to_numpy()[order[:count]]] = taken
    return placed
