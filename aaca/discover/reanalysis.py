"""After the repair: the same images, the same concepts. What was repaired, what broke, where the model looks now."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from aaca.concepts.concept_sets import ConceptSets, normal

COLUMNS = {
    "class": "true class of the images",
    "concept": "what is in them",
    "verdict": "confounded or valid, by the concept sets",
    "images": "audit images of the class that show it",
    "accuracy_before": "share of these that f0 gets right",
    "accuracy_after": "the same of the repaired classifier",
    "repaired": "wrong before, right after",
    "newly_broken": "right before, wrong after",
    "share_before": "mean relevance for f0's prediction that lies on the concept (NaN without places)",
    "share_after": "the same of the repaired classifier, for its own prediction",
}
"""The columns of the table, in words."""


@dataclass(frozen=True)
class Looks:
    """What a classifier says and where it looks: predictions `[N]`, relevance on each concept `[N, C]`."""

    predictions: np.ndarray
    shares: np.ndarray


def reanalyse(
    classes: tuple[str, ...],
    labels: np.ndarray,
    names: list[str],
    present: np.ndarray,
    sets: ConceptSets,
    before: Looks,
    after: Looks,
) -> pd.DataFrame:
    """One row a class and concept of its sets, with the columns of `COLUMNS`. `present`: bool `[N, C]`."""
    places = {normal(name): column for column, name in enumerate(names)}
    rows = []
    for label, name in enumerate(classes):
        own = sets.of(name)
        for verdict, concepts in (("confounded", own.confounded), ("valid", own.valid)):
            for concept in concepts:
                if normal(concept.name) not in places:
                    continue  # named by people, seen by no concept source
                column = places[normal(concept.name)]
                images = np.flatnonzero((labels == label) & present[:, column])
                if not len(images):
                    continue
                right = [looks.predictions[images] == label for looks in (before, after)]
                rows.append(
                    {
                        "class": name,
                        "concept": concept.name,
                        "verdict": verdict,
                        "images": len(images),
                        "accuracy_before": right[0].mean(),
                        "accuracy_after": right[1].mean(),
                        "repaired": int((~right[0] & right[1]).sum()),
                        "newly_broken": int((right[0] & ~right[1]).sum()),
                        "share_before": before.shares[images, column].mean(),
                        "share_after": after.shares[images, column].mean(),
                    }
                )
    return pd.DataFrame(rows, columns=list(COLUMNS))
