"""The autoencoder of a run of the job `debug`: images as named concepts, for its discovery and for its repair."""

from typing import Any

from aaca.concepts.concept_sets import ConceptSets
from aaca.data.benchmark import Benchmark
from aaca.discover.rivals.base import NamedCodes
from aaca.repair.bottleneck import ConceptModel
from aaca.runtime.config import identity
from aaca.runtime.files import digest
from aaca.runtime.stages import Stage, StageCache

from .debug_config import DebugConfig
from .sae_files import load_names, load_sae
from .sae_names import names_of
from .sae_stages import SaeStages

SPLITS = ("train", "pool")  # whose images the autoencoder learns from, without labels


def stages_of(options: DebugConfig, cache: StageCache, benchmark_key: str, benchmark: Benchmark) -> SaeStages:
    """The stages, as the job `name` has them."""
    assert options.sae is not None
    return SaeStages(
        cache=cache,
        source_key=benchmark_key,
        source=benchmark,
        encoder=options.clip,
        recipe=options.sae,
        trainer=options.trainer,
        resume=options.resume,
        seed=options.seed,
        splits=SPLITS,
    )


def _named(options: DebugConfig, stages: SaeStages, benchmark: Benchmark) -> tuple[Stage, Stage, list[str]]:
    assert options.clip is not None
    saes = stages.saes(options.naming)
    names = names_of(stages, saes, options.naming, options.clip, benchmark.classes)
    return saes, names, load_names(names)[1]


def named_codes(
    options: DebugConfig, cache: StageCache, benchmark_key: str, benchmark: Benchmark
) -> tuple[str, NamedCodes]:
    """(key, audit and training images as strengths of named latents); all ranks call it."""
    stages = stages_of(options, cache, benchmark_key, benchmark)
    saes, names, words = _named(options, stages, benchmark)
    (audit_key, audit), (train_key, train) = stages.codes(saes, "audit"), stages.codes(saes, "train")
    return digest([names.key, audit_key, train_key]), NamedCodes(words, audit, train)


def concept_model(
    options: DebugConfig, cache: StageCache, benchmark_key: str, benchmark: Benchmark, sets: ConceptSets | None
) -> tuple[str, ConceptModel]:
    """(key, what `repair=bottleneck` is given); all ranks call it."""
    assert options.clip is not None and options.probe is not None
    stages = stages_of(options, cache, benchmark_key, benchmark)
    saes, names, words = _named(options, stages, benchmark)
    key, codes = stages.codes(saes, "train")
    sae, scaling = load_sae(saes.folder)
    inputs: list[Any] = [names.key, key, identity(options.probe)]
    labels = benchmark.split("train").labels
    return digest(inputs), ConceptModel(options.clip, sae, scaling, words, codes, labels, options.probe, sets)
