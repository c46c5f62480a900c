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
    check_repair(options)
    if options.discovery is not None and not options.discovers:
        raise ConfigError(
            "discovery: given, but nothing reads it; expected prompts=concept_sets without a file, as in method=aaca, "
            "or concept_images=found, as in method=concept_distillation, or what is blamed switched off, as in "
            "method=bottleneck"
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


def check_repair(options: DebugConfig) -> None:
    """Refuse a repair that lacks a part, a part that nothing reads, and a repair that this model cannot have."""
    repair, images = options.repair, options.concept_images
    if repair.needs_pairs and images is None:
        raise ConfigError(
            "concept_images: missing, and this repair needs it; choose one: concept_images=found, planted, listed"
        )
    for name, part in (("concept_images", images), ("teacher", options.teacher)):
        if part is not None and not repair.needs_pairs:
            raise ConfigError(f"{name}: given, but nothing reads it; expected repair=concept_distillation")
    if options.teacher is not None and not repair.takes_teacher:
        raise ConfigError("teacher: given, but this repair reads none; expected repair=concept_distillation")
    for name, hint in (("clip", "clip=tiny"), ("sae", "sae=relu"), ("probe", "probe=prox")):
        if repair.needs_bottleneck and getattr(options, name) is None:
            raise ConfigError(f"{name}: missing, and this repair needs it; choose one: {hint}")
    if options.probe is not None and not repair.needs_bottleneck:
        raise ConfigError("probe: given, but nothing reads it; expected repair=bottleneck")
    codes = options.discovery is not None and options.discovery.needs_codes
    if options.sae is not None and not (repair.needs_bottleneck or codes):
        raise ConfigError("sae: given, but nothing reads it; expected discovery=sae or repair=bottleneck")
    if not repair.reads_debug and options.debugset.candidates != "none":
        raise ConfigError(
            f"debugset.candidates: {options.debugset.candidates}, but this repair reads no debug set; expected none, "
            "as in method=neuroinspect"
        )
    if repair.needs_responses:
        if options.concepts is None:
            raise ConfigError(
                "concepts: missing, and repair.choose=sets needs it; choose concepts=gt, or repair.choose=inspection"
            )
        if options.concepts.needs_clip and options.clip is None:
            raise ConfigError("clip: missing, and concepts needs it; choose one: clip=tiny")
    if images is not None and images.sensitises and not repair.can_sensitise:
        raise ConfigError(
            "concept_images.pairs: a pair is to sensitise, and this repair only takes concepts away; expected "
            "repair=concept_distillation (not distance=sq_dot)"
        )
    if (images is not None and images.needs_concepts) or repair.needs_masks:
        _check_concepts(options)
    repair.check(options.model, options.recipe)


def _check_concepts(options: DebugConfig) -> None:
    # what the audit images show (and where, to cut it out), or where the training images show it
    if options.concepts is None:
        raise ConfigError("concepts: missing, and this repair needs it; choose one: concepts=gt")
    if options.concepts.needs_clip and options.clip is None:
        raise ConfigError("clip: missing, and concepts needs it; choose one: clip=tiny")
    needs, known = set(options.concepts.needs_truth), options.dataset.truth()
    if "masks" in needs:
        needs.remove("masks")
        needs |= {"masks of train"} if options.repair.needs_masks else set()
        needs |= {"masks"} if options.concept_images is not None and options.concept_images.needs_places else set()
    missing = sorted(needs - known)
    if missing:
        raise ConfigError(
            f"concepts: {type(options.concepts).__name__} needs what this dataset does not have: {', '.join(missing)}; "
            f"{OTHERWISE['concepts']}{' or dataset.masks=[audit,train]' if 'masks of train' in missing else ''}"
        )


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
    options.repair.check_images(benchmark)
    if options.concept_images is not None:
        options.concept_images.check(benchmark)
    if options.discovers and options.discovery is not None:
        options.discovery.check(benchmark.split("audit"))
    reads = options.concept_images is not None and options.concept_images.needs_concepts
    if options.concepts is not None and (reads or (options.discovers and options.discovery is None)):
        for split in ("audit", "train") if options.discovers else ("audit",):
            options.concepts.check(benchmark.split(split))
