"""The features of an image's regions: one HDF5 file an image, as ASG2Caption's download has them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from aaca.runtime.errors import DataError

MAX_BYTES = 2**28
"""Features of one image above this are refused (the real ones take some hundred kilobytes)."""

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class RegionFeatures:
    """features `[M, F]` float32 of boxes `[M, 4]` int64 (x1, y1, x2, y2); `size`: width, height of the image."""

    file: Path
    features: np.ndarray
    boxes: np.ndarray
    size: tuple[int, int]

    @cached_property
    def rows(self) -> dict[Box, int]:
        """The row of each box; of a box that comes twice, the last (as upstream)."""
        return {tuple(box): row for row, box in enumerate(self.boxes.tolist())}

    def nearest(self, box: Box, box_mode: str) -> tuple[int, float]:
        """The row whose box overlaps `box` most, and their intersection over union (corners inclusive or not)."""
        extra = 1 if box_mode == "inclusive" else 0
        wanted = np.array(box, dtype=np.int64)
        low, high = np.maximum(self.boxes[:, :2], wanted[:2]), np.minimum(self.boxes[:, 2:], wanted[2:])
        both = np.maximum(high - low + extra, 0).prod(axis=1)
        areas = np.maximum(self.boxes[:, 2:] - self.boxes[:, :2] + extra, 0).prod(axis=1)
        own = np.maximum(wanted[2:] - wanted[:2] + extra, 0).prod()
        share = both / np.maximum(areas + own - both, 1)
        row = int(share.argmax())
        return row, float(share[row])


def region_file(folders: Sequence[Path], image_id: str) -> Path:
    """The HDF5 file of an image in the first of `folders` that has it. Raises `DataError` where none has."""
    name = f"{image_id.replace('/', '_')}.jpg.hdf5"
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"{name}: no such file in {' or '.join(map(str, folders))}")


def read_regions(file: Path) -> RegionFeatures:
    """The regions of one HDF5 file: a single dataset `[M, F]` of floats with attributes boxes, image_w and image_h.

    Raises `DataError` where the file is anything else, points to other files, or holds numbers that are not finite.
    """
    import h5py  # type: ignore[import-untyped]

    try:
        with h5py.File(file, "r", locking=False) as opened:  # locks fail on some network disks
            dataset = _only_dataset(file, opened, h5py)
            missing = [name for name in ("boxes", "image_w", "image_h") if name not in dataset.attrs]
            if missing:
                raise DataError(f"{file}: no attribute {', '.join(missing)}; expected boxes, image_w and image_h")
            boxes = np.asarray(dataset.attrs["boxes"])
            size = (int(dataset.attrs["image_w"]), int(dataset.attrs["image_h"]))
            features = np.asarray(dataset[...], dtype=np.float32)
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise DataError(f"{file}: not a readable HDF5 file ({' '.join(str(error).split())[:200]})") from error
    if boxes.dtype.kind not in "iu" or boxes.shape != (len(features), 4):
        raise DataError(
            f"{file}: boxes {boxes.dtype} {list(boxes.shape)}; expected integers [{len(features)}, 4], one a row"
        )
    if not np.isfinite(features).all():
        raise DataError(f"{file}: features that are not finite")
    return RegionFeatures(file, features, boxes.astype(np.int64), size)


def _only_dataset(file: Path, opened: Any, h5py: Any) -> Any:
    # links, external storage and virtual datasets would read what lies outside of this file
    names = list(opened)
    if len(names) != 1:
        raise DataError(f"{file}: {len(names)} datasets; expected one")
    if not isinstance(opened.get(names[0], getlink=True), h5py.HardLink):
        raise DataError(f"{file}: {names[0]!r} is a link; expected a dataset in the file itself")
    dataset = opened[names[0]]
    if not isinstance(dataset, h5py.Dataset) or dataset.is_virtual or dataset.external:
        raise DataError(
            f"{file}: {names[0]!r} is a group or lies in another file; expected a dataset in the file itself"
        )
    if dataset.dtype.kind != "f" or dataset.ndim != 2 or 0 in dataset.shape:
        raise DataError(f"{file}: {dataset.dtype} {list(dataset.shape)}; expected floats [regions, features]")
    if dataset.size * 8 > MAX_BYTES:
        raise DataError(f"{file}: {list(dataset.shape)} features; expected at most {MAX_BYTES // 2**20} MiB")
    return dataset
