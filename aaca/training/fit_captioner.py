"""`fit_captioner`: graphs and captions in, a saved captioner out; `caption_set`: what it says of a set of graphs."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pytorch_lightning.loggers import Logger

from aaca.data.scenegraph.vocabulary import Words
from aaca.evaluate.captions.structure import Parse
from aaca.models.captioner import captioner as saved
from aaca.models.captioner.captioner import GraphCaptioner
from aaca.models.captioner.spec import CaptionerSpec
from aaca.models.classifier import parameters_sha256
from aaca.runtime.errors import AacaError, ConfigError, DataError
from aaca.runtime.files import atomic_path, digest, read_json, write_json
from aaca.runtime.ranks import current
from aaca.runtime.stages import PROGRESS
from aaca.training.caption_data import CaptionData, CaptionSource
from aaca.training.caption_recipe import CaptionRecipe, Decode
from aaca.training.captioning import CaptionModule
from aaca.training.checkpoints import VerifiedCheckpoints
from aaca.training.curves import Curves
from aaca.training.keep_best import KeepBest
from aaca.training.resume import ResumeSpec, SaveProgress, left_by
from aaca.training.trainer import TrainerSpec

log = logging.getLogger(__name__)

SUMMARY = "fit.json"
CAPTIONS = "captions.parquet"


def words_sha256(words: Words) -> str:
    """Of a vocabulary's words, in the order of their ids."""
    return digest(list(words.words))


@dataclass(frozen=True, kw_only=True)
class CaptionJob:
    """Everything one training run needs.

    `settings`: what the two sets are, as far as their names do not tell, for the fingerprint. `rationale`: which nodes
    of a training sample are human rationale, by row (`CaptionModule`). `parse`: what validation reads captions with, to
    score their structure.
    """

    train: CaptionSource
    val: CaptionSource
    words: Words
    spec: CaptionerSpec
    recipe: CaptionRecipe
    trainer: TrainerSpec
    seed: int
    label: str
    loggers: Sequence[Logger] = ()
    resume: ResumeSpec = field(default_factory=ResumeSpec)
    settings: Mapping[str, Any] = field(default_factory=dict)
    rationale: Mapping[int, np.ndarray] = field(default_factory=dict)
    parse: Parse | None = None

    def __post_init__(self) -> None:
        """Raise `ConfigError` where spec and vocabulary differ in size, `DataError` for an empty or foreign set."""
        if self.spec.words != len(self.words):
            raise ConfigError(f"captioner.words: {self.spec.words}; expected {len(self.words)}, the vocabulary's size")
        for name, source in (("training", self.train), ("validation", self.val)):
            if len(source) == 0:
                raise DataError(f"{self.label}: the {name} set has no samples")
            if source.words != self.words:
                raise DataError(f"{self.label}: the {name} set has another vocabulary; expected that of the captioner")

    def fingerprint(self) -> dict[str, Any]:
        """What a checkpoint must share with the fit that goes on from it."""
        rationale = {str(row): values.tolist() for row, values in self.rationale.items()}
        return {
            "train": digest([self.train.name(row) for row in range(len(self.train))])[:16],
            "val": digest([self.val.name(row) for row in range(len(self.val))])[:16],
            "words": words_sha256(self.words)[:16],
            "captioner": digest(asdict(self.spec))[:16],
            "recipe": digest(self.recipe.fingerprint())[:16],
            "settings": digest([dict(self.settings), rationale])[:16],
            "seed": self.seed,
            "world": self.trainer.world,
            "precision": self.trainer.precision,
            "device": self.trainer.device_kind,
        }


