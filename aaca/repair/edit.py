"""`repair=edit`: the head of f0 is edited so that chosen neurons stop mattering (NeuroInspect, arXiv 2310.07184)."""

import logging
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from aaca.concepts.concept_sets import ConceptSets, normal
from aaca.data.benchmark import Benchmark
from aaca.discover.neurons.inspect import Inspection
from aaca.discover.neurons.naming import neurons_for
from aaca.discover.neurons.responses import Responses
from aaca.models.classifier import ClassifierSource
from aaca.repair.base import Repair, RepairContext
from aaca.runtime.errors import AacaError, ConfigError, DataError, nearest
from aaca.runtime.files import write_json
from aaca.runtime.ranks import current
from aaca.runtime.seeding import purpose_seed
from aaca.training.edit_head import LiveImages, edit_head
from aaca.training.edit_recipe import EditRecipe, Method, Monitor, Schedule
from aaca.training.fit import SUMMARY, WEIGHTS
from aaca.training.recipe import Recipe

log = logging.getLogger(__name__)
REPORT = "edit.json"
Chosen = dict[int, tuple[int, ...]]
"""Class → neurons."""


class EditHead(Repair):
    """Some neurons stop mattering to some classes; all weights but the head's stay as they are, bit for bit.

    Args:
        choose: sets (neurons that respond to what concept sets blame) | inspection (the inspector's lists) | listed.
        neurons: class → ids, where they are listed.
        lists: of the inspection: insufficient | excessive | both.
        top: neurons of each blamed concept, or of an inspected class; None: all that respond, or are listed.
        least_score: of a neuron's response to a blamed concept.
        random: as many neurons in their place, any of all: the control.
        shared: every edited class stops minding the neurons of all of them; else only its own.
        method: and all that follow: see `EditRecipe`.

    """

    needs_banks = True
    reads_debug = False
    asks_for = "neurons"

    def __init__(
        self,
        choose: Literal["sets", "inspection", "listed"] = "sets",
        neurons: Mapping[str, list[int]] | None = None,
        lists: Literal["both", "insufficient", "excessive"] = "both",
        top: int | None = None,
        least_score: float = 0.3,
        random: bool = False,
        shared: bool = True,
        method: Method = "retention",
        strength: float = 0.1,
        target: float | Literal["auto"] = 1.0,
        reduce: Literal["norm", "rms"] = "norm",
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        epochs: int = 20,
        batch_size: int = 128,
        schedule: Schedule = "warmup_flat_cosine",
        warmup: float = 2.0,
        monitor: Monitor = "last",
        patience: int | None = None,
        min_epochs: int = 10,
        features: Literal["cached", "live"] = "cached",
    ) -> None:
        if (choose == "listed") != bool(neurons):
            raise ConfigError(
                "repair.neurons: choose=listed and the neurons go together; expected both, as in repair.choose=listed "
                "'repair.neurons={bird:[3,17]}'"
            )
        if top is not None and top < 1:
            raise ConfigError(f"repair.top: {top}; expected 1 or more")
        self.choose, self.neurons, self.lists, self.top = choose, dict(neurons or {}), lists, top
        self.least_score, self.random, self.shared = least_score, random, shared
        self.method, self.strength, self.target, self.reduce = method, strength, target, reduce
        self.lr, self.weight_decay, self.epochs, self.batch_size = lr, weight_decay, epochs, batch_size
        self.schedule, self.warmup, self.monitor, self.patience = schedule, warmup, monitor, patience
        self.min_epochs, self.features = min_epochs, features
        self.recipe()
        if method == "ce" and monitor == "class_accuracy":
            raise ConfigError("repair.monitor: class_accuracy, but method=ce edits no class; expected accuracy or last")

    def recipe(self) -> EditRecipe:
        """How the head is edited."""
        return EditRecipe(**{entry.name: getattr(self, entry.name) for entry in fields(EditRecipe)})

    @property
    def needs_sets(self) -> bool:  # type: ignore[override]
        """Concept sets choose neurons; further training alone asks for none."""
        return self.choose == "sets" and self.method != "ce"

    @property
    def needs_responses(self) -> bool:  # type: ignore[override]
        """Which neurons respond to what is blamed."""
        return self.needs_sets

    @property
    def needs_inspection(self) -> bool:  # type: ignore[override]
        """Whether the inspector chooses."""
        return self.choose == "inspection" and self.method != "ce"

    def fingerprint(self) -> dict[str, Any]:
        """All arguments."""
        return {"repair": "edit", "init": "f0", **vars(self)}

    def check(self, model: ClassifierSource, recipe: Recipe) -> None:
        """Raise `ConfigError` where images of several classes are to be mixed: a mixture has no ratio of one class."""
        if self.features == "live" and recipe.mixes:
            raise ConfigError(
                "recipe.mixup: mixed images have no class whose ratio could be kept; expected 0 (cutmix, too)"
            )

    def check_images(self, benchmark: Benchmark) -> None:
        """Raise `ConfigError` on a listed class that is not there, `DataError` where a monitored group is unknown."""
        for name in self.neurons:
            if name not in benchmark.classes:
                raise ConfigError(f"repair.neurons: no class {name!r}; {nearest(name, benchmark.classes)}")
        if self.monitor == "worst_group" and not (benchmark.split("audit").frame["group"] != "").any():
            raise DataError("repair.monitor: worst_group, but no audit image has a group; expected another monitor")

    def chosen(self, context: RepairContext) -> Chosen:
        """The neurons of each edited class. Raises `AacaError` where there are none, `ConfigError` on a wrong list."""
        classes, count = context.benchmark.classes, context.banks["train"].head.neurons
        if self.method == "ce":
            return dict.fromkeys(range(len(classes)), ())
        if self.choose == "listed":
            found = listed(self.neurons, classes, count)
        elif self.choose == "inspection":
            assert isinstance(context.inspection, Inspection)
            found = {
                label: ids for label, ids in context.inspection.neurons(self.lists, self.top or count).items() if ids
            }
            if not found:
                raise AacaError(
                    "repair: the inspection lists no neurons; expected a lower inspect.min_prec, or mistakes"
                )
        else:
            assert context.sets is not None and isinstance(context.responses, Responses)
            found = responding(context.sets, context.responses, classes, self.top or count, self.least_score)
        if self.shared:
            union = tuple(dict.fromkeys(neuron for ids in found.values() for neuron in ids))
            found = dict.fromkeys(found, union)
        return others(found, count, purpose_seed(context.seed, "random") % 2**32) if self.random else found

    def apply(self, context: RepairContext, folder: Path) -> dict[str, Any]:
        """Edit the head; see `Repair.apply`. Also writes which neurons, and how each epoch went (`edit.json`)."""
        banks, classes = context.banks, context.benchmark.classes
        chosen = self.chosen(context)
        classifier = context.start("f0")
        live = None
        if self.features == "live":
            live = LiveImages(classifier, context.benchmark.split("train"), context.recipe.augment)
        seed = purpose_seed(context.seed, "edit") % 2**31
        edited = edit_head(
            banks["train"], banks["audit"], chosen, self.recipe(), context.trainer, seed, live, context.loggers
        )
        edited.head.put(classifier)
        named = {classes[label]: list(ids) for label, ids in chosen.items()}
        summary = {
            "updates": edited.updates,
            "epochs": len(edited.history) - 1 if edited.updates else 0,
            "train_images": len(banks["train"]),
            "kept_epoch": edited.epoch,
            "neurons": named,
        }
        if current().rank == 0:
            classifier.save(folder / WEIGHTS)
            write_json(folder / REPORT, {"neurons": named, "kept_epoch": edited.epoch, "history": edited.history})
            write_json(folder / SUMMARY, summary)
        return summary


