"""Captions of somebody else: read from a file of theirs, to be scored."""

from pathlib import Path

import pandas as pd

from aaca.data.scenegraph.arrays import json_object
from aaca.data.scenegraph.store import PackedGraphs
from aaca.runtime.errors import DataError


def given_captions(file: Path, test: PackedGraphs) -> dict[str, str]:
    """Captions of somebody else: a CSV with name and caption, or a JSON {name: caption or [caption]}.

    Raises `DataError` where a sample of the set has none or several, and for a file that is neither.
    """
    try:
        found = _captions_json(file) if file.suffix == ".json" else _captions_csv(file)
    except ValueError as error:  # of either reader; text that is no UTF-8, too
        raise DataError(f"{file}: not readable as {file.suffix or '.csv'} ({error})") from error
    names = [test.name(row) for row in range(len(test))]
    missing = [name for name in names if name not in found]
    if missing:
        raise DataError(f"{file}: no caption of {missing[0]} and {len(missing) - 1} more; expected all {len(names)}")
    return {name: found[name] for name in names}


def _captions_json(file: Path) -> dict[str, str]:
    found = {}
    for name, value in json_object(file).items():
        one = value[0] if isinstance(value, list) and len(value) == 1 else value
        if not isinstance(one, str):
            raise DataError(f"{file}: {name}: {value!r}; expected one caption")
        found[name] = one
    return found


def _captions_csv(file: Path) -> dict[str, str]:
    frame = pd.read_csv(file, keep_default_na=False, dtype=str)
    if not {"name", "caption"} <= set(frame.columns):
        raise DataError(f"{file}: columns {', '.join(frame.columns)}; expected name and caption")
    twice = frame["name"][frame["name"].duplicated()]
    if len(twice):
        raise DataError(f"{file}: {twice.iloc[0]!r} comes twice; expected one caption a name")
    return dict(zip(frame["name"], frame["caption"], strict=True))
