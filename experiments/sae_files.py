"""What the stages around an autoencoder leave behind, and how it is read again."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pytorch_lightning.loggers import Logger
from torch import Tensor

from aaca.concepts.naming import best_words
from aaca.data.embedding_shards import Dtype
from aaca.data.embedding_writer import EmbeddingWriter
from aaca.data.embeddings import EmbeddingStore, StoreView
from aaca.evaluate.sparse import SparseMetrics
from aaca.models.bottleneck import Scaling
from aaca.models.sae import exchange
from aaca.models.sae.base import SparseAutoencoder
from aaca.runtime.files import read_json
from aaca.runtime.ranks import current
from aaca.runtime.stages import Stage
from aaca.training.sparse_probe import Probe

SCALING, METRICS, ROUNDS = "scaling.safetensors", "metrics.json", "resampled.json"
NAMES, CSV, DUPLICATES, CHECK, STABILITY = (
    "names.parquet",
    "concept_names.csv",
    "duplicates.csv",
    "check.parquet",
    "stability.json",
)
CODES, PROBE, BY_NEC = "codes.npz", "probe", "accuracy.json"
SAMPLE = 20_000  # vectors that starts are drawn from
MEASURED, MOST = 4096, 200_000  # vectors that are encoded at once, and in all, to say what an autoencoder is worth


Loggers = Callable[[str, Path], AbstractContextManager[list[Logger]]]


def no_loggers(stage: str, folder: Path) -> AbstractContextManager[list[Logger]]:
    """Nobody watches."""
    return nullcontext([])


class Rows:
    """A store, sliced like an array."""

    def __init__(self, store: EmbeddingStore) -> None:
        self.store = store

    def __len__(self) -> int:
        return self.store.n

    def __getitem__(self, part: slice) -> np.ndarray:
        return self.store.gather(np.arange(*part.indices(self.store.n)))


def joined(stores: list[EmbeddingStore], folder: Path) -> EmbeddingStore:
    """One store of several; of several, a copy in the work folder that is not kept."""
    if len(stores) == 1:
        return stores[0]
    place = folder / "resume" / "vectors"
    if current().rank == 0 and not (place / "manifest.json").is_file():
        about = {"joined": [store.content for store in stores]}
        dtype: Dtype = "float16" if all(store.dtype == "float16" for store in stores) else "float32"
        writer, passed = EmbeddingWriter(place, stores[0].dim, dtype, about), 0
        for store in stores:
            for start in range(0, store.n, SAMPLE):
                rows = np.arange(start, min(start + SAMPLE, store.n))
                begin = min(len(rows), max(0, writer.done - passed))
                passed += len(rows)
                if begin < len(rows):
                    writer.add(store.fetch(rows[begin:]), [f"{store.content[:8]}/{row}" for row in rows[begin:]])
        writer.close()
    current().exchange("joined")
    return EmbeddingStore.open(place)


def some_rows(count: int, most: int, seed: int) -> np.ndarray:
    """At most `most` of `count` rows at random, ascending."""
    return np.sort(np.random.default_rng(seed).permutation(count)[:most])


def read_given(place: Path, kind: str) -> tuple[SparseAutoencoder, Scaling]:
    """An autoencoder made elsewhere, and what its vectors go through: of other formats, nothing."""
    if kind == "aaca":
        return load_sae(place)
    readers = {
        "dncbm": exchange.read_dncbm,
        "saelens": exchange.read_saelens,
        "dictionary_learning": exchange.read_dictionary_learning,
    }
    sae = readers[kind](place).eval()
    return sae, Scaling(torch.zeros(len(sae.bias)))


def worth(sae: SparseAutoencoder, scaling: Scaling, source: EmbeddingStore | StoreView) -> dict[str, Any]:
    """What its reconstructions of at most `MOST` vectors are worth."""
    metrics = SparseMetrics(len(sae.bias), sae.latents, sync_on_compute=False)  # rank 0 is alone here
    rows = some_rows(source.n, MOST, 0)
    with torch.no_grad():
        for part in np.array_split(rows, max(1, len(rows) // MEASURED)):
            batch = scaling(torch.from_numpy(source.gather(part)))
            codes = sae.encode(batch)
            metrics.update(batch, sae.decode(codes), codes)
    return {name: _plain(value) for name, value in metrics.compute().items()}


def load_sae(folder: Path, number: int = 0) -> tuple[SparseAutoencoder, Scaling]:
    """An autoencoder of the stage `sae`, and what its vectors went through."""
    return exchange.load(folder / str(number)).eval(), Scaling.load(folder / SCALING)


def load_probe(stage: Stage) -> Probe:
    """The probe of a stage."""
    return Probe.load(stage.folder / PROBE)


def load_names(stage: Stage) -> tuple[pd.DataFrame, list[str]]:
    """(all names, the best one of each latent: "" where it did not pass the gates)."""
    names = pd.read_parquet(stage.folder / NAMES)
    passed = names[names["rank"] == 1].sort_values("latent")["named"]
    return names, [word if is_named else "" for word, is_named in zip(best_words(names), passed, strict=True)]


def load_metrics(stage: Stage) -> list[dict[str, Any]]:
    """What the autoencoders of a stage are worth; `measured` in the file says on which vectors."""
    found: list[dict[str, Any]] = read_json(stage.folder / METRICS)["saes"]
    return found


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Vectors `[N, D]` at length 1."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, Tensor | np.ndarray) else value
