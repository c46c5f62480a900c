"""`repair=bottleneck`: a classifier on named concepts, the blamed ones switched off (DN-CBM, ECCV 2024)."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from scipy.sparse import csr_array

from aaca.concepts.concept_sets import ConceptSets, normal
from aaca.concepts.intervene import Selection
from aaca.models.bottleneck import Bottleneck, BottleneckClassifier, Scaling, without
from aaca.models.classifier import Classifier, ClassifierSource
from aaca.models.sae import exchange
from aaca.models.sae.base import SparseAutoencoder
from aaca.models.zero_shot import ClipModel
from aaca.repair.base import Repair, RepairContext
from aaca.runtime.errors import AacaError
from aaca.runtime.files import write_json
from aaca.runtime.ranks import current
from aaca.runtime.seeding import purpose_seed
from aaca.runtime.stages import PROGRESS
from aaca.training.fit import SUMMARY, WEIGHTS
from aaca.training.probes import ProbeSpec
from aaca.training.recipe import Recipe
from aaca.training.sparse_probe import Probe

log = logging.getLogger(__name__)
SAE, SCALING, PROBE, REPORT = "sae", "scaling.safetensors", "probe", "bottleneck.json"


@dataclass(frozen=True)
class ConceptModel:
    """An image-text model taken apart: its autoencoder, the latents' names, and training images by them.

    `codes` `[N, H]` and `labels` `[N]` of the training images.
    """

    clip: ClipModel
    sae: SparseAutoencoder
    scaling: Scaling
    names: list[str]
    codes: csr_array
    labels: np.ndarray
    probe: ProbeSpec
    sets: ConceptSets | None


class BottleneckRepair(Repair):
    """A sparse linear layer on the concepts of an image-text model, in the place of f0.

    f0's weights are not used: what it got wrong says which concepts are switched off.

    Args:
        switch_off: found (what concept sets blame) | none (a control: the bottleneck as it is) | random (another: as
            many live concepts, any of them).
        refit: fit the layer without the concepts that are off, so that it does not count on them; else only zero them.

    """

    asks_for = "an image-text model"
    needs_bottleneck = True
    keeps_model = False

    def __init__(self, switch_off: Literal["found", "none", "random"] = "found", refit: bool = True) -> None:
        self.switch_off, self.refit = switch_off, refit

    @property
    def needs_sets(self) -> bool:  # type: ignore[override]
        """A random choice is as large as the one that is found."""
        return self.switch_off != "none"

    def fingerprint(self) -> dict[str, Any]:
        """All arguments."""
        return {"repair": "bottleneck", **vars(self)}

    def apply(self, context: RepairContext, folder: Path) -> dict[str, Any]:
        """Fit the layer; see `Repair.apply`. Also writes what says which concepts are off (`bottleneck.json`)."""
        given = context.bottleneck
        assert isinstance(given, ConceptModel)
        summary: dict[str, Any] = {}
        if current().rank == 0:
            off = self.chosen(given, context.seed)
            codes = without(given.codes, off.latents) if self.refit else given.codes
            seed = purpose_seed(context.seed, "probe") % 2**31
            classes = len(context.benchmark.classes)
            probe = given.probe.fit(codes, given.labels, classes, seed, folder / PROGRESS)
            exchange.save(given.sae, folder / SAE)
            given.scaling.save(folder / SCALING)
            probe.save(folder / PROBE)
            classifier = assembled(given.clip, given.sae, given.scaling, probe)
            with torch.no_grad():
                classifier.bottleneck.keep[list(off.latents)] = 0.0
            classifier.save(folder / WEIGHTS)
            weight = probe.raw()[0][:, classifier.bottleneck.keep.numpy() > 0]
            report = {
                "off": sorted({given.names[latent] for latent in off.latents}),
                "latents_off": list(off.latents),
                "no_latent_for": list(off.missing),
                "concepts_a_class": float((weight != 0).sum() / len(weight)),
                "live": int((given.codes.sum(axis=0) > 0).sum()),
            }
            write_json(folder / REPORT, report)
            summary = {"updates": 0, "train_images": len(given.labels), "epochs": 0, **report}
            write_json(folder / SUMMARY, summary)
        return dict(current().share(summary))

    def chosen(self, given: ConceptModel, seed: int) -> Selection:
        """The latents that are switched off. Raises `AacaError` where the sets blame nothing."""
        if self.switch_off == "none":
            return Selection.of([])
        assert given.sets is not None
        blamed = {normal(concept.name) for own in given.sets.classes.values() for concept in own.confounded}
        names = [normal(name) for name in given.names]
        live = np.flatnonzero(np.asarray(given.codes.sum(axis=0)).ravel() > 0)
        found = Selection.of((int(latent) for latent in live if names[latent] in blamed), sorted(blamed - set(names)))
        if not found.latents:
            said = ", ".join(sorted(blamed)) or "nothing is blamed"
            raise AacaError(
                f"repair: no live concept bears a blamed name ({said}); expected another discovery= or sae="
            )
        for name in found.missing:
            log.warning("no latent is called %r: it cannot be switched off", name)
        if self.switch_off == "found":
            return found
        rng = np.random.default_rng(purpose_seed(seed, "random"))
        return Selection.of(rng.choice(live, len(found.latents), replace=False))

    def restored(
        self, model: ClassifierSource, n_classes: int, recipe: Recipe, folder: Path, clip: ClipModel | None
    ) -> Classifier:
        """See `Repair.restored`."""
        assert clip is not None
        sae, scaling, probe = exchange.load(folder / SAE), Scaling.load(folder / SCALING), Probe.load(folder / PROBE)
        return assembled(clip, sae, scaling, probe).load(folder / WEIGHTS)


def assembled(clip: ClipModel, sae: SparseAutoencoder, scaling: Scaling, probe: Probe) -> BottleneckClassifier:
    """The parts as one classifier."""
    weight, bias = (None if part is None else torch.from_numpy(part).float() for part in probe.raw())
    assert weight is not None
    bias = torch.zeros(len(weight)) if bias is None else bias
    return BottleneckClassifier(clip.load(), Bottleneck(sae.eval(), scaling, weight, bias)).eval()
