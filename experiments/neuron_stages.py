"""Stages about neurons: which ones mistakes hang on, what they respond to, their names, images made up for them."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from aaca.annotate.neuron_tasks import names_from_answers
from aaca.annotate.pack import TASKS
from aaca.annotate.task import Answer, Task, check_answers, load_lines
from aaca.concepts.concept_sets import normal
from aaca.concepts.illusion.spectrum import mean_spectrum
from aaca.concepts.illusion.templates import TEMPLATES
from aaca.data.benchmark import Benchmark
from aaca.data.features import FeatureStore
from aaca.data.table import ImageTable
from aaca.debugset.prompts.base import class_noun
from aaca.discover.concepts.base import View
from aaca.discover.concepts.table import ConceptTable
from aaca.discover.concepts.vocabulary import Vocabulary
from aaca.discover.neurons.inspect import Inspection, InspectSpec, inspect
from aaca.discover.neurons.naming import COLUMNS, by_clip, by_masks
from aaca.discover.neurons.responses import Responses, responses_of
from aaca.discover.neurons.taken_out import WithoutFeatures, donors, images_of
from aaca.models.head import FeatureBank, Head
from aaca.models.text_guide import text_guide
from aaca.repair.base import Repair
from aaca.runtime.config import identity
from aaca.runtime.errors import DataError
from aaca.runtime.files import atomic_path, digest, file_sha256, read_json
from aaca.runtime.seeding import purpose_seed
from aaca.runtime.stages import Stage
from aaca.training.extract import extract_features
from aaca.training.illusion import INDEX, draw_illusions, requests_for

from .classifier_stages import ClassifierStages
from .debug_blamed import CELLS, merged
from .debug_clip import Looking
from .debug_discover import MAP_BATCH, concept_stage
from .debug_suspects import concept_masks
from .neuron_config import IllusionConfig, NeuronNamesConfig

log = logging.getLogger(__name__)
NAMES, ASKED_OF = "names.parquet", "asked_of.json"
Naming = tuple[dict[str, object], Callable[[], pd.DataFrame]]
"""What a stage's key has to hold, and what makes the table."""
SPECTRUM_IMAGES = 500


