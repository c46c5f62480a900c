"""`Flowers102`: the Oxford 102 flowers, read where they lie as published and as torchvision unpacks them."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from aaca.data.benchmark import Benchmark, BenchmarkSource
from aaca.data.listing import FACTS, digest_files, is_utf8, list_files, printable
from aaca.data.splits import check_per_class, cut_groups, limit_per_class
from aaca.data.table import ImageTable
from aaca.runtime.errors import ConfigError, DataError
from aaca.runtime.files import digest

_NAMES = (
    "pink primrose, hard-leaved pocket orchid, canterbury bells, sweet pea, english marigold, tiger lily, moon orchid, "
    "bird of paradise, monkshood, globe thistle, snapdragon, colt's foot, king protea, spear thistle, yellow iris, "
    "globe-flower, purple coneflower, peruvian lily, balloon flower, giant white arum lily, fire lily, "
    "pincushion flower, fritillary, red ginger, grape hyacinth, corn poppy, prince of wales feathers, "
    "stemless gentian, artichoke, sweet william, carnation, garden phlox, love in the mist, mexican aster, "
    "alpine sea holly, ruby-lipped cattleya, cape flower, great masterwort, siam tulip, lenten rose, barbeton daisy, "
    "daffodil, sword lily, poinsettia, bolero deep blue, wallflower, marigold, buttercup, oxeye daisy, "
    "common dandelion, petunia, wild pansy, primula, sunflower, pelargonium, bishop of llandaff, gaura, geranium, "
    "orange dahlia, pink-yellow dahlia, cautleya spicata, japanese anemone, black-eyed susan, silverbush, "
    "californian poppy, osteospermum, spring crocus, bearded iris, windflower, tree poppy, gazania, azalea, "
    "water lily, rose, thorn apple, morning glory, passion flower, lotus, toad lily, anthurium, frangipani, clematis, "
    "hibiscus, columbine, desert-rose, tree mallow, magnolia, cyclamen, watercress, canna lily, hippeastrum, "
    "bee balm, ball moss, foxglove, bougainvillea, camellia, mallow, mexican petunia, bromelia, blanket flower, "
    "trumpet creeper, blackberry lily"
)
NAMES = tuple(_NAMES.split(", "))
"""The 102 names in label order; the files hold numbers alone (1 is the first), the names are on the dataset's page."""

FOLDERS = ("", "flowers-102")
"""Where in `root` the files may lie. The first found counts."""

IMAGES, LABELS, SPLITS = "jpg", "imagelabels.mat", "setid.mat"
CUTS = {"trnid": "train", "valid": "val", "tstid": "test"}
"""Lists of `setid.mat` and the split that each is; `val` becomes `pool` and `audit`."""


