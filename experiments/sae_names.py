"""The stage `names`: what an autoencoder's latents are called, and what the names are worth."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from aaca.concepts.naming import best_words, duplicates, name_agreement, name_latents, seed_stability, write_csv
from aaca.concepts.naming_check import by_correlation, soft_wpmi
from aaca.concepts.vocab_store import VocabStore
from aaca.data.benchmark import Benchmark
from aaca.data.embeddings import EmbeddingStore
from aaca.models.zero_shot import ClipModel
from aaca.runtime.files import file_sha256, write_json
from aaca.runtime.seeding import purpose_seed
from aaca.runtime.stages import Stage

from .naming_config import NamingConfig
from .sae_files import CHECK, CSV, DUPLICATES, NAMES, SAMPLE, STABILITY, load_sae, some_rows, unit_rows

if TYPE_CHECKING:
    from .sae_stages import SaeStages


def names_of(stages: "SaeStages", saes: Stage, naming: NamingConfig, clip: ClipModel, classes: Sequence[str]) -> Stage:
    """The names of all latents, with what they are worth: gates, duplicates, a second judge, other seeds."""
    words = naming.words(classes)
    keys = stages.learnt_from()[0]
    judged = stages.splits[0] if isinstance(stages.source, Benchmark) else "all"
    codes_key, codes = stages.codes(saes, judged)

    def make(folder: Path) -> None:
        vocab = words_spoken(naming, clip, words)
        vocab.save(folder / "vocabulary")
        store = stages.store(judged)[1]
        seen = some_rows(store.n, SAMPLE, purpose_seed(stages.seed, "seen") % 2**31)
        density = np.bincount(codes.indices, minlength=codes.shape[1]) / max(1, codes.shape[0])
        mean = None
        if naming.center_images:
            mean = unit_rows(store.gather(seen)).mean(axis=0)

        def named(number: int, of: np.ndarray | None) -> pd.DataFrame:
            return name_latents(
                load_sae(saes.folder, number)[0].atoms.detach().numpy().T,
                vocab,
                naming.top,
                naming.center_words,
                mean,
                of,
                naming.least_cosine,
                naming.least_density,
            )

        names = named(0, density)
        names.to_parquet(folder / NAMES, index=False)
        best = best_words(names)
        write_csv(names, folder / CSV)
        duplicates(names[(names["rank"] == 1) & names["named"]]).to_csv(folder / DUPLICATES, index=False)
        _judge(seen, naming, vocab, codes, store, best, folder)
        _stability(stages, saes, names, named, folder)

    inputs = {
        "sae": saes.key,
        "naming": {name: value for name, value in vars(naming).items() if name not in ("vocabulary", "vectors")},
        "words": words,
        "spoken": spoken_by(naming, clip),
        "codes": codes_key,
        "stores": keys,
    }
    return stages.cache.stage("names", inputs, make)


def words_spoken(naming: NamingConfig, clip: ClipModel, words: list[str]) -> VocabStore:
    """Vectors of the words: of the file that has them, or by the image-text model."""
    templates = naming.templates or clip.templates
    model = clip.load()
    model.templates = templates
    if naming.vectors is not None and naming.vocabulary is not None:
        return VocabStore.import_torch(
            Path(naming.vocabulary), Path(naming.vectors), {"templates": templates, "encoder": clip.fingerprint()}
        )
    phrased = dict(zip(words, naming.spoken(words), strict=True))
    return VocabStore.embed(
        words,
        lambda part: model.text_vectors([phrased[word] for word in part]),
        {"templates": templates, "encoder": clip.fingerprint()},
    )


def _judge(
    rows: np.ndarray,
    naming: NamingConfig,
    vocab: VocabStore,
    codes: csr_array,
    store: EmbeddingStore,
    best: list[str],
    folder: Path,
) -> None:
    if naming.check == "none":
        return
    similar = unit_rows(store.gather(rows)) @ vocab.vectors.T
    judge = by_correlation if naming.check == "correlation" else soft_wpmi
    judge(codes[rows], similar, vocab.words, best).to_parquet(folder / CHECK, index=False)


def _stability(stages: "SaeStages", saes: Stage, names: pd.DataFrame, named: Any, folder: Path) -> None:
    first = load_sae(saes.folder)[0].atoms.detach().numpy().T
    found = []
    for number in range(1, stages.recipe.repeats):
        other = load_sae(saes.folder, number)[0].atoms.detach().numpy().T
        stability = seed_stability(first, other)
        agrees = name_agreement(names, named(number, None), stability.partner)
        found.append({"seed": stages.seed + number, "cosine": float(stability.mean), "same_name": float(agrees)})
    write_json(folder / STABILITY, {"against": found})


def spoken_by(naming: NamingConfig, clip: ClipModel) -> dict[str, Any]:
    """What the words' vectors depend on besides the words."""
    return {
        "articles": naming.vocabulary is None,
        "vectors": None if naming.vectors is None else file_sha256(Path(naming.vectors)),
        "templates": naming.templates or clip.templates,
        "clip": clip.fingerprint(),
    }
