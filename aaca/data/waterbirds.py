"""`Waterbirds`: birds pasted on places, read where they lie as group_DRO and WILDS publish them."""

import os
from pathlib import Path

import pandas as pd

from aaca.data.confounded import CUTS, ConfoundedFiles, Rows
from aaca.data.listing import folders_in, printable, stat_files
from aaca.runtime.errors import DataError, nearest

CLASSES = ("landbird", "waterbird")
PLACES = ("land", "water")
METADATA = "metadata.csv"
NAMES = ("waterbird_complete95_forest2water2", "waterbirds_v1.0")
FOLDERS = ("", *(shape.format(name) for name in NAMES for shape in ("{0}", "cub/{0}/{0}")))
"""Where in `root` the metadata may lie; the nested one is where NeuroInspect's code looks. The first found counts."""

COLUMNS = {"y": range(2), "split": range(3), "place": range(2)}
"""Columns of numbers, and the numbers that each may hold."""


class Waterbirds(ConfoundedFiles):
    """Waterbirds (Sagawa et al., ICLR 2020): the background gives the class away in 95 % of train, in half of the rest.

    `root` is the folder of `metadata.csv` (columns img_filename, y, split, place), or one above it. Each bird's photo
    occurs once, so its file name is its `source`. Other shares in the same layout work as well: p is measured.

    Args:
        root: the folder.
        pool_share: share of each group of the official validation images that becomes the pool; the rest is audit.
        per_class: images a class of each split; null: all.
        seed: of the division and of what `per_class` leaves out.

    """

    name = "waterbirds"
    kind = "background"
    classes = CLASSES
    values = PLACES

    def __init__(
        self, root: str, pool_share: float = 0.5, per_class: dict[str, int | None] | None = None, seed: int = 0
    ) -> None:
        super().__init__(root, pool_share, per_class, seed)

    def _group(self, label: int, value: int) -> str:
        return f"{CLASSES[label]} on {PLACES[value]}"

    def _list(self) -> Rows:
        inside = next((name for name in FOLDERS if (self.root / name / METADATA).is_file()), None)
        if inside is None:
            folders, others = folders_in(self.root)
            seen = ", ".join(map(printable, [*folders, *others][:10])) or "nothing"
            raise DataError(f"dataset.root: no {METADATA} in {str(self.root)!r} or its {NAMES[0]}; it holds {seen}")
        rows = read_metadata(self.root / inside / METADATA)
        rows = rows.assign(path=[os.path.join(inside, name) for name in rows["id"]])  # noqa: PTH118 (text, not a Path)
        listing = stat_files(self.root / inside, rows["id"].tolist())
        found = listing.frame.rename(columns={"path": "id"}).merge(rows, on="id", how="left", validate="one_to_one")
        return found.assign(source=found["id"]), listing.refused


def read_metadata(path: Path) -> pd.DataFrame:
    """Columns id (the normal form of img_filename), label, value, split. Raises `DataError` naming file and row."""
    try:
        raw = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, OSError) as error:
        raise DataError(f"dataset.root: {path} is not readable as CSV ({' '.join(str(error).split())})") from error
    for column in ("img_filename", *COLUMNS):
        if column not in raw:
            raise DataError(f"dataset.root: {path} has no column {column!r}; {nearest(column, map(str, raw.columns))}")
    for column, valid in COLUMNS.items():
        wrong = ~raw[column].isin([str(number) for number in valid]).to_numpy()
        if wrong.any():
            at = int(wrong.argmax())
            raise DataError(
                f"dataset.root: {path} row {at + 1} has {column} {raw[column].iloc[at]!r}; "
                f"expected {', '.join(map(str, valid))}"
            )
    rows = pd.DataFrame(
        {
            "id": [os.path.normpath(name) for name in raw["img_filename"]],
            "label": raw["y"].astype("int64"),
            "value": raw["place"].astype("int64"),
            "split": [CUTS[int(number)] for number in raw["split"]],
        }
    )
    twice = rows[rows["id"].duplicated(keep=False)]
    if len(twice):
        raise DataError(
            f"dataset.root: {path} lists {twice['id'].iloc[0]!r} more than once "
            f"(splits: {', '.join(sorted(set(twice['split'])))}); splits must be disjoint, one row a file"
        )
    return rows