def fit_captioner(job: CaptionJob, folder: Path) -> dict[str, Any]:
    """Train a captioner, write it and `fit.json` to `folder`, and return what `fit.json` holds.

    All ranks call it. It goes on from what an interrupted call left in `folder` (checkpoints below `PROGRESS`): the
    result is the same, on the CPU to the bit. Raises `AacaError` on a non-finite loss.
    """
    recipe, spec, ranks = job.recipe, job.trainer, current()
    if ranks.share((folder / SUMMARY).is_file()):
        return dict(read_json(folder / SUMMARY))
    workers = spec.workers or 0
    data = CaptionData(recipe.batch_size, train=job.train, val=job.val, seed=job.seed, workers=workers)
    batches = data.batches_per_epoch(spec.world)
    model = GraphCaptioner(job.spec, job.seed)
    module = CaptionModule(model, job.words, recipe, batches, job.train, job.val, job.rationale, job.parse)
    best = None if recipe.monitor == "last" else KeepBest(f"val/{recipe.monitor}", lower=recipe.monitor == "loss")
    curves = Curves(folder / "log" / "metrics.csv")
    loop = spec.make(
        job.label,
        max_epochs=recipe.epochs,
        callbacks=[
            *([best] if best else []),
            curves,
            SaveProgress(folder / PROGRESS, job.resume.every, job.label),
        ],
        loggers=job.loggers,
        plugins=[VerifiedCheckpoints(job.fingerprint())],
        gradient_clip_val=recipe.clip_grad,
        check_val_every_n_epoch=1 if best else recipe.epochs,
    )
    left = left_by(folder / PROGRESS, job.fingerprint(), job.resume.force)
    if left is not None:
        log.info("  %s  goes on after update %d of %d", job.label, int(left.stem), recipe.epochs * batches)
    loop.fit(module, datamodule=data, ckpt_path=left, weights_only=True)
    parameters = ranks.exchange(parameters_sha256(model))
    if len(set(parameters)) > 1:
        raise AacaError(f"{job.label}: the ranks ended with different parameters ({', '.join(parameters)})")
    epoch = best.epoch if best else recipe.epochs - 1
    summary = {
        "monitor": recipe.monitor,
        "epoch": epoch,  # from 0: that of the weights
        "epochs": recipe.epochs,
        "updates": recipe.epochs * batches,
        "samples": len(job.train),
        "devices": spec.world,
        "words": words_sha256(job.words),
        "parameters_sha256": parameters,  # of each rank: equal, or nothing would have been saved
        "metrics": {name: value for name, value in curves.rows[epoch].items() if name not in ("epoch", "updates")},
        "curves": curves.rows,
    }
    if ranks.rank == 0:
        _save(model, job.words, folder)
        write_json(folder / SUMMARY, summary)
    return dict(ranks.share(summary))


def _save(model: GraphCaptioner, words: Words, folder: Path) -> None:
    saved.save(model, folder)
    page = folder / saved.PAGE
    write_json(page, {**read_json(page), "words": words_sha256(words)})


def load_captioner(folder: Path, words: Words | None = None) -> GraphCaptioner:
    """The captioner that `fit_captioner` saved. Raises `DataError` for anything else, or if `words` are not its own."""
    model = saved.load(folder)
    known = read_json(folder / saved.PAGE).get("words")
    if words is not None and known != words_sha256(words):
        raise DataError(f"{folder / saved.PAGE}: trained on another vocabulary than these {len(words)} words")
    return model


def caption_set(
    model: GraphCaptioner,
    graph_set: CaptionSource,
    trainer: TrainerSpec,
    batch_size: int,
    length: int,
    decode: Decode,
    width: int,
    folder: Path,
    label: str = "captions",
) -> pd.DataFrame:
    """What `model` says of every sample, in order: name, caption, log_prob; also as `captions.parquet` in `folder`.

    All ranks call it and get the same. `length`: most words, with begin and end. `log_prob`: natural logarithm, summed
    over words and the end. Raises `ConfigError` for a wrong `batch_size`, `length`, `decode` or `width`, `DataError`
    where the set's vocabulary is not as large as the model's.
    """
    recipe = CaptionRecipe(batch_size=batch_size, length=length, decode=decode, width=width)
    if len(graph_set.words) != model.spec.words:
        raise DataError(
            f"{label}: {len(graph_set.words)} words for a captioner of {model.spec.words}; expected its own vocabulary"
        )
    module, ranks = CaptionModule(model.eval(), graph_set.words, recipe), current()
    data = CaptionData(batch_size, predict=graph_set, workers=trainer.workers or 0)
    trainer.make(label).predict(module, datamodule=data, return_predictions=False)
    rows = {row: said for part in ranks.exchange(list(module.captions.items())) for row, said in part}
    if sorted(rows) != list(range(len(graph_set))):
        raise AacaError(f"{label}: {len(rows)} captions of {len(graph_set)} samples; nothing was written")
    frame = pd.DataFrame(
        [(graph_set.name(row), *rows[row]) for row in range(len(graph_set))], columns=["name", "caption", "log_prob"]
    )
    if ranks.rank == 0:
        with atomic_path(folder / CAPTIONS) as temporary:
            frame.to_parquet(temporary, index=False)
    ranks.exchange("written")
    return frame
