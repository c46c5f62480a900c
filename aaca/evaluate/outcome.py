"""`Outcome`: what one run showed on `test`, and `summarise`, which computes its numbers from the predictions."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import TypeAdapter, ValidationError

from aaca.runtime.errors import DataError
from aaca.runtime.files import write_json

SCHEMA = 1
FILE = "outcome.json"
PREDICTIONS = "predictions.parquet"


@dataclass(kw_only=True)
class Outcome:
    """One run: what determined it, its numbers on `test` (fractions, not per cent), and what it cost."""

    key: str  # digest of what determined the run; of equal keys the newest counts
    method: str
    seed: int
    dataset: str
    model: str
    size: str
    recipe: str
    selection_rule: str  # which weights count: last | best on audit
    init: str  # what the refit starts from: pretrained | f0
    per_class: int  # K, images asked for per class
    classes: list[str]
    headline_slice: str  # the slice of `test` that `accuracy` is taken over, or "all"
    n_train: int
    n_debug: int
    n_debug_unique: int
    n_test: int
    accuracy: float
    worst_group_accuracy: float
    worst_group: str
    worst_group_n: int
    mean_accuracy_train_weighted: float
    repaired: int
    newly_broken: int
    wrong_before: int
    repair_rate: float | None  # repaired / wrong before; None where f0 made no error
    before: dict[str, Any]  # the same accuracies for f0
    slices: dict[str, dict[str, Any]]  # "split/slice": n, accuracy, accuracy_before, per_class, per_class_before
    groups: list[dict[str, Any]]  # split, group, class, n, n_train, accuracy, accuracy_before
    seconds: float  # this method's own: selection, refit, test
    seconds_total: float  # with the stages it shares with other methods
    annotator: str = ""  # who decided which concepts confound; "simulated: …" where no person did; "" nobody had to
    asks_for: str = ""  # what its repair uses beyond labelled images: "concept images", "groups of audit" …
    label: str = ""  # a nicer name than `method`
    overrides: list[str] = field(default_factory=list)
    description: str = ""  # of the benchmark
    confounders: list[dict[str, Any]] = field(default_factory=list)  # class, kind, value, p
    shortfalls: dict[str, int] = field(default_factory=dict)  # class: images that K lacked
    split_sizes: dict[str, int] = field(default_factory=dict)
    stage_seconds: dict[str, float] = field(default_factory=dict)
    stage_reused: dict[str, bool] = field(default_factory=dict)
    peak_memory_mb: float | None = None
    updates: int | None = None
    started: str = ""  # ISO 8601
    finished: str = ""
    aaca_version: str = ""
    identity: str = ""  # hash of config, dataset listing and code: a run of an equal one need not be repeated
    status: str = "ok"
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        self.label = self.label or self.method

    def to_json(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Any) -> "Outcome":
        """Check and convert what `to_json` gave. Raises `DataError` naming the first wrong field."""
        if not isinstance(fields, dict) or fields.get("schema") != SCHEMA:
            found = fields.get("schema") if isinstance(fields, dict) else type(fields).__name__
            raise DataError(f"outcome: schema is {found!r}; this version reads schema {SCHEMA}")
        try:
            return TypeAdapter(cls).validate_python(fields)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise DataError(f"outcome: field {where!r}: {first['msg']}") from error

    @classmethod
    def load(cls, run_dir: Path) -> "Outcome":
        """Read `outcome.json` of a run folder. Raises `DataError` naming the file."""
        path = run_dir / FILE
        try:
            return cls.from_json(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, DataError) as error:
            raise DataError(f"{path}: not a readable outcome ({error})") from error

    def save(self, run_dir: Path) -> None:
        """Write `outcome.json` into a run folder, atomically."""
        write_json(run_dir / FILE, self.to_json())


def groups_of(frame: pd.DataFrame, classes: list[str] | tuple[str, ...]) -> pd.Series:
    """Group of each row of an image table or of predictions; the class name where the group is unknown ("")."""
    names = np.asarray(classes, dtype=object)[frame["label"].to_numpy(dtype=np.int64)]
    groups = frame["group"].fillna("").to_numpy(dtype=object)
    return pd.Series(np.where(groups == "", names, groups), index=frame.index, dtype=object)


def worst_group(groups: pd.Series, correct: pd.Series) -> tuple[str, float, int]:
    """Name, accuracy and size of the group with the lowest accuracy; ties go to the first name."""
    cells = correct.groupby(groups.to_numpy()).agg(["mean", "size"]).sort_index()
    name = cells["mean"].idxmin()
    return str(name), float(cells.loc[name, "mean"]), int(cells.loc[name, "size"])


def train_weighted(groups: pd.Series, labels: pd.Series, correct: pd.Series, train_groups: pd.Series) -> float:
    """Σ_g w_train(g) · accuracy_test(g), the weights renormalised over the groups that `test` has.

    `labels` are class names; they take the groups' place when no group of `test` occurs in `train` (train groups
    unknown, so that `train_groups` holds class names). This is the "mean accuracy" of the Waterbirds literature.
    Raises `DataError` when neither occurs.
    """
    counts = train_groups.value_counts()
    for cells in (groups, labels):
        accuracy = correct.groupby(cells.to_numpy()).mean()
        weights = counts.reindex(accuracy.index, fill_value=0).to_numpy(dtype=float)
        if weights.sum() > 0:
            return float(weights @ accuracy.to_numpy() / weights.sum())
    raise DataError("outcome: no group and no class of test occurs in train_groups; expected groups_of(train, classes)")


def _accuracies(
    test: pd.DataFrame, column: str, headline: pd.Series, classes: list[str], train: pd.Series
) -> dict[str, Any]:
    correct = (test[column] == test["label"]).astype(float)
    groups = groups_of(test, classes)
    names = pd.Series(np.asarray(classes, dtype=object)[test["label"].to_numpy(dtype=np.int64)], index=test.index)
    worst, worst_accuracy, worst_n = worst_group(groups, correct)
    return {
        "accuracy": float(correct[headline].mean()),
        "worst_group_accuracy": worst_accuracy,
        "worst_group": worst,
        "worst_group_n": worst_n,
        "mean_accuracy_train_weighted": train_weighted(groups, names, correct, train),
    }


def _slice(rows: pd.DataFrame, classes: list[str]) -> dict[str, Any]:
    before, after = rows["before"] == rows["label"], rows["after"] == rows["label"]
    by_class = {classes[label]: part.index for label, part in rows.groupby("label")}
    return {
        "n": len(rows),
        "accuracy": float(after.mean()),
        "accuracy_before": float(before.mean()),
        "per_class": {name: float(after[index].mean()) for name, index in by_class.items()},
        "per_class_before": {name: float(before[index].mean()) for name, index in by_class.items()},
    }


def _groups(frame: pd.DataFrame, classes: list[str], train: pd.Series) -> list[dict[str, Any]]:
    counts = train.value_counts()
    rows = []
    keys = [frame["split"].to_numpy(), groups_of(frame, classes).to_numpy(), frame["label"].to_numpy()]
    for (split, group, label), part in frame.groupby(keys):
        rows.append(
            {
                "split": split,
                "group": group,
                "class": classes[label],
                "n": len(part),
                "n_train": int(counts.get(group, 0)),
                "accuracy": float((part["after"] == part["label"]).mean()),
                "accuracy_before": float((part["before"] == part["label"]).mean()),
            }
        )
    return rows


def summarise(
    predictions: pd.DataFrame, train_groups: pd.Series, classes: list[str] | tuple[str, ...], headline_slice: str
) -> dict[str, Any]:
    """All numbers of an `Outcome` from its predictions (one row a test image; see the columns below).

    `predictions`: id, label, group, slice, split, source, before, after (labels as class indices).
    `train_groups`: the group of each *train* image, as `groups_of` gives it (class name where unknown).
    `accuracy` is the plain mean over `headline_slice` of split `test` ("all": the whole split); worst group, both kinds
    of change and the train-weighted mean are over the whole split `test`, pooled over slices. A group of a single
    image counts. Raises `DataError` when the split or the slice is empty.
    """
    names = list(classes)
    test = predictions[predictions["split"] == "test"]
    headline = pd.Series(True, index=test.index) if headline_slice == "all" else test["slice"] == headline_slice
    if not headline.any():
        raise DataError(f"outcome: no prediction in split 'test', slice {headline_slice!r}; expected at least one")
    wrong_before, wrong_after = test["before"] != test["label"], test["after"] != test["label"]
    repaired = int((wrong_before & ~wrong_after).sum())
    slices = {f"{split}/{part}": _slice(rows, names) for (split, part), rows in predictions.groupby(["split", "slice"])}
    return {
        "n_test": len(test),
        **_accuracies(test, "after", headline, names, train_groups),
        "repaired": repaired,
        "newly_broken": int((~wrong_before & wrong_after).sum()),
        "wrong_before": int(wrong_before.sum()),
        "repair_rate": repaired / int(wrong_before.sum()) if wrong_before.any() else None,
        "before": _accuracies(test, "before", headline, names, train_groups),
        "slices": slices,
        "groups": _groups(predictions, names, train_groups),
    }
