"""The stages of a discovery that asks nobody: suspects by a rival, and the concept sets they make."""

from dataclasses import dataclass
from pathlib import Path

from aaca.concepts.concept_sets import ConceptSets
from aaca.data.benchmark import Benchmark
from aaca.data.features import Scored
from aaca.debugset.prompts.base import class_noun
from aaca.discover.concepts.base import View
from aaca.discover.concepts.table import ConceptTable
from aaca.discover.neurons.inspect import REPORT, TABLE
from aaca.discover.rivals.base import Findings, NeuronFindings, as_sets
from aaca.runtime.config import identity
from aaca.runtime.files import digest
from aaca.runtime.seeding import purpose_seed
from aaca.runtime.stages import Stage, StageCache

from .debug_clip import Looking
from .debug_codes import named_codes
from .debug_config import DebugConfig
from .debug_discover import SETS, concept_stage
from .neuron_stages import NeuronStages

NOWHERE = (1, 1)  # cells of a map: rivals ask which concepts are there, not where


@dataclass
class RivalStages:
    """`audit`: f0 on the audit images."""

    options: DebugConfig
    cache: StageCache
    benchmark_key: str
    benchmark: Benchmark
    f0: Stage
    audit: Scored
    neurons: NeuronStages

    def __post_init__(self) -> None:
        self.looking = Looking(self.options, self.cache, self.benchmark_key, self.benchmark)
        self.kept: dict[str, Path] = {}  # what a run's folder shows of this: name → file

    def concept_sets(self) -> tuple[Stage, ConceptSets]:
        """What the rival blames, and that nobody was asked."""
        rival = self.options.rival()
        seed = purpose_seed(self.options.seed, "discover")
        classes = self.benchmark.classes
        look = self.looking.at("audit") if rival.needs_clip else None
        concepts_key, concepts = self._in_train() if rival.needs_concepts else ("", None)  # a stage: all ranks ask
        codes_key, named = "", None
        if rival.needs_codes:
            codes_key, named = named_codes(self.options, self.cache, self.benchmark_key, self.benchmark)

        neurons_key, neurons = self._neurons() if rival.needs_neurons else ("", None)

        def make(folder: Path) -> None:
            nouns = tuple(class_noun(name) for name in classes)
            findings = Findings(
                classes=classes,
                nouns=nouns,
                audit=self.benchmark.split("audit"),
                probabilities=self.audit.probabilities,
                train_labels=self.benchmark.split("train").labels,
                look=look,
                in_train=concepts,
                seed=seed % 2**32,
                named=named,
                neurons=neurons,
            )
            name = type(rival).__name__
            meta = {
                "annotator": f"simulated: nobody was asked ({name})",
                "discovery": name,
                "seed": self.options.seed,
                "f0": self.f0.key[:16],
            }
            as_sets(rival.suspects(findings), classes, nouns, rival.most, meta).save(folder / SETS)
            ConceptSets.load(folder / SETS, classes)  # published only if it can be read again

        inputs = {
            "f0": self.f0.key,
            "benchmark": self.benchmark_key,
            "rival": {**identity(rival), **rival.fingerprint()},
            "clip": self.looking.fingerprint() if rival.needs_clip else None,
            "concepts": concepts_key,
            "seed": seed,
            **({"codes": codes_key} if codes_key else {}),
            **({"neurons": neurons_key} if neurons_key else {}),
        }
        stage = self.cache.stage("concept_sets", inputs, make)
        self.kept[SETS] = stage.folder / SETS
        return stage, ConceptSets.load(stage.folder / SETS, classes)

    def _neurons(self) -> tuple[str, NeuronFindings]:
        (stage, inspection), (named, names) = self.neurons.inspection(), self.neurons.names(to_blame=True)
        assert named is not None
        self.kept |= {name: stage.folder / name for name in (REPORT, TABLE)}
        return digest([stage.key, named.key]), NeuronFindings(self.neurons.bank("audit"), names, inspection.table())

    def _in_train(self) -> tuple[str, ConceptTable]:
        view = View(self.options.model.build(2, 0.0, start_weights=False).image_size, NOWHERE)
        return concept_stage(self.options, self.cache, self.looking, view, "train", places=False)
