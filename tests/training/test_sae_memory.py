"""Three million vectors train an epoch, and a sample is read for restarts, in bounded memory (slow: minutes)."""

import subprocess
import sys

import pytest

CODE = """
import resource, sys
from pathlib import Path
import numpy as np
import torch
from aaca.data.embedding_batches import EmbeddingBatches
from aaca.data.embedding_writer import EmbeddingWriter
from aaca.models.sae.base import Known
from aaca.models.sae.topk import TopK
from aaca.training.fit_sae import SaeJob, fit_saes
from aaca.training.sae_resample import CHUNK, Resampling, Sample, chances_of, drawn
from aaca.training.sparse_autoencoder import SaeTraining
from aaca.training.trainer import TrainerSpec

torch.set_num_threads(1)
folder, rows, dim = Path(sys.argv[1]), int(sys.argv[2]), 512
writer = EmbeddingWriter(folder / "store", dim, "float16", {"of": "noise"})
rng = np.random.default_rng(0)
part = rng.normal(size=(50_000, dim)).astype(np.float16)
for start in range(0, rows, len(part)):
    writer.add(part, [f"{start + row:08d}" for row in range(len(part))])
store = writer.close()
del part, writer
batches = EmbeddingBatches(store, 4096, shuffle="block", block_rows=16_384, resident="no")
known = Known(dim, torch.zeros(dim), torch.zeros(dim), torch.zeros(0, dim))
sae = TopK(latents=1024, k=16, bias="zeros", auxk=0.0).build(known, torch.Generator().manual_seed(0))
plan = SaeTraining(epochs=1, batch_size=4096, lr=1e-3)
rows = np.sort(np.random.default_rng(1).permutation(rows)[: Resampling().sample])
sample = Sample(rows, lambda rows: torch.from_numpy(store.gather(rows)))
job = SaeJob(batches, None, plan, TrainerSpec(accelerator="cpu"), 0, {}, lambda n, s: sample)
fit_saes([sae], job, folder / "fit")
(chances,) = chances_of([sae], sample, 2.0, CHUNK)  # what a round of resampling reads
starts = sample.take(drawn(chances, 99, torch.Generator().manual_seed(0)))
status = Path("/proc/self/status").read_text().splitlines()
peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print("updates", len(batches), "peak MB", peak // 1024, "of", len(chances), "taken", len(starts))
"""


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_an_epoch_over_three_million_vectors_and_a_resampling_stay_under_two_gigabytes(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path), "3000000"], capture_output=True, text=True, timeout=1400
    )
    assert done.returncode == 0, done.stderr[-2000:]
    words = done.stdout.split()
    print(done.stdout)
    assert int(words[words.index("updates") + 1]) == 3_000_000 // 4096
    assert words[words.index("of") + 1 :] == ["819200", "taken", "99"]
    assert int(words[words.index("MB") + 1]) < 2000
