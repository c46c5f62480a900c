"""A pool on disk far larger than what may be in memory: exact top-K, in bounded memory.

Run as a program, this file scores a store in a fresh process and prints what it took, so that nothing the test itself
allocated hides a growth: `python test_selectors_pool.py FOLDER K`.
"""

import heapq
import json
import os
import subprocess
import sys
import threading
import time
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from aaca.data.features import FeatureStore, Scored
from aaca.debugset.selectors.base import SelectionContext
from aaca.debugset.selectors.entropy_distance import EntropyDistance
from aaca.debugset.selectors.nearest_failure import NearestFailure
from aaca.debugset.selectors.random import Random
from aaca.debugset.selectors.similarity import Similarity
from aaca.debugset.selectors.uncertainty import Entropy, LeastConfidence, Margin

DIM, N_CLASSES, PLANTED, SEED = 768, 12, 100, 7
STATUS = Path("/proc/self/status")
SELECTORS = {
    "random": Random(),
    "similarity": Similarity(),
    "entropy": Entropy(),
    "margin": Margin(),
    "least_confidence": LeastConfidence(),
    "nearest_failure": NearestFailure(),
    "entropy_distance": EntropyDistance(),
}


def lay_pool(folder: Path, n: int) -> list[int]:
    """A sparse store of n rows of zeros, sure of class 0; planted rows come closer and get less sure one by one.

    Returns the planted rows, the one that every selector but random has to take first coming first.
    """
    folder.mkdir()
    embeddings = np.lib.format.open_memmap(folder / "embeddings.npy", mode="w+", dtype="float16", shape=(n, DIM))
    logits = np.lib.format.open_memmap(folder / "logits.npy", mode="w+", dtype="float32", shape=(n, N_CLASSES))
    logits[:, 0] = 8.0
    np.lib.format.open_memmap(folder / "written.npy", mode="w+", dtype="uint8", shape=(n,))[:] = 1
    planted = np.random.default_rng(0).choice(n, PLANTED, replace=False)
    embeddings[planted] = 2.0
    embeddings[planted, 0] += np.arange(1, PLANTED + 1) / 64  # exact in float16
    logits[planted, 0] = np.arange(PLANTED) / 64
    index = pd.DataFrame({"id": [f"pool/{row:07d}" for row in range(n)], "label": np.zeros(n, dtype=np.int64)})
    index.to_parquet(folder / "index.parquet", index=False)
    shape = {"rows": n, "dim": DIM, "classes": N_CLASSES, "passes": 1}
    (folder / "store.json").write_text(json.dumps(shape))
    return planted.tolist()


def failures() -> Scored:
    """Three failures whose mean is where the planted rows gather; the nearest single one to them is that mean too."""
    embeddings = np.full((3, DIM), 2.0, dtype=np.float32)
    embeddings[:, 1] += [0.0, 4.0, -4.0]
    return Scored.of(np.array(list("abc")), np.zeros(3, np.int64), embeddings, np.zeros((3, N_CLASSES)))


def rss_anon() -> int:
    """Anonymous memory of this process, bytes: what it holds beside mapped files."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("RssAnon"))
    return 1024 * int(line.split()[1])


class Peak:
    """The largest `rss_anon` while the block runs, above `base`."""

    def __init__(self, base: int) -> None:
        self.base, self.growth, self.stop = base, 0, threading.Event()

    def __enter__(self) -> "Peak":
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        self.start = time.perf_counter()
        return self

    def watch(self) -> None:
        while not self.stop.wait(0.002):
            self.growth = max(self.growth, rss_anon() - self.base)

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self.start
        self.stop.set()
        self.thread.join()


def measure(folder: Path, k: int) -> dict[str, dict]:
    """Open, check and score the store; per step seconds, peak growth of memory since before it was opened, picks."""
    base, report = rss_anon(), {}
    with Peak(base) as peak:
        pool = FeatureStore(folder).check().scored()
    report["open and check"] = {"seconds": peak.seconds, "mb": peak.growth / 2**20}
    context = SelectionContext(0, failures(), failures(), None, SEED)
    for name, selector in SELECTORS.items():
        with Peak(base) as peak:
            picked = selector.select(pool, context, k)
        report[name] = {"seconds": peak.seconds, "mb": peak.growth / 2**20, "rows": picked.positions.tolist()}
    return report


def check_pool(folder: Path, n: int, limit_mb: float) -> None:
    k = PLANTED + 20  # beyond the planted rows all are equal, so the smallest ids have to follow
    planted = lay_pool(folder, n)
    command = [sys.executable, __file__, str(folder), str(k)]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # its threads spin against whatever else runs here
    worker = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    report = json.loads(worker.stdout)
    for name, figures in report.items():
        print(f"{n} × {DIM}: {name:17s} {figures['seconds']:6.1f} s, RssAnon +{figures['mb']:.0f} MB")
        assert figures["mb"] < limit_mb
    first = [row for row in range(k + PLANTED) if row not in set(planted)][: k - PLANTED]
    for name in set(SELECTORS) - {"random"}:
        assert report[name]["rows"] == planted + first, name
    key = SEED.to_bytes(16, "little")
    hashed = (
        (int.from_bytes(blake2b(b"pool/%07d" % i, digest_size=8, key=key).digest(), "little"), i) for i in range(n)
    )
    assert report["random"]["rows"] == [row for _, row in heapq.nlargest(k, hashed)]


@pytest.mark.skipif(not STATUS.exists(), reason="needs /proc")
def test_200_thousand_rows(tmp_path):
    check_pool(tmp_path / "pool", 200_000, limit_mb=250)  # as float32 the embeddings alone would be 586


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not STATUS.exists(), reason="needs /proc")
def test_5_million_rows(tmp_path):
    check_pool(tmp_path / "pool", 5_000_000, limit_mb=1024)


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]))))
