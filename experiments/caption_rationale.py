"""Does a captioner leave alone what nobody asked for? Graphs of test with foreign objects: captions and leaks."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from aaca.data.scenegraph.batch import GraphBatch, collate
from aaca.data.scenegraph.store import PackedGraphs
from aaca.data.scenegraph.united import rationale_of
from aaca.models.captioner.captioner import GraphCaptioner
from aaca.runtime.seeding import purpose_seed
from aaca.runtime.stages import Stage
from aaca.training import align_losses
from aaca.training.captioning import teach

from .caption_run import CaptionRun, named
from .caption_stages import rationale_by_row

MOST = 500
"""Graphs whose attention and attribution are looked at."""


def foreign_figures(run: CaptionRun, fitted: Stage, model: GraphCaptioner, test: PackedGraphs) -> dict[str, float]:
    """Figures of the captions of test graphs with foreign objects, and `leaks` of the graphs that took some.

    `foreign_<figure>`: of all test captions, against the graphs as annotated; `foreign_graphs`: per cent that took an
    object.
    """
    options, stages = run.options, run.stages
    name = options.graphs.test
    key, united = stages.packed(name, options.rationale.foreign)
    frame = stages.captions(fitted, model, name, united, f"foreign objects, {key}")
    figures = run.figures(test, dict(zip(frame["name"], frame["caption"], strict=True)))
    taken = [row for row, rationale in rationale_by_row(united).items() if not rationale.all()]
    rng = np.random.default_rng(purpose_seed(options.seed, "leaks"))
    rows = sorted(rng.permutation(taken)[:MOST].tolist())
    found = leaks(model, united, rows, options.training.batch_size)
    share = {"foreign_graphs": 100 * len(taken) / len(united)}
    run.table(f"graphs of {name} with foreign objects", pd.DataFrame([named(figures) | share | found]))
    return {f"foreign_{figure}": value for figure, value in figures.items()} | share | found


def leaks(model: GraphCaptioner, source: PackedGraphs, rows: Sequence[int], batch_size: int) -> dict[str, float]:
    """What lies on nodes that are no rationale, per cent, the true words fed in.

    `leak`: of attention, mean over words, and `leak_by_chance`, where all nodes share it; `attribution_leak`: of
    gradient × input, mean over graphs.
    """
    model.eval()
    device = next(model.parameters()).device
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    for start in range(0, len(rows), batch_size):
        own = rows[start : start + batch_size]
        items = [source.item(row) for row in own]
        asked = [torch.from_numpy(rationale_of(item.nodes, source.graph(item.row))) for item in items]
        batch, rationale = collate(items).to(device), pad_sequence(asked, batch_first=True).to(device)
        batch.features.requires_grad_()
        for kind, (total, count) in _leaks(model, batch, rationale).items():
            sums[kind] = sums.get(kind, 0.0) + float(total.detach())
            counts[kind] = counts.get(kind, 0) + int(count)
    return {kind: 100 * sums[kind] / max(1, counts[kind]) for kind in sums}


def _leaks(model: GraphCaptioner, batch: GraphBatch, rationale: Tensor) -> dict[str, align_losses.Mean]:
    log_probs, attention = teach(model, batch)
    even = (batch.mask / batch.mask.sum(dim=1, keepdim=True))[:, None].expand_as(attention)
    return {
        "leak": align_losses.leak(attention, rationale, batch.mask, batch.word_mask),
        "leak_by_chance": align_losses.leak(even, rationale, batch.mask, batch.word_mask),
        "attribution_leak": align_losses.attribution(batch.features, log_probs.sum(), rationale, batch.mask),
    }
