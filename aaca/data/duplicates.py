"""Equal images in a table: leaks between splits, contradictory labels, plain repeats."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from aaca.data.inspect_file import Severity

KINDS: dict[str, Severity] = {
    "leak": "refused",  # another copy is in a test split; this one, outside, goes
    "in_two_splits": "refused",  # another copy is in an earlier split of ORDER
    "in_two_classes": "warning",  # nobody but the user knows which label is right
    "repeated": "warning",  # same split, same class
}
"""Kinds of findings about equal images; of several that fit one image the first is reported."""

ORDER = ("test", "test_seen", "audit", "train", "pool")
"""The copy that stays is in the first of these splits: measurements are kept whole, the reserve gives way."""


def digest_columns(digests: list[bytes]) -> np.ndarray:
    """The first 16 bytes of each digest as uint64 `[N, 2]`: what stays in memory, 16 bytes an image."""
    return np.frombuffer(b"".join(digest[:16] for digest in digests), dtype="<u8").reshape(-1, 2)


def duplicate_findings(
    frame: pd.DataFrame, positions: np.ndarray, digests: np.ndarray
) -> Iterator[tuple[int, str, str]]:
    """(position, kind, detail) of every image that has an equal one, by digests `[N, 2]` of table positions `[N]`."""
    keys = pd.DataFrame({"position": positions, "a": digests[:, 0], "b": digests[:, 1]})
    keys = keys[keys.duplicated(["a", "b"], keep=False)]
    if keys.empty:
        return
    rank = {split: place for place, split in enumerate(ORDER)}
    rows = frame.iloc[keys["position"]]
    keys["split"] = rows["split"].to_numpy(dtype=object)
    keys["label"] = rows["label"].to_numpy()
    keys["name"] = rows["id"].to_numpy(dtype=object)
    keys["rank"] = keys["split"].map(rank).fillna(len(rank))
    for _, same in keys.sort_values(["rank", "position"], kind="stable").groupby(["a", "b"], sort=False):
        kept = same.iloc[0]
        clash = same["label"].nunique() > 1
        for copy in same.itertuples(index=False):
            kind = _kind(copy.split, kept["split"], clash, copy.position == kept["position"])
            if kind:
                other = kept if copy.position != kept["position"] else same.iloc[1]
                yield int(copy.position), kind, f"equal to {other['name']} ({other['split']}, class {other['label']})"


def _kind(split: str, kept: str, clash: bool, first: bool) -> str | None:
    if split != kept:
        return "leak" if kept.startswith("test") else "in_two_splits"
    if clash:
        return "in_two_classes"
    return None if first else "repeated"
