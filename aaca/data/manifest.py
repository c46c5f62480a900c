"""Reading a user's manifest: one row an image, CSV or parquet."""

from pathlib import Path

import pandas as pd

from aaca.data.table import COLUMNS
from aaca.runtime.errors import DataError, nearest

NEEDED = ("path", "label")
OPTIONAL = ("split", "group", "source", "slice", "caption")
OWN = frozenset(COLUMNS) - {*NEEDED, *OPTIONAL}


def read_manifest(path: Path) -> pd.DataFrame:
    """Columns path, label, split, group, source, slice, caption as text ("" where absent); more columns are kept.

    Raises `DataError` naming the file, and the row (the first is 1) where a path or label is empty.
    """
    if not path.is_file():
        raise DataError(f"dataset.manifest: {path} is not a file; expected a .csv or .parquet")
    try:
        if path.suffix.lower() == ".csv":
            frame = pd.read_csv(path, dtype=str, keep_default_na=False)
        elif path.suffix.lower() == ".parquet":
            frame = pd.read_parquet(path)
        else:
            raise DataError(f"dataset.manifest: {path} has suffix {path.suffix!r}; expected .csv or .parquet")
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"dataset.manifest: {path} is not readable as {path.suffix} ({reason})") from error
    for column in NEEDED:
        if column not in frame:
            raise DataError(
                f"dataset.manifest: {path} has no column {column!r}; {nearest(column, map(str, frame.columns))}"
            )
    if frame.empty:
        raise DataError(f"dataset.manifest: {path} has no row")
    for column in OWN & set(frame):
        raise DataError(f"dataset.manifest: {path} has a column {column!r}, a name the table needs; rename it")
    for column in (*NEEDED, *OPTIONAL):
        frame[column] = _text(frame[column]) if column in frame else ""
    for column in NEEDED:
        empty = (frame[column] == "").to_numpy()
        if empty.any():
            raise DataError(f"dataset.manifest: {path} row {int(empty.argmax()) + 1} has an empty {column}")
    return frame


def _text(column: pd.Series) -> pd.Series:
    """The column as text; missing values are "", and whole numbers with gaps (floats to pandas) stay whole."""
    if pd.api.types.is_float_dtype(column.dtype) and (column.dropna() % 1 == 0).all():
        column = column.astype("Int64")
    return column.astype("string").fillna("").astype("str")
