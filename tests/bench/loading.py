"""What an epoch over embeddings costs beside a DataLoader: the same rows, shuffled anew, in turn, as a ratio.

python tests/bench/loading.py [rows] [rounds]
"""

import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

from aaca.data.embedding_batches import EmbeddingBatches
from aaca.data.embedding_writer import store_of_array

BATCH, DIM = 2048, 512


def seconds(batches: Iterable[object]) -> float:
    began = time.perf_counter()
    for _ in batches:
        pass
    return time.perf_counter() - began


def main(rows: int, rounds: int) -> None:
    vectors = np.random.default_rng(0).standard_normal((rows, DIM), dtype=np.float32)
    loader = DataLoader(TensorDataset(torch.from_numpy(vectors)), batch_size=BATCH, shuffle=True)
    with tempfile.TemporaryDirectory() as folder:
        store = store_of_array(Path(folder), vectors)
        ours = {
            "global shuffle from memory": EmbeddingBatches(store, BATCH, resident="memory", drop_last=False),
            "global shuffle from the map": EmbeddingBatches(store, BATCH, resident="no", drop_last=False),
            "block shuffle from disk": EmbeddingBatches(
                store, BATCH, "block", block_rows=16_384, resident="no", drop_last=False
            ),
        }
        times: dict[str, list[float]] = {name: [] for name in ("DataLoader", *ours)}
        for epoch in range(rounds):
            times["DataLoader"].append(seconds(loader))
            for name, batches in ours.items():
                times[name].append(seconds(batches.epoch(epoch)))
    best = {name: min(taken) for name, taken in times.items()}
    print(f"{rows} x {DIM} float32, batches of {BATCH}, best of {rounds} epochs: DataLoader {best['DataLoader']:.3f} s")
    for name in ours:
        print(f"{name}: {best[name]:.3f} s, {best['DataLoader'] / best[name]:.1f}x")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]) if len(sys.argv) == 3 else (200_000, 5))
