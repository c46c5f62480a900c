"""From a pool and a selector to a debug set: class by class, K each, the shortfalls named."""

import logging
from typing import Literal, get_args

import numpy as np
import pandas as pd

from aaca.data.features import Scored
from aaca.data.table import ImageTable
from aaca.debugset.debug_set import DebugSet
from aaca.debugset.quotas import Quotas
from aaca.debugset.selectors.base import Selection, SelectionContext, Selector
from aaca.runtime.errors import ConfigError, DataError, nearest

log = logging.getLogger(__name__)
Fill = Literal["none", "random", "repeat", "fail"]


def select_debug_set(
    selector: Selector,
    candidates: Scored,
    candidate_table: ImageTable,
    audit: Scored,
    train: Scored | None,
    per_class: int,
    seed: int,
    fill: Fill = "none",
    quotas: Quotas | None = None,
) -> DebugSet:
    """Let `selector` pick `per_class` candidates of every class.

    Failures are the audit images predicted wrongly, by their true class. A class with fewer candidates than `per_class`
    gives all it has (logged, and kept in `shortfalls`). `fill` then tops it up: `repeat` with the picked ones again,
    best first; `random` with candidates that were not picked, if any, then with all again in random rounds; `fail`
    gives up (`DataError`). With `quotas` the selector picks group by group. Raises `ConfigError` on an impossible
    argument, `DataError` if no class has a candidate.
    """
    _check(per_class, seed, fill, selector, train)
    classes = candidate_table.classes
    labels, audit_labels, audit_wrong = candidates.labels, audit.labels, audit.predictions != audit.labels
    rows: list[pd.DataFrame] = []
    shortfalls: dict[str, int] = {}
    for label, name in enumerate(classes):
        pool = candidates.take(labels == label)
        of_class = audit_labels == label
        seed_select, seed_fill = _seeds(seed, label)
        context = SelectionContext(
            label=label,
            failures=audit.take(of_class & audit_wrong),
            audit=audit.take(of_class),
            train=None if train is None else train.take(train.labels == label),
            seed=seed_select,
            class_name=name,
        )
        picked = Selection(np.empty(0, int), np.empty(0))
        if len(pool):
            chosen = quotas.select(selector, pool, context, per_class) if quotas else None
            picked = chosen or selector.select(pool, context, per_class)
        missing = per_class - len(picked.positions)
        if missing:
            if fill == "fail":
                raise DataError(
                    f"class {name!r}: {len(picked.positions)} candidates of {per_class} wanted, and "
                    "debugset.fill=fail; raise debugset.oversample, loosen the filters, or take what there is with "
                    "debugset.fill=none"
                )
            shortfalls[name] = missing
            log.warning("class %r: %d candidates picked of %d wanted", name, len(picked.positions), per_class)
            picked = _filled(picked, pool, per_class, fill, seed_fill)
        if not len(picked.positions):
            continue
        ids = [pool.ids_all[row] for row in pool.rows[picked.positions]]
        ranks = np.arange(1, len(ids) + 1)
        rows.append(pd.DataFrame({"origin_id": ids, "score": picked.scores, "rank": ranks, "label": label}))
    if not rows:
        raise DataError(
            f"no class has a candidate to select from ({len(candidates)} candidates, {len(classes)} classes)"
        )
    return DebugSet(_table_of(pd.concat(rows, ignore_index=True), candidate_table), shortfalls)


def _check(per_class: int, seed: int, fill: str, selector: Selector, train: Scored | None) -> None:
    if per_class < 1:
        raise ConfigError(f"debugset.per_class: {per_class} images a class; expected 1 or more")
    if seed < 0:
        raise ConfigError(f"seed: {seed}; expected 0 or more")
    if fill not in get_args(Fill):
        raise ConfigError(f"debugset.fill: {fill!r}; {nearest(fill, get_args(Fill))}")
    if selector.needs_train and train is None:
        raise DataError(
            f"selector {type(selector).__name__} needs the features of the training images; none were given"
        )


def _seeds(seed: int, label: int) -> tuple[int, int]:
    """One seed for the class's selection and one for its filling, independent of each other and of other classes."""
    state = np.random.SeedSequence((seed, label)).generate_state(2, np.uint32)
    return int(state[0]), int(state[1])


def _filled(picked: Selection, pool: Scored, k: int, fill: str, seed: int) -> Selection:
    """The selection topped up to k; as it is for `none`, `fail` and for a class without candidates."""
    positions, scores = picked.positions, picked.scores
    if fill in ("none", "fail") or not len(pool):
        return picked
    generator = np.random.default_rng(seed)
    if fill == "random":
        order = np.array(sorted(range(len(pool)), key=pool.ids.__getitem__))  # the draw does not depend on row order
        rest = generator.permutation(order[~np.isin(order, positions)])[: k - len(positions)]
        positions = np.concatenate([positions, rest])
        scores = np.concatenate([scores, np.full(len(rest), np.nan)])
    again = np.arange(len(positions))
    rounds = [again]
    while sum(map(len, rounds)) < k and len(again):
        rounds.append(generator.permutation(again) if fill == "random" else again)
    chosen = np.concatenate(rounds)[:k]
    return Selection(positions[chosen], scores[chosen])


def _table_of(picks: pd.DataFrame, candidate_table: ImageTable) -> ImageTable:
    """The picked rows of the pool's table: absolute paths, and an id of its own for every row, repeats included."""
    pool = candidate_table.frame
    pool = pool[pool["id"].isin(picks["origin_id"])]
    place = pd.Series(np.arange(len(pool)), index=pool["id"])
    unknown = picks["origin_id"][~picks["origin_id"].isin(place.index)]
    if len(unknown):
        raise DataError(f"candidate {unknown.iloc[0]!r} has features but is not in the table of candidates")
    frame = pool.iloc[place[picks["origin_id"]].to_numpy()].reset_index(drop=True)
    wrong = np.flatnonzero(frame["label"].to_numpy() != picks["label"].to_numpy())
    if len(wrong):
        raise DataError(f"candidate {frame['id'][wrong[0]]!r} has another label in its features than in the table")
    times = picks.groupby("origin_id").cumcount() + 1
    suffix = times.map(lambda time: "" if time == 1 else f"#{time}")
    frame = frame.assign(
        id="debug/" + picks["origin_id"].astype(str) + suffix,
        path=[str((candidate_table.root / str(path)).absolute()) for path in frame["path"]],
        score=picks["score"],
        rank=picks["rank"],
        origin_id=picks["origin_id"],
        provenance=frame.get("provenance", "real"),
    )
    return ImageTable.build(frame, candidate_table.classes)
