"""Whether the neurons that an inspection lists are those of a planted confounder, where one is known."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from aaca.concepts.concept_sets import normal
from aaca.discover.neurons.inspect import Inspection
from aaca.discover.neurons.responses import Responses, score

FIRST = 5


def found_table(
    inspection: Inspection, responses: Responses, confounders: Sequence[Mapping[str, Any]], least_score: float
) -> pd.DataFrame:
    """A row a planted confounder and list that should show it: how many of the first `FIRST` neurons respond to it.

    The class that has it counts on it, so its mistakes lack it (insufficient); mistakes of another class that are taken
    for that class mostly have too much of it (excessive). `chance`: share of all neurons that respond to it.
    """
    scores, names = score(responses), [normal(name) for name in responses.names]
    rows = []
    for planted in confounders:
        value = normal(str(planted["value"]))
        if value not in names:
            continue
        respond = scores[:, names.index(value)] >= least_score
        for report in inspection.reports:
            main = next(iter(report.rivals), "")
            kind = (
                "insufficient" if report.name == planted["class"] else "excessive" if main == planted["class"] else ""
            )
            if not kind:
                continue
            listed = [row.neuron for row in getattr(report, kind)[:FIRST]]
            rows.append(
                {
                    "confounder": f"{planted['class']}: {planted['value']}",
                    "mistakes of": report.name,
                    "list": kind,
                    "listed": len(listed),
                    "hits": int(respond[listed].sum()),
                    "precision": float(respond[listed].mean()) if listed else np.nan,
                    "chance": float(respond.mean()),
                }
            )
    columns = ["confounder", "mistakes of", "list", "listed", "hits", "precision", "chance"]
    return pd.DataFrame(rows, columns=columns)
