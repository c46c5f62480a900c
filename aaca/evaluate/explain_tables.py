"""What tables of explanations have in common: checks, pieces, means and ranks of concept codes."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from aaca.runtime.errors import ConfigError, DataError

CHUNK = 4096  # images, or latents, in memory at once


def chunks(values: np.ndarray) -> Iterator[np.ndarray]:
    """Values `[N]` in pieces; at least one, so that nothing asked gives an empty table with its columns."""
    for start in range(0, max(1, len(values)), CHUNK):
        yield values[start : start + CHUNK]


def ranks_within(groups: np.ndarray, count: int) -> np.ndarray:
    """1, 2, … within each run of a sorted array of groups below `count`."""
    sizes = np.bincount(groups, minlength=count)
    return np.arange(len(groups)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + 1


def mean_strength(codes: csr_array) -> np.ndarray:
    """Mean over images, silent ones too, of each latent: `[h]` float64."""
    return np.bincount(codes.indices, codes.data.astype(np.float64), minlength=codes.shape[1]) / codes.shape[0]


def ranked(
    label: int, images: int, order: np.ndarray, names: Sequence[str], values: dict[str, np.ndarray]
) -> pd.DataFrame:
    """Rows of one class: its latents in this `order`, and their `values`, ranked from 1."""
    head = {"class": label, "images": images, "latent": order, "name": [names[latent] for latent in order]}
    return pd.DataFrame({**head, **values, "rank": np.arange(1, len(order) + 1)})


def check_positive(key: str, value: int) -> None:
    """Raises `ConfigError` for a value below 1."""
    if value < 1:
        raise ConfigError(f"{key}: {value}; expected 1 or more")


def check_codes(
    codes: csr_array,
    names: Sequence[str] | None = None,
    labels: np.ndarray | None = None,
    weight: np.ndarray | None = None,
) -> None:
    """Raises `DataError` where codes `[N, h]`, names, labels `[N]` and weights `[C, h]` do not fit together."""
    if not isinstance(codes, csr_array) or 0 in codes.shape:
        raise DataError(f"explain: codes {type(codes).__name__} {codes.shape}; expected a csr_array [N, h], not empty")
    images, latents = codes.shape
    if names is not None and len(names) != latents:
        raise DataError(f"explain: {len(names)} names of {latents} latents; expected one each")
    if labels is not None and len(labels) != images:
        raise DataError(f"explain: {len(labels)} labels of {images} images; expected one each")
    if weight is not None and (weight.ndim != 2 or weight.shape[1] != latents):
        raise DataError(f"explain: weights {weight.shape}; expected [C, {latents}]")
    if labels is not None and weight is not None and not 0 <= labels.min() <= labels.max() < len(weight):
        raise DataError(f"explain: labels {labels.min()}…{labels.max()}; expected 0…{len(weight) - 1}")
