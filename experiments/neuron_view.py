"""From stages to the neuron page: images that neurons answer to, made-up ones, weights before and after."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from aaca.concepts.illusion.mask import neuron_maps
from aaca.data.benchmark import Benchmark
from aaca.data.table import ImageTable
from aaca.data.transforms import EvalTransform, normalise
from aaca.discover.neurons.inspect import ClassReport, Inspection, NeuronRow
from aaca.evaluate.neuron_view import Change, ClassView, NeuronCard, NeuronView, Tile
from aaca.models.classifier import Classifier
from aaca.models.head import FeatureBank, Head

from .neuron_config import PageConfig

WEIGHTS_SHOWN = 5
MOST_NAMED = 12
BATCH = 64
Maps = dict[tuple[int, int], np.ndarray | None]
"""(neuron, row) → where the neuron fires in the image `[h, w]`; None where the model has no maps."""


@dataclass(frozen=True)
class PageParts:
    """What the page is made of. `names`: of neurons. `illusions`: (folder, index). `after`: the edited head."""

    benchmark: Benchmark
    inspection: Inspection
    bank: FeatureBank  # f0 on audit
    classifier: Classifier
    config: PageConfig
    names: pd.DataFrame
    illusions: tuple[Path, pd.DataFrame] | None = None
    after: Head | None = None
    chosen: Mapping[int, Sequence[int]] | None = None  # label → edited neurons
    change: Change | None = None


def view_of(parts: PageParts) -> NeuronView:
    """The whole page, of the audit images."""
    shown = {report.label: _rows(parts, report) for report in parts.inspection.reports}
    pairs = []
    for report in parts.inspection.reports:
        for _, row in shown[report.label]:
            pairs += [
                (row.neuron, image) for image in (*_top(parts, row.neuron), *_mistakes(parts, report, row.neuron))
            ]
    maps = activation_maps(parts.classifier, parts.benchmark.split("audit"), pairs)
    views = [_class(parts, report, shown[report.label], maps) for report in parts.inspection.reports]
    notes = []
    if len(parts.bank.classes) == 2 and parts.inspection.spec["scorer"] == "counterfactual":
        notes.append("With two classes this scorer lists the same neurons whatever the images show (docs/neurons.md).")
    listed = {report.label: {row.neuron for _, row in shown[report.label]} for report in parts.inspection.reports}
    for label, ids in (parts.chosen or {}).items():
        others = [neuron for neuron in ids if neuron not in listed.get(label, set())]
        if others:
            named = ", ".join(f"#{neuron}" for neuron in others[:MOST_NAMED])
            more = f" and {len(others) - MOST_NAMED} more" if len(others) > MOST_NAMED else ""
            notes.append(f"Edited for {parts.bank.classes[label]}, in none of its lists: {named}{more}.")
    return NeuronView(
        title=f"{parts.benchmark.name}: the neurons behind its mistakes",
        scorer=str(parts.inspection.spec["scorer"]),
        neurons=parts.bank.head.neurons,
        classes=views,
        change=parts.change,
        notes=notes,
    )


def activation_maps(classifier: Classifier, table: ImageTable, pairs: Sequence[tuple[int, int]]) -> Maps:
    """Where neurons fire in images of `table`, for (neuron, row) pairs."""
    rows = sorted({row for _, row in pairs})
    wanted: dict[int, set[int]] = {}
    for neuron, row in pairs:
        wanted.setdefault(row, set()).add(neuron)
    found: Maps = {}
    transform, width = EvalTransform(classifier.image_size), Head.of(classifier).neurons
    prefix = int(getattr(classifier.backbone, "num_prefix_tokens", 0))
    classifier.eval()
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        pixels = torch.stack([transform(table.image(row)) for row in part]).float() / 255
        with torch.no_grad():
            features = classifier.backbone.forward_features(normalise(pixels, classifier.mean, classifier.std))
        maps = neuron_maps(features, width, prefix)
        for place, row in enumerate(part):
            for neuron in wanted[row]:
                found[neuron, row] = None if maps is None else maps[place, neuron].float().clamp(min=0).numpy()
    return found


def tiles_of(parts: PageParts, neuron: int, rows: Sequence[int], maps: Maps) -> list[Tile]:
    """Audit images with what the neuron does in them."""
    table, bank = parts.benchmark.split("audit"), parts.bank
    transform, classes = EvalTransform(parts.classifier.image_size), bank.classes
    predictions = bank.predictions
    tiles = []
    for row in rows:
        label, said = int(bank.labels[row]), int(predictions[row])
        caption = classes[label] if label == said else f"{classes[label]}, taken for {classes[said]}"
        image = transform(table.image(row)).permute(1, 2, 0).numpy()
        tiles.append(Tile(image, f"{caption} · {float(bank.features[row, neuron]):.2f}", maps.get((neuron, row))))
    return tiles


def _rows(parts: PageParts, report: ClassReport) -> list[tuple[str, NeuronRow]]:
    # the first of each list, and whatever was edited for this class
    edited = set((parts.chosen or {}).get(report.label, ()))
    found = []
    for name in ("insufficient", "excessive"):
        rows = getattr(report, name)
        found += [(name, row) for rank, row in enumerate(rows) if rank < parts.config.cards or row.neuron in edited]
    return found


def top_rows(features: torch.Tensor, neuron: int, count: int) -> list[int]:
    """The images `[≤ count]` that a neuron answers to most, of features `[N, D]`."""
    values = features[:, neuron]
    return [int(row) for row in values.argsort(descending=True, stable=True)[:count] if values[row] > 0]


def _top(parts: PageParts, neuron: int) -> list[int]:
    return top_rows(parts.bank.features, neuron, parts.config.top)


def _mistakes(parts: PageParts, report: ClassReport, neuron: int) -> list[int]:
    rows = parts.bank.mistakes(report.label)
    order = parts.bank.features[rows, neuron].argsort(descending=True, stable=True)
    return [int(row) for row in rows[order][: parts.config.mistakes]]


def _class(parts: PageParts, report: ClassReport, rows: Sequence[tuple[str, NeuronRow]], maps: Maps) -> ClassView:
    own = parts.bank.labels == report.label
    logits = parts.bank.features[own]
    after = None
    if parts.after is not None:
        after = float((parts.after.logits(logits).argmax(dim=1) == report.label).double().mean())
    return ClassView(
        name=report.name,
        images=report.images,
        mistakes=report.mistakes,
        used=report.used,
        converged=report.converged,
        accuracy=1 - report.mistakes / max(1, report.images),
        accuracy_after=after,
        rivals=list(report.rivals.items()),
        cards=[_card(parts, report, name, row, maps) for name, row in rows],
    )


def _card(parts: PageParts, report: ClassReport, name: str, row: NeuronRow, maps: Maps) -> NeuronCard:
    head, classes = parts.bank.head, parts.bank.classes
    column = head.weight[:, row.neuron]
    order = [report.label, *(int(k) for k in column.abs().argsort(descending=True) if int(k) != report.label)]
    shown = order[:WEIGHTS_SHOWN]
    called = parts.names[parts.names["neuron"] == row.neuron]
    known = called.iloc[0] if len(called) and called.iloc[0]["concept"] else None
    rivals = [classes.index(rival) for rival in report.rivals]
    drawn, dead = _illusions(parts, [report.label] if name == "insufficient" else rivals[:1], row.neuron)
    after = parts.after
    return NeuronCard(
        neuron=row.neuron,
        list=name,
        prec=row.prec,
        importance=row.importance,
        name="" if known is None else str(known["concept"]),
        name_score=None if known is None else float(known["score"]),
        second="" if known is None else str(known["second"]),
        weights={classes[k]: float(column[k]) for k in shown},
        weights_after=None if after is None else {classes[k]: float(after.weight[k, row.neuron]) for k in shown},
        chosen=row.neuron in set((parts.chosen or {}).get(report.label, ())),
        means=(row.mistakes, float("nan") if row.correct is None else row.correct),
        top=tiles_of(parts, row.neuron, _top(parts, row.neuron), maps),
        mistakes=tiles_of(parts, row.neuron, _mistakes(parts, report, row.neuron), maps),
        illusions=drawn,
        quantile=float(torch.quantile(parts.bank.features[:100_000, row.neuron], 0.99)),
        dead=dead,
    )


def _illusions(parts: PageParts, eyes: Sequence[int], neuron: int) -> tuple[list[Tile], bool]:
    # drawn with the eyes of one of these classes, the first that was
    if parts.illusions is None:
        return [], False
    folder, index = parts.illusions
    seen = index[(index["neuron"] == neuron) & ~index["failed"]]
    drawn = [label for label in eyes if (seen["label"] == label).any()]
    own = seen[seen["label"] == drawn[0]] if drawn else seen[:0]
    return [illusion_tile(folder, entry) for _, entry in own.iterrows()], bool(len(own)) and bool(own["dead"].all())


def illusion_tile(folder: Path, entry: "pd.Series[object]") -> Tile:
    """A made-up image, dimmed where its neuron does not fire, and what it does to the network."""
    with Image.open(folder / str(entry["mask"] if pd.notna(entry["mask"]) else entry["image"])) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    said = f"{entry['activation_before']:.2f} → {entry['activation_after']:.2f}, p {entry['probability']:.2f}"
    return Tile(pixels, said + ("" if pd.isna(entry["similarity"]) else f", text {entry['similarity']:.2f}"))