def listed(
    neurons: Mapping[str, list[int]], classes: tuple[str, ...], count: int, key: str = "repair.neurons"
) -> Chosen:
    """Class names → neurons as labels → neurons. Raises `ConfigError` on a class or a neuron that is not there."""
    for name, ids in neurons.items():
        if name not in classes:
            raise ConfigError(f"{key}: no class {name!r}; {nearest(name, classes)}")
        for neuron in ids:
            if not 0 <= neuron < count:
                raise ConfigError(f"{key}.{name}: {neuron}; expected 0…{count - 1}")
    return {classes.index(name): tuple(dict.fromkeys(ids)) for name, ids in neurons.items() if ids}


def responding(
    sets: ConceptSets, responses: Responses, classes: tuple[str, ...], top: int, least_score: float
) -> Chosen:
    """The neurons that respond to what confounds each class. Raises `AacaError` where there are none at all."""
    found: Chosen = {}
    known = {normal(name) for name in responses.names}
    for label, name in enumerate(classes):
        blamed = [concept.name for concept in sets.of(name).confounded]
        for concept in blamed:
            if normal(concept) not in known:
                log.warning("class %r: nothing is known of how neurons respond to %r", name, concept)
        blamed = [concept for concept in blamed if normal(concept) in known]
        ids = tuple(neurons_for(responses, blamed, top, least_score)) if blamed else ()
        if ids:
            found[label] = ids
        elif blamed:
            log.warning("class %r: no neuron responds to what is blamed (%s)", name, ", ".join(blamed))
    if not found:
        said = ", ".join(sorted({concept for _, concept in sets.names("confounded")})) or "nothing is blamed"
        raise AacaError(f"repair: no neuron responds to a blamed concept ({said}); expected a lower repair.least_score")
    return found


def others(chosen: Chosen, count: int, seed: int) -> Chosen:
    """As many neurons of each class, any of the `count`; the same one always in the place of the same one.

    Chosen ones may be among them: where they are more than half, there are not as many others.
    """
    mine = list(dict.fromkeys(neuron for ids in chosen.values() for neuron in ids))
    drawn = np.random.default_rng(seed).choice(count, len(mine), replace=False)
    instead = dict(zip(mine, (int(neuron) for neuron in drawn), strict=True))
    return {label: tuple(instead[neuron] for neuron in ids) for label, ids in chosen.items()}
