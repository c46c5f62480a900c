"""What a repair is given of the concepts that are blamed: images with and without them, and where train shows them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from aaca.annotate.aggregate import counted
from aaca.concepts.concept_sets import ConceptSets, normal
from aaca.concepts.images import ConceptPair
from aaca.data.benchmark import Benchmark
from aaca.discover.concepts.base import View
from aaca.discover.concepts.table import ConceptTable
from aaca.repair.pairs import PairSource, Shown
from aaca.runtime.config import identity
from aaca.runtime.errors import DataError
from aaca.runtime.seeding import purpose_seed
from aaca.runtime.stages import StageCache

from .debug_clip import Looking
from .debug_config import DebugConfig
from .debug_discover import concept_stage

CELLS = 32  # a side of the masks that concepts are cut out by, at most


@dataclass(frozen=True)
class ConceptParts:
    """`inputs`: what a stage's key has to hold of them."""

    shown: Shown
    source: PairSource | None
    masks: ConceptTable | None
    inputs: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        options: DebugConfig,
        cache: StageCache,
        benchmark_key: str,
        benchmark: Benchmark,
        sets: ConceptSets | None,
        sets_key: str,
    ) -> "ConceptParts":
        """Make or find the stages that the repair's concepts come from; all ranks call it."""
        repair = options.repair
        source = options.concept_images if repair.needs_pairs else None
        size = options.model.image_size
        shown = Shown(benchmark, size, purpose_seed(options.seed, "concept images") % 2**31, sets)
        if source is None and not repair.needs_masks:
            return cls(shown, None, None)
        view = View(size, (min(size, CELLS),) * 2)
        looking = Looking(options, cache, benchmark_key, benchmark)
        inputs: dict[str, Any] = {"concept_sets": sets_key, "merge": options.votes.merge}
        masks = None
        if source is not None:
            inputs["concept_images"] = {**identity(source), **source.fingerprint(), "seed": shown.seed}
            if source.needs_concepts:
                key, found = concept_stage(options, cache, looking, view, "audit", places=source.needs_places)
                shown, inputs["concepts"] = replace(shown, concepts=merged(found, options.votes.merge)), key
            if options.teacher is not None:
                inputs["teacher"] = {**identity(options.teacher), **options.teacher.fingerprint()}
        if repair.needs_masks:
            inputs["masks"], found = concept_stage(options, cache, looking, view, "train", places=True)
            assert sets is not None
            masks = blamed_only(merged(found, options.votes.merge), sets, benchmark)
        return cls(shown, source, masks, inputs)

    def pairs(self) -> list[ConceptPair]:
        """The images, where the repair needs some."""
        return self.source.pairs(self.shown) if self.source is not None else []


def merged(found: ConceptTable, merge: Mapping[str, str]) -> ConceptTable:
    """Concepts under the names that concept sets have (`votes.merge`)."""
    names = [counted(name, merge) for name in found.frame["concept"]]
    return replace(found, frame=found.frame.assign(concept=names))


def blamed_only(found: ConceptTable, sets: ConceptSets, benchmark: Benchmark) -> ConceptTable:
    """The rows of confounded concepts, but where the concept is valid for the image's class.

    Raises `DataError` where no training image has a mask of one.
    """
    blamed = {normal(name) for _, name in sets.names("confounded")}
    valid = {(name, normal(concept)) for name, concept in sets.names("valid")}
    labels, classes = benchmark.split("train").labels, benchmark.classes
    kept = [
        normal(name) in blamed and (classes[labels[row]], normal(name)) not in valid
        for row, name in zip(found.frame["row"], found.frame["concept"], strict=True)
    ]
    frame = found.frame[kept].reset_index(drop=True)
    if not (frame["mask"] >= 0).any():
        raise DataError(
            f"repair: no training image has a mask of a blamed concept ({', '.join(sorted(blamed)) or 'none blamed'})"
            "; expected concepts= that knows where they are"
        )
    return replace(found, frame=frame)
