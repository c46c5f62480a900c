"""Arrays of files that nobody vouches for: text and numbers alone, never pickled objects."""

from pathlib import Path
from typing import Any

import numpy as np

from aaca.runtime.errors import DataError
from aaca.runtime.files import read_json


def text_array(file: Path, columns: int | None = None) -> np.ndarray:
    """The unicode array of a `.npy` file: `[n]`, or `[n, columns]` where `columns` is given.

    Raises `DataError` where the file is missing, is no `.npy`, or holds anything but text. Objects are never unpickled.
    """
    array = np.array(_load(file, "text"))
    wanted = "[n]" if columns is None else f"[n, {columns}]"
    fits = array.ndim == 1 if columns is None else array.ndim == 2 and array.shape[1] == columns
    if array.dtype.kind != "U" or not fits:
        raise DataError(f"{file}: {array.dtype} {list(array.shape)}; expected an array of text {wanted}")
    try:
        array.tolist()
    except ValueError as error:
        raise DataError(f"{file}: characters that do not exist ({_first_line(error)})") from error
    return array


def float_matrix(file: Path) -> np.ndarray:
    """The floats `[n, d]` of a `.npy` file, as a read-only memory map. Raises `DataError` for anything else."""
    array = _load(file, "numbers")
    if array.dtype.kind != "f" or array.ndim != 2 or array.shape[1] == 0:
        raise DataError(f"{file}: {array.dtype} {list(array.shape)}; expected floats [n, d]")
    return array


def json_object(file: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises `DataError` where the file is missing or holds anything else."""
    try:
        value = read_json(file)
    except FileNotFoundError as error:
        raise DataError(f"{file}: no such file") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file}: not a readable JSON file ({_first_line(error)})") from error
    if not isinstance(value, dict):
        raise DataError(f"{file}: a JSON {type(value).__name__}; expected an object")
    return value


def _load(file: Path, what: str) -> np.ndarray:
    # a map, so that a header that lies about the size is found out before any memory is taken
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(f"{file}: no such file") from error
    except (OSError, ValueError, EOFError) as error:
        if "allow_pickle" in str(error) or "Python objects" in str(error):
            raise DataError(
                f"{file}: holds pickled Python objects, which may run code; expected an array of {what} "
                "(where you trust it, save it again as such)"
            ) from error
        raise DataError(f"{file}: not a readable .npy file ({_first_line(error)})") from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise DataError(f"{file}: an archive of arrays; expected one .npy array of {what}")
    return array


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
