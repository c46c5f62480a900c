"""Finished runs on disk: finding them, reading them, and telling which of them may be compared."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from aaca.evaluate.outcome import FILE, PREDICTIONS, Outcome, groups_of
from aaca.runtime.errors import AacaError, DataError
from aaca.runtime.failures import Failure, failure_in
from aaca.runtime.files import digest

GROUP = "group:"
"""Prefix of the cells that are groups of split `test`."""

_SAME_METHOD = {"seed", "method", "size", "dataset", "model", "recipe", "init", "per_class", "selection_rule", "label"}
_ELSEWHERE = {"paths", "logger", "hydra", "trainer", "wandb", "study"}
_SETTING = {"dataset", "model", "recipe"}
_COLUMNS = ["id", "label", "group", "slice", "split", "source", "before", "after"]


@dataclass(frozen=True)
class Cells:
    """A run's predictions reduced to sums by source: all that intervals need, small for any test set.

    A cell is a set of images: `accuracy` (the headline slice), `<split>_<slice>`, `group:<name>` (split `test`).
    """

    names: tuple[str, ...]  # C cells
    sources: np.ndarray  # [S] names; an image without a source is its own
    counts: np.ndarray  # [S, C] images
    before: np.ndarray  # [S, C] right predictions of f0
    after: np.ndarray  # [S, C] right predictions of the repaired classifier
    images: str  # digest of the test images' ids and labels: equal means the same test set
    headline: np.ndarray  # [N] bool, right after, headline images in order of id


@dataclass(frozen=True)
class Run:
    """One finished run; `name` tells its method from the others of its setting."""

    folder: Path
    outcome: Outcome
    cells: Cells
    name: str

    @property
    def metrics(self) -> dict[str, float]:
        """Accuracies of the repaired classifier by metric name; slices as `<split>_<slice>`."""
        outcome = self.outcome
        slices = {name.replace("/", "_"): float(values["accuracy"]) for name, values in outcome.slices.items()}
        return {
            "accuracy": outcome.accuracy,
            "worst_group_accuracy": outcome.worst_group_accuracy,
            "mean_accuracy_train_weighted": outcome.mean_accuracy_train_weighted,
            **slices,
        }

    @property
    def metrics_before(self) -> dict[str, float]:
        """The same metrics of f0."""
        before, slices = self.outcome.before, self.outcome.slices
        heads = ("accuracy", "worst_group_accuracy", "mean_accuracy_train_weighted")
        return {
            **{name: float(before[name]) for name in heads},
            **{name.replace("/", "_"): float(values["accuracy_before"]) for name, values in slices.items()},
        }


def reduce_predictions(frame: pd.DataFrame, classes: list[str], headline_slice: str) -> Cells:
    """Sums by source for every cell of a predictions frame."""
    frame = frame.sort_values("id", kind="stable").reset_index(drop=True)
    own = frame["source"].fillna("").to_numpy(dtype=object)
    sources, index = np.unique(np.where(own == "", frame["id"].to_numpy(dtype=object), own), return_inverse=True)
    test = (frame["split"] == "test").to_numpy()
    headline = test if headline_slice == "all" else test & (frame["slice"] == headline_slice).to_numpy()
    part = (frame["split"] + "_" + frame["slice"]).to_numpy(dtype=object)
    group = groups_of(frame, classes).to_numpy(dtype=object)
    masks = {"accuracy": headline}
    masks |= {str(name): part == name for name in np.unique(part)}
    masks |= {f"{GROUP}{name}": test & (group == name) for name in np.unique(group[test])}
    right = {name: (frame[name] == frame["label"]).to_numpy() for name in ("before", "after")}

    def by_source(weights: np.ndarray) -> np.ndarray:
        columns = [np.bincount(index, weights=mask * weights, minlength=len(sources)) for mask in masks.values()]
        return np.stack(columns, axis=1)

    images = digest([list(map(str, frame["id"][test])), frame["label"][test].tolist()])
    counts, before, after = by_source(np.ones(len(frame))), by_source(right["before"]), by_source(right["after"])
    return Cells(tuple(masks), sources.astype(str), counts, before, after, images, right["after"][headline])


def load_run(folder: Path) -> Run:
    """Read one run folder. Raises `DataError` naming the file that cannot be used."""
    outcome = Outcome.load(folder)
    if outcome.status != "ok":
        raise DataError(f"{folder / FILE}: status is {outcome.status!r}, expected 'ok'")
    path = folder / PREDICTIONS
    try:
        frame = pd.read_parquet(path, columns=_COLUMNS)
        cells = reduce_predictions(frame, outcome.classes, outcome.headline_slice)
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise DataError(f"{path}: not readable predictions ({' '.join(str(error).split())})") from error
    found = float(cells.after[:, 0].sum() / max(cells.counts[:, 0].sum(), 1))
    if abs(found - outcome.accuracy) > 1e-6:
        raise DataError(f"{path}: its accuracy is {found:.4f}, but {FILE} says {outcome.accuracy:.4f}")
    return Run(folder, outcome, cells, outcome.label)


def find_runs(where: Path | Sequence[Path]) -> tuple[list[Run], list[Failure], list[str]]:
    """Readable runs below `<root>/runs/` (or in these folders), the newest of equal keys; failed ones; notes.

    A note says of every other folder why it was left out. A run whose latest attempt failed is no failure: what an
    earlier one published counts, and a note says so. Raises `AacaError` when there is no readable run.
    """
    folders = sorted(where.glob("runs/[!.]*/")) if isinstance(where, Path) else [Path(folder) for folder in where]
    runs: list[Run] = []
    notes: list[str] = []
    attempts = [failure for folder in folders if (failure := failure_in(folder)) is not None]
    failed = [failure for failure in attempts if not (Path(failure.folder) / FILE).is_file()]
    again = [failure for failure in attempts if failure not in failed]
    notes += [f"{Path(failure.folder).name}: its latest attempt failed ({failure.reason})" for failure in again]
    missing = {failure.folder for failure in failed}
    unfinished = [folder for folder in folders if not (folder / FILE).is_file() and str(folder) not in missing]
    for folder in folders:
        if folder in unfinished or str(folder) in missing:
            continue
        try:
            runs.append(load_run(folder))
        except DataError as error:
            notes.append(f"left out: {error}")
    if unfinished:
        notes.append(f"left out: {len(unfinished)} run folder(s) without {FILE} (unfinished), e.g. {unfinished[0]}")
    if not runs:
        place = f"{where / 'runs'}" if isinstance(where, Path) else f"{len(folders)} given folder(s)"
        root = f" paths.root={where}" if isinstance(where, Path) else ""
        reasons = [f"{len(failed)} failed, e.g. {failed[0].reason}"] if failed else notes
        why = f" ({reasons[0]})" if reasons else ""
        command = "aaca debug -m method=none,duplicate,s_random,s_similarity,s_active_learning seed=0,1,2"
        raise AacaError(f"paths.root: no finished run in {place}{why}; runs are made by: {command}{root}")
    return _newest(runs, lambda run: run.outcome.key, "the same key")[0], failed, notes


def _newest(runs: Iterable[Run], same: Callable[[Run], object], why: str) -> tuple[list[Run], list[str]]:
    kept: dict[object, Run] = {}
    notes = []
    for run in sorted(runs, key=lambda run: (run.outcome.finished, run.folder.name)):
        older = kept.pop(same(run), None)
        if older is not None:
            notes.append(f"left out: {older.folder} ({why} as the newer {run.folder.name})")
        kept[same(run)] = run
    return sorted(kept.values(), key=lambda run: (run.name, run.outcome.seed, run.folder.name)), notes


def setting_of(outcome: Outcome) -> dict[str, str]:
    """What runs must share for their numbers to stand in one table."""
    fields = ("dataset", "model", "size", "recipe", "selection_rule", "headline_slice")
    changes = sorted(
        text for text in outcome.overrides if _key(text).partition(".")[0] in _SETTING and "." in _key(text)
    )
    named = {name: str(getattr(outcome, name)) for name in fields}
    return {**named, "changes": " ".join(changes), "classes": digest(outcome.classes)[:8]}


def by_setting(runs: list[Run]) -> list[tuple[dict[str, str], list[Run], list[str]]]:
    """Runs of equal setting together: (setting, runs with names that tell variants apart, notes)."""
    parts: dict[tuple[str, ...], list[Run]] = defaultdict(list)
    for run in runs:
        parts[tuple(setting_of(run.outcome).values())].append(run)
    settings = []
    for members in parts.values():
        kept, notes = _newest(_named(members), lambda run: (run.name, run.outcome.seed), "same method and seed")
        settings.append((setting_of(members[0].outcome), kept, notes))
    return settings


def _named(runs: list[Run]) -> list[Run]:
    # Runs of one label that differ in K, in the start of the refit or in another override are different methods.
    labels: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        labels[run.outcome.label].append(run)
    named = []
    for label, members in labels.items():
        several_k = len({run.outcome.per_class for run in members}) > 1
        several_init = len({run.outcome.init for run in members}) > 1
        common = set.intersection(*(_telling(run.outcome) for run in members))
        for run in members:
            tags = [f"K={run.outcome.per_class}"] * several_k + [f"init={run.outcome.init}"] * several_init
            tags += sorted(_telling(run.outcome) - common)
            named.append(replace(run, name=f"{label} ({', '.join(tags)})" if tags else label))
    return named


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def _telling(outcome: Outcome) -> set[str]:
    # Overrides that make a method another one; those that make another setting are in `setting_of`.
    return {
        text
        for text in outcome.overrides
        if _key(text).split(".")[-1] not in _SAME_METHOD
        and _key(text).split(".")[0].split("/")[0] not in _ELSEWHERE | _SETTING
    }
