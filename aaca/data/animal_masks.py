"""Animal silhouettes of the PyPI package `animal-mnist` 0.4 (MIT): read without unpickling, near-duplicates merged."""

import gzip
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from aaca.runtime.errors import DataError

NAMES = ("bear", "bird", "cat", "cow", "dog", "elephant", "giraffe", "horse", "sheep", "zebra")
"""The package's classes, in its label order."""

SIDE = 28
MASKS_FILE = ("animal_data_version_3.gz", "68a30346781a0984f839463a4615d2decb899d1ce65091bb92586311754a34ce")
LABELS_FILE = ("animal_label_version_3.gz", "dec8dba7c469830989fbab46825021a08a38470753a512f27ada847eced97b57")
COUNT = 10_000

SAME = 0.9
"""Two masks with at least this intersection over union, mirrored or not, count as one animal."""

INSTALL = "pip install 'aaca[animals]' (or, without its own dependencies, pip install --no-deps animal-mnist==0.4)"


@dataclass(frozen=True)
class Silhouettes:
    """The masks of one class, one of every group of near-duplicates."""

    masks: np.ndarray  # uint8 [N, 28, 28], 255 inside
    rows: np.ndarray  # [N] row in the package's array
    dropped: int  # near-duplicates left out


@lru_cache(maxsize=1)
def load_silhouettes() -> dict[str, Silhouettes]:
    """The masks by class. Raises `DataError` when the package is missing or its files are not the known ones."""
    masks = np.frombuffer(_payload(MASKS_FILE, COUNT * SIDE * SIDE), dtype=np.uint8).reshape(COUNT, SIDE, SIDE)
    labels = np.frombuffer(_payload(LABELS_FILE, COUNT * 8), dtype="<i8")
    found = {}
    for label, name in enumerate(NAMES):
        rows = np.flatnonzero(labels == label)
        groups = near_duplicates(masks[rows])
        first = np.sort(np.unique(groups, return_index=True)[1])
        found[name] = Silhouettes(masks[rows[first]], rows[first], len(rows) - len(first))
    return found


def near_duplicates(masks: np.ndarray, threshold: float = SAME) -> np.ndarray:
    """A group number a mask, `[N]`: connected components of "intersection over union, mirrored or not, ≥ threshold"."""
    flat = (masks > 127).reshape(len(masks), -1).astype(np.float32)
    mirrored = (masks[:, :, ::-1] > 127).reshape(len(masks), -1).astype(np.float32)
    area = flat.sum(axis=1)
    shared = np.maximum(flat @ flat.T, flat @ mirrored.T)  # mirroring keeps areas, so the larger overlap decides
    alike = shared >= threshold * (area[:, None] + area[None, :] - shared)
    return np.asarray(connected_components(csr_matrix(alike), directed=False)[1])


def _payload(file: tuple[str, str], size: int) -> bytes:
    """The raw bytes of the one array that a pickle holds: they follow the opcode "B" and their length as 4 bytes.

    Nothing is unpickled: a pickle runs whatever its author wrote.
    """
    name, expected = file
    spec = find_spec("animal_mnist")
    if spec is None or spec.origin is None:
        raise DataError(f"dataset animalscenes needs the package animal-mnist: {INSTALL}")
    path = Path(spec.origin).parent / "data" / "Animal_MNIST" / name
    if not path.is_file():
        raise DataError(f"{path} is missing; expected animal-mnist 0.4: {INSTALL}")
    packed = path.read_bytes()
    if sha256(packed).hexdigest() != expected:
        raise DataError(f"{path} is not the file of animal-mnist 0.4 (its SHA-256 differs): {INSTALL}")
    data = gzip.decompress(packed)
    start = data.find(b"B" + size.to_bytes(4, "little")) + 5
    if start < 5 or len(data) < start + size:
        raise DataError(f"{path} holds no array of {size} bytes")
    return data[start : start + size]
