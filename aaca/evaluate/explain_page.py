"""The page of a concept bottleneck: what each class is told by, why single images, what changes without a concept."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from aaca.evaluate.debugset_page import data_uri
from aaca.evaluate.examples import contact_sheet
from aaca.evaluate.explain import REST
from aaca.evaluate.explain_figures import cluster_images, plain
from aaca.evaluate.explain_sets import Clusters
from aaca.runtime.errors import DataError
from aaca.runtime.files import write_text

FILE = "explanations.html"
MOST_CLASSES, MOST_CLUSTERS, MOST_BARS = 60, 24, 6
LARGE, SMALL = 144, 72  # pixels of a tile's side
SCORES = ("accuracy", "balanced_accuracy", "worst_group_accuracy")


@dataclass(frozen=True)
class Explanations:
    """What the page shows: tables of `explain` and `explain_sets` of one probe on one set of images.

    `labels`, `predictions` `[N]`: class indices. `nec`: mean non-zero weights a class. `live`: latents that fire at
    all, of `latents`. `local`: one class an image, or several (the predicted and the true one). `interventions`:
    columns name, latents (how many) and the three of `SCORES` in [0, 1]; the first row is before any. `image`: row →
    `[S, S, 3]` uint8.
    """

    title: str
    classes: Sequence[str]
    labels: np.ndarray
    predictions: np.ndarray
    nec: float
    live: int
    latents: int
    contributions: pd.DataFrame
    strengths: pd.DataFrame
    local: pd.DataFrame
    image: Callable[[int], np.ndarray]
    clusters: Clusters | None = None
    interventions: pd.DataFrame | None = None


def write_explanations(folder: Path, view: Explanations) -> Path:
    """Write `explanations.html`, one file with everything in it. Raises `DataError` for tables that do not fit."""
    if len(view.labels) != len(view.predictions) or not len(view.labels):
        raise DataError(
            f"explanations: {len(view.labels)} labels, {len(view.predictions)} predictions; expected as many"
        )
    right = view.labels == view.predictions
    classes = _classes(view, right)
    examples = _examples(view)
    environment = Environment(loader=PackageLoader("aaca.evaluate", "."), autoescape=True, undefined=StrictUndefined)
    html = environment.get_template("explain.html.j2").render(
        view=view,
        images=len(right),
        accuracy=float(right.mean()),
        classes=classes[:MOST_CLASSES],
        more_classes=max(0, len(classes) - MOST_CLASSES),
        examples={kind: [one for one in examples if one["kind"] == kind] for kind in ("wrong", "right")},
        clusters=_clusters(view),
        more_clusters=_more_clusters(view),
        interventions=_interventions(view.interventions),
        large=LARGE,
        small=SMALL,
    )
    write_text(folder / FILE, html)
    return folder / FILE


def pick_rows(labels: np.ndarray, predictions: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Random images to explain, `[≤ 2 · count]`: at most `count` that are wrong, then as many that are right."""
    rng = np.random.default_rng(seed)
    wrong, right = np.flatnonzero(labels != predictions), np.flatnonzero(labels == predictions)
    return np.concatenate([np.sort(rng.permutation(part)[:count]) for part in (wrong, right)])


def _classes(view: Explanations, right: np.ndarray) -> list[dict[str, Any]]:
    # those it does worst come first
    told, stands = (dict(tuple(frame.groupby("class"))) for frame in (view.contributions, view.strengths))
    found = []
    for label in np.unique(view.labels):
        own = view.labels == label
        found.append(
            {
                "name": view.classes[label],
                "images": int(own.sum()),
                "accuracy": float(right[own].mean()),
                "told": _bars(told[label].head(MOST_BARS), "contribution") if label in told else [],
                "stands": _words(stands[label].head(MOST_BARS)) if label in stands else [],
            }
        )
    return sorted(found, key=lambda row: row["accuracy"])


def _examples(view: Explanations) -> list[dict[str, Any]]:
    found = []
    for row, own in view.local.groupby("image", sort=False):
        true, predicted = int(view.labels[row]), int(view.predictions[row])
        found.append(
            {
                "row": row,
                "uri": _tile(view, row, LARGE),
                "true": view.classes[true],
                "predicted": view.classes[predicted],
                "kind": "right" if true == predicted else "wrong",
                "logits": [
                    {"class": view.classes[label], "bars": _bars(bars.drop_duplicates("rank"), "contribution")}
                    for label, bars in own.groupby("class", sort=False)
                ],
            }
        )
    return found


def _clusters(view: Explanations) -> list[dict[str, Any]]:
    if view.clusters is None:
        return []
    words = [(number, own) for number, own in view.clusters.words.groupby("cluster")][:MOST_CLUSTERS]
    return [
        {
            "images": int(own["images"].iloc[0]),
            "words": _words(own),
            "tiles": [_tile(view, row, SMALL) for row in cluster_images(view.clusters, number)],
        }
        for number, own in words
    ]


def _more_clusters(view: Explanations) -> int:
    return 0 if view.clusters is None else max(0, view.clusters.words["cluster"].nunique() - MOST_CLUSTERS)


def _interventions(frame: pd.DataFrame | None) -> list[dict[str, Any]]:
    # each score with its difference to the first row
    if frame is None or not len(frame):
        return []
    missing = {"name", "latents", *SCORES} - set(frame.columns)
    if missing:
        raise DataError(f"explanations: interventions lack {', '.join(sorted(missing))}")
    first = frame.iloc[0]
    return [
        {
            "name": str(row["name"]),
            "latents": int(row["latents"]),
            "scores": [(float(row[score]), float(row[score] - first[score])) for score in SCORES],
        }
        for _, row in frame.iterrows()
    ]


def _bars(frame: pd.DataFrame, value: str) -> list[dict[str, Any]]:
    # places in per cent of the track, zero where the largest negative bar ends
    values = frame[value].to_numpy()
    low, high = min(values.min(initial=0), 0), max(values.max(initial=0), 0)
    span = (high - low) or 1.0
    return [
        {
            **word,
            "value": float(number),
            "left": float(100 * (min(number, 0) - low) / span),
            "width": float(100 * abs(number) / span),
            "zero": float(-100 * low / span),
            "kind": "rest" if word["latent"] == REST else "good" if number >= 0 else "bad",
        }
        for word, number in zip(_words(frame), values, strict=True)
    ]


def _words(frame: pd.DataFrame) -> list[dict[str, Any]]:
    pairs: Iterable[tuple[int, str]] = zip(frame["latent"], frame["name"], strict=True)
    return [{"latent": int(latent), "name": "all others" if latent == REST else plain(name)} for latent, name in pairs]


def _tile(view: Explanations, row: int, size: int) -> str:
    return data_uri(contact_sheet([[view.image(int(row))]], size))