class Flowers102(BenchmarkSource):
    """Oxford 102 Flowers (Nilsback and Zisserman, ICVGIP 2008): 1020 train, 1020 validation and 6149 test images.

    `root` holds `jpg/image_00001.jpg`, `imagelabels.mat` and `setid.mat`, or a folder `flowers-102` that does. No data
    bug is planted. Each photo occurs once, so its file name is its `source`. A smaller set in the same layout works as
    well: its classes are the first names, as many as its largest label.

    Args:
        root: the folder.
        pool_share: share of each class's official validation images that becomes the pool; the rest is audit.
        per_class: images a class of each split; null: all.
        seed: of the division and of what `per_class` leaves out.

    """

    def __init__(
        self, root: str, pool_share: float = 0.5, per_class: dict[str, int | None] | None = None, seed: int = 0
    ) -> None:
        self.root = Path(os.path.abspath(Path(root).expanduser()))  # noqa: PTH100 (resolve would follow links)
        self.pool_share = pool_share
        self.per_class = check_per_class(per_class)
        self.seed = seed
        self._listed: tuple[pd.DataFrame, list[dict[str, str]]] | None = None
        if not 0 < pool_share < 1:
            raise ConfigError(f"dataset.pool_share: {pool_share}; expected a number between 0 and 1, the rest is audit")

    def at_most(self, split: str) -> int | None:
        """What `per_class` asks for."""
        return self.per_class[split]

    def class_names(self) -> tuple[str, ...]:
        """The names that the labels reach. Raises `DataError` where `imagelabels.mat` is missing or wrong."""
        return NAMES[: int(self._labels(self._base()).max())]

    def fingerprint(self) -> dict[str, Any]:
        """Arguments, a hash over path, size and time of every file, and one over what is said of each.

        Raises `DataError` naming what is missing.
        """
        frame, refused = self._listed = self._list()
        return {
            "dataset": "flowers102",
            "root": printable(str(self.root)),
            "pool_share": self.pool_share,
            "per_class": self.per_class,
            "seed": self.seed,
            "files": digest_files(frame),
            "said": digest(frame[["id", "label", "split"]].to_numpy().tolist()),
            "refused": digest(refused),
        }

    def build(self, folder: Path) -> Benchmark:
        """The benchmark over the files as `fingerprint` last listed them; writes nothing, paths are absolute."""
        frame, refused = self._listed if self._listed is not None else self._list()
        classes = self.class_names()
        val = (frame["split"] == "val").to_numpy()
        by_class = frame[val].assign(group=frame["label"][val])
        frame = frame.assign(path=f"{self.root}/" + frame["path"], source=frame["id"])
        frame.loc[val, "split"] = cut_groups(by_class, self.pool_share, "pool", "audit", self.seed)
        frame = limit_per_class(frame, self.per_class, classes, self.seed)
        return Benchmark(
            "flowers102",
            ImageTable.build(frame.drop(columns=list(FACTS)), classes),
            description=f"{len(classes)} kinds of flowers; train and test are the official ones, no bug is planted.",
            refused=refused,
        ).check()

    def _base(self) -> str:
        """The folder of `FOLDERS` that holds the files. Raises `DataError` naming the file that is nowhere."""
        if not self.root.is_dir() or not is_utf8(str(self.root)):
            raise DataError(f"dataset.root: {printable(str(self.root))!r} is not a folder (with a UTF-8 name)")
        base = next((name for name in FOLDERS if (self.root / name / LABELS).is_file()), None)
        if base is None:
            seen = ", ".join(sorted(map(printable, os.listdir(self.root)))[:10]) or "nothing"  # noqa: PTH208
            raise DataError(f"dataset.root: no {LABELS} in {str(self.root)!r} or its {FOLDERS[1]}; it holds {seen}")
        if not (self.root / base / IMAGES).is_dir():
            raise DataError(f"dataset.root: no folder {IMAGES!r} beside {self.root / base / LABELS}")
        return base

    def _labels(self, base: str) -> np.ndarray:
        """The label of every image, `[N]`, 1 to 102."""
        path = self.root / base / LABELS
        labels = read_numbers(path, "labels")
        wrong = np.flatnonzero((labels < 1) | (labels > len(NAMES)))
        if len(wrong) or not len(labels):
            found = f"label {labels[wrong[0]]} of image {wrong[0] + 1}" if len(wrong) else "no label"
            raise DataError(f"dataset.root: {path} has {found}; expected 1 to {len(NAMES)}")
        return labels

    def _list(self) -> tuple[pd.DataFrame, list[dict[str, str]]]:
        """Rows (path, id, label, split of `CUTS`) with the files' facts, and what was left out."""
        base = self._base()
        labels = self._labels(base)
        rows = read_splits(self.root / base / SPLITS, len(labels))
        rows["id"] = [f"image_{number:05d}.jpg" for number in rows["number"]]
        rows["path"] = [os.path.join(base, IMAGES, name) for name in rows["id"]]  # noqa: PTH118 (text, not a Path)
        rows["label"] = labels[rows.pop("number") - 1] - 1
        files = list_files(self.root, os.path.join(base, IMAGES), deep=False)  # noqa: PTH118
        missing = rows["path"][~rows["path"].isin(files.frame["path"])]
        named = [{"path": str(self.root / path), "reason": f"named in {SPLITS}, not there"} for path in missing]
        return files.frame.merge(rows, on="path", validate="one_to_one"), [*files.refused, *named]


def read_numbers(path: Path, key: str) -> np.ndarray:
    """The whole numbers `[N]` (int64) of an array in a MATLAB file. Raises `DataError` naming file and array."""
    from scipy.io import loadmat

    if not path.is_file():
        raise DataError(f"dataset.root: {path} is missing; it is part of the published set")
    try:
        found = loadmat(str(path), variable_names=[key])
    except Exception as error:  # broken bytes make the reader fail in any way it likes
        raise DataError(f"dataset.root: {path} is not a MATLAB file ({' '.join(str(error).split())})") from error
    if key not in found:
        raise DataError(f"dataset.root: {path} has no array {key!r}")
    values = np.asarray(found[key]).ravel()
    if values.dtype.kind not in "iuf" or (values != np.floor(values)).any():
        raise DataError(f"dataset.root: {path} has an array {key!r} of {values.dtype}; expected whole numbers")
    return values.astype(np.int64)


def read_splits(path: Path, count: int) -> pd.DataFrame:
    """Columns number (1 to `count`), split. Raises `DataError` on a number out of range or in two splits."""
    lists = {key: read_numbers(path, key) for key in CUTS}
    for key, numbers in lists.items():
        wrong = numbers[(numbers < 1) | (numbers > count)]
        if len(wrong):
            raise DataError(
                f"dataset.root: {path} has image {wrong[0]} in {key!r}; expected 1 to {count}, {LABELS} has no more"
            )
    parts = [pd.DataFrame({"number": numbers, "split": CUTS[key]}) for key, numbers in lists.items()]
    rows = pd.concat(parts, ignore_index=True)
    twice = rows[rows["number"].duplicated(keep=False)]
    if len(twice):
        number = twice["number"].iloc[0]
        splits = ", ".join(twice["split"][twice["number"] == number])
        raise DataError(f"dataset.root: {path} lists image {number} more than once (splits: {splits})")
    return rows
