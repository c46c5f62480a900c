"""A captioner's training step at COCO size beside the plain one, word by word: B = 128, d = 512, F = 2048, V = 10,942.

python tests/bench/captioner.py [rounds] [variant] [profile]

One thread, CPU seconds. `full`: every graph has 10 nodes and every caption 25 tokens, nothing is padding. `typical`:
captions of COCO's lengths (10.5 ± 2.4 words, the longest of 23 in each batch) and smaller graphs. The plain step is
`tests/captioner_reference.py`; both take the same weights, batch, loss and Adam.
"""

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from aaca.data.scenegraph.batch import GraphBatch
from aaca.models.captioner.captioner import GraphCaptioner
from aaca.models.captioner.spec import VARIANTS, CaptionerSpec
from tests.captioner_reference import PlainCaptioner, plain_loss, random_batch

B, LONGEST = 128, 23


def lengths(kind: str) -> list[int]:
    if kind == "full":
        return [LONGEST] * B
    drawn = np.random.default_rng(0).normal(10.5, 2.4, B).round().clip(5, LONGEST).astype(int)
    return [LONGEST, *drawn[1:].tolist()]


def seconds(loss_of: Callable[[GraphBatch], Tensor], optimiser: torch.optim.Optimizer, batch: GraphBatch) -> float:
    began = time.process_time()
    optimiser.zero_grad()
    loss_of(batch).backward()
    optimiser.step()
    return time.process_time() - began


def race(kind: str, variant: str, rounds: int, profiled: bool) -> None:
    spec = CaptionerSpec(words=10_942, **VARIANTS[variant])
    ours, plain = GraphCaptioner(spec), PlainCaptioner(spec)
    plain.load_state_dict(ours.state_dict())
    batch = random_batch(spec, lengths(kind), full=kind == "full")
    sides = [
        (lambda batch: ours.forced(batch).loss(), torch.optim.Adam(ours.parameters(), 2e-4)),
        (
            lambda batch: plain_loss(plain(batch), batch.words, batch.word_mask),
            torch.optim.Adam(plain.parameters(), 2e-4),
        ),
    ]
    pairs = [[seconds(*side, batch) for side in sides] for _ in range(rounds + 1)][1:]
    ratios = [theirs / mine for mine, theirs in pairs]
    mine, theirs = (statistics.median(times) for times in zip(*pairs, strict=True))
    words = int(batch.word_mask.sum())
    print(f"{variant}, {kind}: {words} of {batch.word_mask.numel()} targets, {int(batch.mask.sum())} nodes;", end=" ")
    print(f"plain {theirs:.2f} s, ours {mine:.2f} s a step; {statistics.median(ratios):.2f} times as fast", end=" ")
    print(f"({min(ratios):.2f}…{max(ratios):.2f} of {rounds})", flush=True)
    if profiled:
        for side in sides:
            with torch.profiler.profile() as profile:
                seconds(*side, batch)
            print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=12, max_name_column_width=40))


if __name__ == "__main__":
    torch.set_num_threads(1)
    given = [*sys.argv[1:], *["3", "rgcn_flow_memory", ""][len(sys.argv) - 1 :]]
    for name in ("full", "typical"):
        race(name, given[1], int(given[0]), given[2] == "profile")
