"""Images in, an embedding store out: of a table on any number of ranks, or of tars."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aaca.data.embedding_shards import Dtype
from aaca.data.embedding_writer import EmbeddingWriter
from aaca.data.features import FeatureStore
from aaca.data.table import ImageTable
from aaca.data.transforms import EvalTransform, normalise
from aaca.data.webdataset_tars import Refused, tar_images
from aaca.models.classifier import Classifier
from aaca.runtime.errors import ConfigError
from aaca.runtime.files import read_json, write_json
from aaca.runtime.ranks import current
from aaca.runtime.stages import PROGRESS
from aaca.training.extract import extract_features
from aaca.training.trainer import TrainerSpec

log = logging.getLogger(__name__)
ROWS = 8192  # rows that are copied at once
STORE, REFUSED = "store", "refused.json"


def embed_table(
    classifier: Classifier,
    table: ImageTable,
    folder: Path,
    trainer: TrainerSpec,
    batch_size: int,
    about: dict[str, Any],
    dtype: Dtype = "float16",
    shard_rows: int = 100_000,
    label: str = "embed",
    every: float = 300.0,
) -> None:
    """The classifier's embeddings of `table`, rows in table order, in the store `folder`/store. All ranks call it.

    The loop over images is resumed batch by batch, the copy into shards shard by shard.
    """
    work = folder / PROGRESS / "loop"
    extract_features(classifier, table, work, trainer, batch_size, label=label, every=every)
    if current().rank == 0:
        vectors = FeatureStore(work).embeddings
        groups = table.frame["group"].to_numpy()
        writer = EmbeddingWriter(folder / STORE, vectors.shape[1], dtype, about, shard_rows)
        for start in range(writer.done, len(table), ROWS):
            rows = slice(start, min(start + ROWS, len(table)))
            writer.add(np.asarray(vectors[rows]), list(table.ids[rows]), table.labels[rows], list(groups[rows]))
        writer.close()
    current().exchange("embedded")


@torch.no_grad()
def embed_tars(
    classifier: Classifier,
    tars: Path,
    folder: Path,
    device: str,
    batch_size: int,
    about: dict[str, Any],
    dtype: Dtype = "float16",
    shard_rows: int = 100_000,
) -> None:
    """The classifier's embeddings of the images of tars, in order, in the store `folder`/store; resumed by shards.

    What could not be read is listed in `refused.json`. Runs on one rank. Raises `ConfigError` on several.
    """
    if current().world > 1:
        raise ConfigError("trainer.devices: tars are read by one process; expected 1, or a table of extracted images")
    classifier = classifier.to(device).eval()
    dim = classifier.backbone.head_hidden_size
    writer = EmbeddingWriter(folder / STORE, dim, dtype, about, shard_rows)
    listed = folder / PROGRESS / REFUSED
    refused, before = _refused_so_far(listed, writer.done)
    transform = EvalTransform(classifier.image_size)
    keys: list[str] = []
    images: list[torch.Tensor] = []

    def flush() -> None:
        pixels = torch.stack(images).to(device).float().div_(255)
        vectors = classifier.embed(normalise(pixels, classifier.mean, classifier.std))[0]
        trailing = [seen] * (len(refused) - len(before))  # behind the last image
        write_json(listed, {"refused": refused, "before": before + trailing})
        writer.add(vectors.float().cpu().numpy(), keys)
        keys.clear()
        images.clear()

    listed.parent.mkdir(parents=True, exist_ok=True)
    seen = writer.done
    for key, image in tar_images(tars, refused, after=writer.last_key):
        before += [seen] * (len(refused) - len(before))
        seen += 1
        keys.append(key)
        images.append(transform(np.asarray(image)))
        if len(keys) == batch_size:
            flush()
    if keys:
        flush()
    writer.close()
    write_json(folder / REFUSED, {"refused": refused})
    if refused:
        log.warning("%d members of the tars are left out; all are listed in %s", len(refused), REFUSED)


def _refused_so_far(listed: Path, done: int) -> tuple[Refused, list[int]]:
    """What was refused before the last of `done` published rows, with how many images came before each."""
    if not done or not listed.is_file():
        return [], []
    known = read_json(listed)
    kept = [entry for entry, before in zip(known["refused"], known["before"], strict=True) if before < done]
    return kept, [before for before in known["before"] if before < done]
