"""MetaShift's unpacked cats and dogs: `{train,test}/<class>/<class>(<context>)/*.jpg`, as SubpopBench reads them."""

from pathlib import Path

import pandas as pd

from aaca.data.confounded import Rows
from aaca.data.listing import folders_in, list_files
from aaca.data.splits import stable_ranks
from aaca.runtime.errors import DataError

NAME = "MetaShift-Cat-Dog-indoor-outdoor"
SPLITS = ("test", "train")
"""Test comes first: of a photo that is in both, test keeps it."""


def list_folders(root: Path, seed: int) -> tuple[Rows, tuple[str, ...]]:
    """Images below `root` or its `NAME` with label, group, source and split (train | test); and the classes.

    A photo lies in several folders where it shows several things: one keeps it, chosen by `seed`, and test before
    train. Raises `DataError` naming what is missing.
    """
    inside = next((top for top in ("", f"{NAME}/") if (root / top / "train").is_dir()), None)
    if inside is None:
        raise DataError(f"dataset.root: no folder train in {str(root)!r} or its {NAME}")
    classes = tuple(folders_in(root / inside / "train")[0])
    frames, refused = [], []
    for split in SPLITS:
        for label, name in enumerate(classes):
            top = f"{inside}{split}/{name}"
            if not (root / top).is_dir():
                raise DataError(f"dataset.root: no folder {top!r} in {str(root)!r}; train has class {name!r}")
            for subset in folders_in(root / top)[0]:
                listing = list_files(root, f"{top}/{subset}", deep=False)
                context = subset.removeprefix(f"{name}(").removesuffix(")")
                frames.append(listing.frame.assign(label=label, group=f"{name}|{context}", split=split))
                refused += listing.refused
    frame = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    if frame.empty:
        raise DataError(f"dataset.root: no image in <split>/<class>/<subset> of {str(root / inside)!r}")
    frame = frame.assign(id=frame["path"].str.removeprefix(inside), source=[Path(one).stem for one in frame["path"]])
    order = frame.assign(late=frame["split"] != SPLITS[0], rank=stable_ranks(frame["id"], seed))
    kept = order.sort_values(["late", "rank"]).drop_duplicates("source").index.sort_values()
    reason = "the same photo is kept in another folder"
    refused += [{"path": str(root / path), "reason": reason} for path in frame["path"].drop(kept)]
    return (frame.loc[kept].reset_index(drop=True), refused), classes