@dataclass
class NeuronStages:
    """Each method makes or finds one stage. `merge`: name of a concept → the name it counts as."""

    base: ClassifierStages
    benchmark_key: str
    benchmark: Benchmark
    f0: Stage
    spec: InspectSpec
    naming: NeuronNamesConfig
    merge: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def head(self) -> Head:
        """f0's."""
        return Head.of(self.base.classifier(self.f0, len(self.benchmark.classes)))

    def bank(self, what: str, table: ImageTable | None = None) -> FeatureBank:
        """f0's features of a split, or of the rows of `table` that `what` names."""
        table = self.benchmark.split(what) if table is None else table
        scored = self.base.features(self.f0, self.benchmark_key, table, what)
        return FeatureBank.of(scored, table, self.head)

    def inspection(self) -> tuple[Stage, Inspection]:
        """The neurons that mistakes on audit hang on."""
        bank, seed = self.bank("audit"), purpose_seed(self.base.options.seed, "inspect") % 2**31

        def make(folder: Path) -> None:
            inspect(bank, self.spec, seed).save(folder)
            Inspection.load(folder)  # published only if it can be read again

        inputs = {"f0": self.f0.key, "benchmark": self.benchmark_key, "spec": asdict(self.spec), "seed": seed}
        stage = self.base.cache.stage("inspection", inputs, make)
        return stage, Inspection.load(stage.folder)

    def responses(self) -> tuple[Stage, Responses, ConceptTable]:
        """What every neuron does when a concept is taken out of audit images."""
        options = self.base.options
        size = options.model.image_size
        view = View(size, (min(size, CELLS),) * 2)
        looking = Looking(options, self.base.cache, self.benchmark_key, self.benchmark)
        key, found = concept_stage(options, self.base.cache, looking, view, "audit", places=True)
        found = merged(found, self.merge)
        names = found.names
        pairs = self._pairs(found, names)
        taken, without = self._without(key, found, names, pairs, view.cells) if len(pairs) else ("", None)
        bank = self.bank("audit")

        def make(folder: Path) -> None:
            features, labels = bank.features.numpy(), bank.labels.numpy()
            responses_of(features, labels, found, pairs, without, names, self.naming.least).save(folder)
            Responses.load(folder)

        inputs = {"f0": self.f0.key, "concepts": key, "without": taken, "least": self.naming.least, "names": names}
        inputs["merge"] = dict(self.merge)
        stage = self.base.cache.stage("responses", inputs, make)
        return stage, Responses.load(stage.folder), found

    def _pairs(self, found: ConceptTable, names: Sequence[str]) -> np.ndarray:
        # (row, concept) [P, 2] of concepts with a mask, of each at most so many images
        rng = np.random.default_rng(purpose_seed(self.base.options.seed, "neurons", "images") % 2**32)
        there = np.nan_to_num(found.amounts(names), nan=0.0) > 0
        parts = []
        for column in range(len(names)):
            rows = np.sort(rng.permutation(np.flatnonzero(there[:, column]))[: self.naming.most])
            parts.append(np.stack([rows, np.full(len(rows), column)], axis=1))
        return np.concatenate(parts) if parts else np.zeros((0, 2), dtype=np.int64)

    def _without(
        self, key: str, found: ConceptTable, names: Sequence[str], pairs: np.ndarray, cells: tuple[int, int]
    ) -> tuple[str, np.ndarray]:
        options, audit = self.base.options, self.benchmark.split("audit")
        rows, columns = pairs.T
        seed = purpose_seed(options.seed, "neurons", "donors")
        frame = audit.take(rows).frame
        ids = [f"{name}#{names[column]}" for name, column in zip(frame["id"], columns, strict=True)]
        table = ImageTable.build(frame.assign(id=ids), self.benchmark.classes, audit.root)

        def make(folder: Path) -> None:
            classifier = self.base.classifier(self.f0, len(self.benchmark.classes)).eval()
            masks, fill = concept_masks(found, pairs, names, cells), self.naming.fill
            others = None
            if fill == "other":
                others = images_of(audit, donors(audit.labels, found, pairs, names, seed), classifier)
            describe = WithoutFeatures(classifier, masks, fill, others)
            label, every = "neurons without concepts", options.resume.every
            extract_features(
                classifier, table, folder, options.trainer, MAP_BATCH, label=label, every=every, describe=describe
            )

        drawn = seed if self.naming.fill == "other" else None
        inputs = {
            "f0": self.f0.key,
            "concepts": key,
            "pairs": digest(pairs.tolist()),
            "fill": self.naming.fill,
            "seed": drawn,
        }
        stage = self.base.cache.stage("without", inputs, make, together=True)
        return stage.key, np.asarray(FeatureStore(stage.folder).embeddings)

    def names(self, to_blame: bool = False) -> tuple[Stage | None, pd.DataFrame]:
        """What the neurons are called: the columns of `naming.COLUMNS`; no rows where nobody says.

        With `to_blame` only among concepts that can be: not the classes themselves, nor what every image shows.
        """
        naming = self.naming
        if naming.by == "none":
            return None, pd.DataFrame(columns=list(COLUMNS))
        besides = {normal(class_noun(name)) for name in self.benchmark.classes} if to_blame else set()
        if naming.by == "masks":
            inputs, named = self._by_masks(besides)
        else:
            inputs, named = self._by_clip(besides) if naming.by == "clip" else self._by_people()
        inputs = inputs | {"besides": sorted(besides)}

        def make(folder: Path) -> None:
            with atomic_path(folder / NAMES) as temporary:
                named().to_parquet(temporary, index=False)

        stage = self.base.cache.stage("neuron_names", {"f0": self.f0.key, "naming": asdict(naming), **inputs}, make)
        return stage, pd.read_parquet(stage.folder / NAMES)

    def _by_masks(self, besides: set[str]) -> Naming:
        stage, responses, found = self.responses()
        if besides:
            responses = responses.telling(besides)
        return {"responses": stage.key}, lambda: by_masks(responses, found.kinds(), self.naming.least_score)

    def _by_clip(self, besides: set[str]) -> Naming:
        looking = Looking(self.base.options, self.base.cache, self.benchmark_key, self.benchmark)
        look, bank = looking.at("audit"), self.bank("audit")
        words = Vocabulary.load(self.naming.vocabulary, "neuron_names.vocabulary")

        def named() -> pd.DataFrame:
            kept = [place for place, name in enumerate(words.names) if normal(name) not in besides]
            similarities = look.images(self.benchmark.split("audit")) @ words.vectors(look)[kept].T
            names, kinds = ([part[place] for place in kept] for part in (words.names, words.kinds))
            least = self.naming.least_score
            return by_clip(bank.features.numpy(), similarities, names, kinds, "correlation", least)

        return {"clip": looking.fingerprint(), "words": list(words.names), "benchmark": self.benchmark_key}, named

    def answered(self) -> tuple[list[Answer], list[Task]]:
        """What people answered, and to which tasks. Raises `DataError` for answers about another classifier."""
        file = Path(str(self.naming.answers))
        asked_of = file.parent / ASKED_OF
        if not asked_of.is_file() or read_json(asked_of)["f0"] != self.f0.key:
            raise DataError(
                f"neuron_names.answers: {file} is about neurons of another classifier; expected answers to the tasks "
                "of `aaca inspect` with this one"
            )
        answers, asked = load_lines(file, Answer), load_lines(file.parent / TASKS, Task)
        check_answers(answers, asked, str(file))
        return list(
            {(answer.task_id, answer.annotator): answer for answer in answers}.values()
        ), asked  # the last counts

    def _by_people(self) -> Naming:
        file = Path(str(self.naming.answers))
        answers, asked = self.answered()
        unknown = {"effect": np.nan, "contrast": np.nan, "second": "", "second_score": np.nan, "score": np.nan}

        def named() -> pd.DataFrame:
            said = names_from_answers(answers, asked).sort_values("votes", ascending=False, kind="stable")
            said = said.drop_duplicates("neuron")
            return said.assign(**unknown)[list(COLUMNS)]

        return {"answers": file_sha256(file), "tasks": file_sha256(file.parent / TASKS)}, named

    def illusions(self, neurons: Mapping[int, Sequence[int]], config: IllusionConfig) -> tuple[Stage, pd.DataFrame]:
        """(stage, index) of images made up for neurons (label → ids)."""
        options, classes = self.base.options, self.benchmark.classes
        seed = purpose_seed(options.seed, "illusion") % 2**31
        requests = requests_for(neurons, config.copies, seed)
        spec, bank = config.spec(), self.bank("audit")

        def make(folder: Path) -> None:
            classifier = self.base.classifier(self.f0, len(classes)).eval()
            words = [config.words.format(class_noun(name)) for name in classes]
            guide = text_guide(options.clip, words, TEMPLATES) if config.text and options.clip is not None else None
            quantiles = quantiles_of(bank.features)
            spectrum = self._spectrum(spec.size or classifier.image_size) if spec.param == "maco" else None
            draw_illusions(requests, classifier, spec, guide, quantiles, spectrum, folder, options.trainer)

        inputs = {
            "f0": self.f0.key,
            "benchmark": self.benchmark_key,
            "spec": asdict(spec),
            "requests": [asdict(request) for request in requests],
            "words": config.words,
            "clip": {**identity(options.clip), **options.clip.fingerprint()} if config.text and options.clip else None,
            "precision": options.trainer.precision,
            "accelerator": options.trainer.device_kind,
        }
        stage = self.base.cache.stage("illusions", inputs, make, together=True)
        return stage, pd.read_parquet(stage.folder / f"{INDEX}.parquet")

    def _spectrum(self, size: int) -> torch.Tensor:
        table = self.benchmark.split("train")
        rng = np.random.default_rng(purpose_seed(self.base.options.seed, "spectrum") % 2**32)
        rows = np.sort(rng.permutation(len(table))[:SPECTRUM_IMAGES])
        view = View(size, (1, 1))
        return mean_spectrum(np.stack([view.of(table.image(int(row))) for row in rows]))


def quantiles_of(features: torch.Tensor, most: int = 100_000) -> torch.Tensor:
    """The 99 % quantile of each neuron `[D]`, of features `[N, D]` or of `most` of them, evenly apart."""
    step = -(-len(features) // most)
    return torch.quantile(features[::step], 0.99, dim=0)


@dataclass(frozen=True)
class EditParts:
    """What a repair is given of f0's neurons. `inputs`: what a stage's key has to hold of them."""

    banks: Mapping[str, FeatureBank] = field(default_factory=dict)
    inspection: Inspection | None = None
    responses: Responses | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, repair: Repair, stages: NeuronStages, sets_key: str) -> "EditParts":
        """Make or find the stages that they come from; all ranks call it."""
        if not repair.needs_banks:
            return cls()
        inputs, inspection, responses = {}, None, None
        if repair.needs_inspection:
            stage, inspection = stages.inspection()
            inputs["inspection"] = stage.key
        if repair.needs_responses:
            stage, responses, _ = stages.responses()
            inputs |= {"responses": stage.key, "concept_sets": sets_key}
        return cls({split: stages.bank(split) for split in ("train", "audit")}, inspection, responses, inputs)
