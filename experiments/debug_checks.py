"""What is refused before any work: what the configuration alone, or with the images, shows to be impossible."""

from aaca.data.benchmark import Benchmark
from aaca.runtime.errors import ConfigError
from aaca.training.extract import check_stochastic

from .debug_config import DebugConfig, DebugSetConfig

OTHERWISE = {
    "concepts": "expected concepts=tags, segment, caption_keywords or human",
    "annotator": "expected annotator=cooccurrence, clip, llm or replay",
}


def check_feasible(options: DebugConfig) -> None:
    """Refuse, before anything is made, what the configuration alone shows to be impossible."""
    if options.debugset.candidates == "generated" or options.generator is not None:
        parts = options.generation()
        if parts.generator.needs_diffusion:
            parts.diffusion.check()
        if (classes := options.dataset.class_names()) is not None:
            parts.prompts.check(classes)
        if options.discovers:
            _check_discovery(options)
    if options.discovery is not None and not options.discovers:
        raise ConfigError(
            "discovery: given, but nothing reads it; expected prompts=concept_sets without a file, as in method=aaca"
        )
    source = options.debugset.candidates
    recipes = options.prompts is not None and options.prompts.has_recipes
    if options.debugset.quotas == "recipe" and source == "generated" and not recipes:
        raise ConfigError("debugset.quotas: recipe, but these prompts have no recipes; expected prompt or none")
    if options.debugset.quotas != "none" and source != "generated":
        raise ConfigError(
            f"debugset.quotas: {options.debugset.quotas}, but debugset.candidates is {source}; expected none"
        )
    most = options.dataset.at_most(source) if source in ("pool", "train") else None
    if most is not None:
        check_k(options.debugset, most)
    if options.selector.mc_samples > 1:
        check_stochastic(options.model.build(2, options.recipe.drop_path, start_weights=False))


def _check_discovery(options: DebugConfig) -> None:
    if options.discovery is not None:
        rival = options.rival()
        needs = {"concepts": options.concepts} if rival.needs_concepts else {}
        known = options.dataset.truth() | {"masks"}  # it asks what is there, not where
    else:
        asking = options.asking()
        asking.attribution.cells(options.model.build(2, options.recipe.drop_path, start_weights=False))
        needs = {"concepts": asking.concepts, "annotator": asking.annotator}
        known = options.dataset.truth()
    for name, part in needs.items():
        missing = sorted(part.needs_truth - known) if part is not None else []
        if missing:
            raise ConfigError(
                f"{name}: {type(part).__name__} needs what this dataset does not have: {', '.join(missing)}; "
                f"{OTHERWISE[name]}"
            )


def check_k(config: DebugSetConfig, largest: int) -> None:
    """Raise `ConfigError` where K is more than the largest class has, and nothing shall fill it up."""
    if config.fill == "none" and config.per_class > largest:
        raise ConfigError(
            f"debugset.per_class: {config.per_class} images a class, but no class of the {config.candidates} has more "
            f"than {largest}; expected at most {largest}, or debugset.fill=repeat"
        )


def check_inputs(options: DebugConfig, benchmark: Benchmark) -> None:
    """Raise an error, before any training, where what was given does not fit the images."""
    if options.prompts is not None:
        options.prompts.check(benchmark.classes)
    if options.discovers and options.discovery is not None:
        options.discovery.check(benchmark.split("audit"))
    if options.discovers and options.concepts is not None and options.discovery is None:
        for split in ("audit", "train"):
            options.concepts.check(benchmark.split(split))
