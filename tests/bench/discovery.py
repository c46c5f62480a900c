"""What finding out why costs: a map beside a forward and a backward pass; evidence of many images and concepts.

python tests/bench/discovery.py [images] [rounds]
"""

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from aaca.discover.attribution.grad_attn import GradAttention
from aaca.discover.concepts.table import ConceptTable
from aaca.discover.evidence import Audited, EvidenceRules, evidence_of
from aaca.models.timm_model import TimmModel

BATCH = 50


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def maps(images: int, rounds: int) -> None:
    """`grad_attn` of one class against a forward and a backward pass to all weights, in turn."""
    shape = {"patch_size": 8, "embed_dim": 96, "depth": 4, "num_heads": 4}
    model = TimmModel("vit_tiny_patch16_224", 64, kwargs=shape).build(4).eval()
    batches = torch.randn(images, 3, 64, 64).split(BATCH)
    targets = torch.zeros(BATCH, 1, dtype=torch.long)

    def both() -> None:
        for batch in batches:
            model.zero_grad()
            model(batch)[:, 0].sum().backward()

    def ours() -> None:
        for batch in batches:
            GradAttention().maps(model, batch, targets[: len(batch)])

    ours(), both()
    pairs = [(seconds(both), seconds(ours)) for _ in range(rounds)]
    ratios = [mine / theirs for theirs, mine in pairs]
    print(f"{images} images: forward and backward {pairs[0][0]:.2f} s, grad_attn {pairs[0][1]:.2f} s;", end=" ")
    print(f"median ratio {statistics.median(ratios):.2f} ({min(ratios):.2f}…{max(ratios):.2f})")


def evidence(images: int, concepts: int, per_image: int = 10, classes: int = 12) -> None:
    """Statistics of `images` images with masks of `per_image` of `concepts` concepts each, `classes` classes."""
    rng = np.random.default_rng(0)
    rows = np.repeat(np.arange(images), per_image)
    names = [f"concept {number}" for number in rng.integers(0, concepts, len(rows))]
    masks = (rng.random((len(rows), 14, 14)) < 0.1).astype(np.float16)
    table = ConceptTable.build(rows.tolist(), names, ["object"] * len(rows), masks, images, (14, 14))
    labels = rng.integers(0, classes, images)
    predictions = np.where(rng.random(images) < 0.3, rng.integers(0, classes, images), labels)
    relevance = rng.random((images, 2, 14, 14)).astype(np.float16)
    audited = Audited(
        tuple(f"class {number}" for number in range(classes)),
        labels, predictions, rng.random(images), table, relevance, table, labels,
    )  # fmt: skip
    taken = seconds(lambda: evidence_of(audited, EvidenceRules(), 0))
    print(f"evidence of {images} images × {concepts} concepts, {len(rows)} masks, {classes} classes: {taken:.1f} s")


if __name__ == "__main__":
    count, rounds = (int(value) for value in [*sys.argv[1:], *["1000", "5"][len(sys.argv) - 1 :]])
    maps(count, rounds)
    evidence(10_000, 300)
