"""What the story of a run tells: the class that the repair changed most, of those that are confounded."""

from typing import Any

import numpy as np
import pandas as pd

from aaca.concepts.concept_sets import ANY, Concept, ConceptSets
from aaca.data.features import Scored
from aaca.data.table import ImageTable
from aaca.debugset.debug_set import DebugSet
from aaca.discover.evidence import MEANINGS
from aaca.discover.reanalysis import COLUMNS
from aaca.evaluate.outcome import Outcome
from aaca.evaluate.story import Drawn, Sight, Story

from .debug_discover import EVIDENCE, REANALYSIS, DiscoverStages

SIGHTS, PICTURES, ROWS = 6, 8, 8
SHOWN = ("rival", "concept", "share", "share_control", "in_failures", "in_controls", "log_odds", "q", "effect", "rho")
SHOWN = (*SHOWN, "S_conf", "S_rely")


def story_of(
    stages: DiscoverStages, sets: ConceptSets, after: Scored, debug: DebugSet | None, outcome: Outcome
) -> Story:
    """Of a run that has looked again at the audit images (after `DiscoverStages.reanalysis`)."""
    before, table = stages.audit, stages.table
    label = _class_of(sets, table, before, after)
    name, own = table.classes[label], table.labels == label
    wrong, wrong_after = (own & (scored.predictions != label) for scored in (before, after))
    taken_for = pd.Series(before.predictions[wrong]).value_counts()
    evidence = pd.read_parquet(stages.kept[EVIDENCE])
    again = pd.read_csv(stages.kept[REANALYSIS])
    concepts = sets.of(name)
    return Story(
        method=outcome.method,
        name=name,
        rival=table.classes[int(taken_for.index[0])] if len(taken_for) else "",
        annotator=str(sets.meta["annotator"]),
        images=int(own.sum()),
        wrong_before=int(wrong.sum()),
        wrong_after=int(wrong_after.sum()),
        repaired=int((wrong & ~wrong_after).sum()),
        broken=int((~wrong & wrong_after).sum()),
        sights=_sights(stages, np.flatnonzero(wrong), after),
        evidence=_rows(_suspicious(evidence, name)),
        meanings={column: MEANINGS[column] for column in SHOWN},
        confounded=[_blame(one) for one in concepts.confounded],
        valid=[one.name for one in concepts.valid],
        drawn=_drawn(debug.table, label) if debug else [],
        again=_rows(again[again["class"] == name].drop(columns="class").head(ROWS)),
        again_meanings={column: meaning for column, meaning in COLUMNS.items() if column != "class"},
        tests=[
            {
                "slice": place,
                "before": numbers["per_class_before"][name],
                "after": numbers["per_class"][name],
            }
            for place, numbers in outcome.slices.items()
            if name in numbers["per_class"]
        ],
    )


def _class_of(sets: ConceptSets, table: ImageTable, before: Scored, after: Scored) -> int:
    # of the confounded classes (of all, where none is) the one with most images repaired, then most failures
    right, right_after = (scored.predictions == table.labels for scored in (before, after))
    confounded = [label for label, name in enumerate(table.classes) if sets.of(name).confounded]

    def change(label: int) -> tuple[int, int]:
        own = table.labels == label
        return int((own & ~right & right_after).sum()), int((own & ~right).sum())

    return max(confounded or range(len(table.classes)), key=change)


def _sights(stages: DiscoverStages, failures: np.ndarray, after: Scored) -> list[Sight]:
    # failures by confidence of f0; half of them, where there are so many, that are right now
    order = failures[np.argsort(-stages.audit.probabilities.max(axis=1)[failures], kind="stable")]
    mended = after.predictions[order] == stages.table.labels[order]
    rows = [*order[mended][: SIGHTS // 2], *order[~mended]][:SIGHTS]
    rows += [row for row in order if row not in rows][: SIGHTS - len(rows)]
    classes = stages.table.classes
    return [
        Sight(
            image=stages.view.of(stages.table.image(int(row))),
            said=classes[stages.audit.predictions[row]],
            says=classes[after.predictions[row]],
            looked=stages.found[0].maps[row, 0],
            looks=stages.maps_after[row, 0],
        )
        for row in rows
    ]


def _suspicious(evidence: pd.DataFrame, name: str) -> pd.DataFrame:
    own = evidence[evidence["class"] == name]
    order = own.assign(most=own[["S_conf", "S_rely"]].max(axis=1)).sort_values(
        ["most", "log_odds"], ascending=False, kind="stable"
    )
    return order.head(ROWS)[list(SHOWN)].replace({"rival": {ANY: "any"}})


def _blame(concept: Concept) -> str:
    if not concept.rival:
        return concept.name
    return f"{concept.name} (makes it say {'another class' if concept.rival == ANY else concept.rival})"


def _drawn(table: ImageTable, label: int) -> list[Drawn]:
    frame = table.frame
    if "prompt" not in frame:
        return []
    own = frame[frame["label"] == label]
    recipes = own["recipe"] if "recipe" in own else pd.Series("", index=own.index)
    return [
        Drawn(
            prompt=str(prompt) + (f" (not: {negative})" if negative else ""),
            recipe=str(recipes[rows.index[0]]),
            taken=len(rows),
            images=[table.image(int(row)) for row in rows.index[:PICTURES]],
        )
        for (prompt, negative), rows in own.groupby(["prompt", "negative"], sort=False)
    ]


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{column: _said(value) for column, value in row.items()} for row in frame.to_dict("records")]


def _said(value: Any) -> str:
    if isinstance(value, float):
        return "–" if np.isnan(value) else f"{value:.3g}"
    return str(value)
