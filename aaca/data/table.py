"""`ImageTable`: one row an image. Everything that moves images through the house moves rows of this table."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from aaca.data.images import read_image
from aaca.runtime.errors import DataError
from aaca.runtime.files import atomic_path

COLUMNS: dict[str, object] = {
    "id": "",  # stable and unique
    "label": 0,  # index into `classes`
    "split": "",  # train | pool | audit | test | test_seen
    "slice": "all",  # aligned | conflicting | balanced, or all
    "group": "",  # class × confounder value, "" where unknown
    "source": "",  # what must not leak across splits: the same photo, the same object
    "path": "",  # image file, or .npy with one image a row; absolute or relative to `root`
    "row": -1,  # row of the .npy, -1 for an image file
    "caption": "",
}
"""The columns every table has, with the value a missing one is filled with. More columns may follow."""


@lru_cache(maxsize=32)
def _open_array(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r", allow_pickle=False)


@dataclass(frozen=True)
class ImageTable:
    """Rows of images and the class names their labels point to. `frame` has the columns of `COLUMNS` and maybe more."""

    frame: pd.DataFrame
    classes: tuple[str, ...]
    root: Path = Path()

    @classmethod
    def build(cls, frame: pd.DataFrame, classes: Sequence[str], root: Path = Path()) -> "ImageTable":
        """Fill missing columns, check labels and ids. Raises `DataError` on a repeated id or a label out of range."""
        columns = {name: frame.get(name, default) for name, default in COLUMNS.items()}
        extra = {name: frame[name] for name in frame if name not in COLUMNS}
        full = pd.DataFrame({**columns, **extra}, index=frame.index).reset_index(drop=True)
        repeated = full["id"][full["id"].duplicated()]
        if len(repeated):
            raise DataError(f"image table: id {repeated.iloc[0]!r} occurs more than once; ids must be unique")
        if len(full) and not full["label"].between(0, len(classes) - 1).all():
            raise DataError(f"image table: labels must lie in 0…{len(classes) - 1} ({len(classes)} classes)")
        return cls(full, tuple(classes), root)

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def ids(self) -> np.ndarray:
        """Ids, `[N]` of str."""
        return self.frame["id"].to_numpy(dtype=object)

    @property
    def labels(self) -> np.ndarray:
        """Labels, `[N]` int64."""
        return np.array(self.frame["label"], dtype=np.int64)

    def take(self, rows: np.ndarray | Sequence[int]) -> "ImageTable":
        """The rows at these positions, or where a boolean mask is true; in that order."""
        selector = np.asarray(rows)
        frame = self.frame[selector] if selector.dtype == bool else self.frame.iloc[selector]
        return replace(self, frame=frame.reset_index(drop=True))

    def split(self, name: str) -> "ImageTable":
        """The rows of one split."""
        return self.take((self.frame["split"] == name).to_numpy())

    def concat(self, other: "ImageTable") -> "ImageTable":
        """This table's rows followed by the other's. Raises `DataError` when the classes differ."""
        if self.classes != other.classes:
            raise DataError(f"cannot join tables of different classes: {self.classes} and {other.classes}")
        mine, theirs = self.absolute().frame, other.absolute().frame
        return ImageTable(pd.concat([mine, theirs], ignore_index=True), self.classes)

    def absolute(self) -> "ImageTable":
        """The same table with absolute paths."""
        root = self.root.absolute()
        paths = [str(root / path) for path in self.frame["path"]]
        return ImageTable(self.frame.assign(path=paths), self.classes)

    def file(self, position: int) -> Path:
        """The file that holds the image at this position."""
        return self.root / str(self.frame["path"].iat[position])

    def image(self, position: int) -> np.ndarray:
        """The image at this position, `[H, W, 3]` uint8. Raises `DataError` naming the file if it cannot be read."""
        row = int(self.frame["row"].iat[position])
        if row < 0:
            return read_image(self.file(position))
        return np.asarray(_open_array(self.file(position))[row])

    def save(self, path: Path) -> None:
        """Write the rows to a parquet file, atomically. The class names are kept by whoever owns the table."""
        with atomic_path(path) as temporary:
            self.frame.to_parquet(temporary, index=False)

    @classmethod
    def load(cls, path: Path, classes: Sequence[str], root: Path | None = None) -> "ImageTable":
        """Read rows written by `save`; relative image paths start at `root` (default: the parquet's own folder)."""
        return cls.build(pd.read_parquet(path), classes, path.parent if root is None else root)


class ImageReader:
    """Batched reading of a table's images: looks each file up once, and takes rows of an array file in one go."""

    def __init__(self, table: ImageTable) -> None:
        codes, paths = pd.factorize(table.frame["path"])
        self.codes = np.asarray(codes, dtype=np.int32)
        self.files = [table.root / str(path) for path in paths]
        self.rows = table.frame["row"].to_numpy(dtype=np.int64)

    def read(self, positions: np.ndarray) -> list[np.ndarray]:
        """The images at these table positions, each `[H, W, 3]` uint8. Raises `DataError` naming an unreadable file."""
        codes, rows = self.codes[positions], self.rows[positions]
        images: list[np.ndarray] = [np.empty(0)] * len(positions)
        for code in np.unique(codes):
            where = np.flatnonzero(codes == code)
            if rows[where[0]] < 0:
                images[where[0]] = read_image(self.files[code])
                for repeat in where[1:]:
                    images[repeat] = images[where[0]]
            else:
                for place, image in zip(where, _open_array(self.files[code])[rows[where]], strict=True):
                    images[place] = image
        return images
