"""`Rival`, the role of the `discovery` config group: names what misleads a classifier, without asking anybody."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from aaca.concepts.concept_sets import ANY, ClassConcepts, Concept, ConceptKind, ConceptSets, normal
from aaca.data.table import ImageTable
from aaca.discover.concepts.base import Look
from aaca.discover.concepts.table import ConceptTable
from aaca.discover.concepts.vocabulary import Vocabulary, vocabulary_file
from aaca.models.head import FeatureBank
from aaca.runtime.errors import ConfigError
from aaca.runtime.files import file_sha256


@dataclass(frozen=True)
class NamedCodes:
    """Images as strengths of named latents: names, one a latent; codes of audit and of train, CSR `[N, H]`."""

    names: list[str]
    audit: csr_array
    train: csr_array


@dataclass(frozen=True)
class NeuronFindings:
    """Neurons of f0 with names, and those that its mistakes hang on.

    `bank`: of audit. `names`: `neuron`, `concept` ("" for none), `kind`, `score`; best chosen among concepts that are
    no classes, for a neuron that is called by a class blames nothing. `blamed`: `label` (the class's position), `list`
    ("insufficient": the mistakes lack it; "excessive": they have too much of it), `neuron`, `prec` (percent of the
    class's mistakes that name it), `importance`.
    """

    bank: FeatureBank
    names: pd.DataFrame
    blamed: pd.DataFrame


@dataclass(frozen=True)
class Findings:
    """What is known of the audit images, and ways to learn more.

    `probabilities` `[N, K]`: of f0. `nouns`: the classes' names as a person would say them. `look`: an image-text model
    (None where the rival needs none). `in_train`: the concepts of training images, `named`: codes of an autoencoder,
    `neurons`: named neurons (None where the rival needs none).
    """

    classes: tuple[str, ...]
    nouns: tuple[str, ...]
    audit: ImageTable
    probabilities: np.ndarray
    train_labels: np.ndarray
    look: Look | None
    in_train: ConceptTable | None
    seed: int
    named: NamedCodes | None = None
    neurons: NeuronFindings | None = None

    @property
    def labels(self) -> np.ndarray:
        """True classes `[N]`."""
        return self.audit.labels

    @property
    def predictions(self) -> np.ndarray:
        """Predicted classes `[N]`."""
        return np.asarray(self.probabilities.argmax(axis=1))

    def rival_of(self, failures: np.ndarray) -> str:
        """The class that most of these audit images are taken for."""
        counted = Counter(self.predictions[failures].tolist())
        return self.classes[counted.most_common(1)[0][0]] if counted else ANY


@dataclass(frozen=True)
class Suspect:
    """A concept that is blamed for failures of a class: images of `class_` with it are taken for `rival`."""

    class_: str
    rival: str
    concept: str
    kind: ConceptKind
    score: float


class Rival(ABC):
    """Names suspects, and never asks a person; the sets it gives have nothing valid but the class itself."""

    most: int  # concepts a class
    needs_clip: bool = False
    needs_concepts: bool = False  # whether `Findings.in_train` is used
    needs_codes: bool = False  # whether `Findings.named` is
    needs_neurons: bool = False  # whether `Findings.neurons` is

    def check(self, audit: ImageTable) -> None:
        """Raise an error where the audit images lack what is asked of them; called before any training."""
        return None

    @abstractmethod
    def suspects(self, findings: Findings) -> list[Suspect]:
        """Concepts with a positive score, in any order."""

    def fingerprint(self) -> dict[str, Any]:
        """What influences the suspects besides the arguments, files by content."""
        return {}


def check_most(most: int) -> int:
    """`discovery.most`, or a `ConfigError`."""
    if most < 1:
        raise ConfigError(f"discovery.most: {most}; expected 1 or more concepts a class")
    return most


class WordRival(Rival):
    """A rival that looks with an image-text model and names by a vocabulary (a YAML file; None: the one that ships)."""

    needs_clip = True

    def __init__(self, most: int, vocabulary: str | None) -> None:
        Vocabulary.load(vocabulary, "discovery.vocabulary")  # a mistake in the file is said before any work
        self.most, self.vocabulary = check_most(most), vocabulary

    @property
    def words(self) -> Vocabulary:
        """The names that may be said."""
        return Vocabulary.load(self.vocabulary, "discovery.vocabulary")

    def fingerprint(self) -> dict[str, Any]:
        """The vocabulary by content."""
        return {"words": file_sha256(vocabulary_file(self.vocabulary))}


def as_sets(
    suspects: Sequence[Suspect], classes: Sequence[str], nouns: Sequence[str], most: int, meta: dict[str, Any]
) -> ConceptSets:
    """The `most` best suspects of each class as confounders; the class itself is what is valid.

    No class's name is a confounder (that a failure looks like its rival explains nothing); of a concept blamed twice
    the better score counts.
    """
    found, names = {}, {normal(noun) for noun in nouns}
    for name, noun in zip(classes, nouns, strict=True):
        best: dict[str, Suspect] = {}
        for suspect in suspects:
            key = normal(suspect.concept)
            if suspect.class_ != name or key in names or suspect.score <= 0:
                continue
            if key not in best or best[key].score < suspect.score:
                best[key] = suspect
        ranked = sorted(best.values(), key=lambda suspect: (-suspect.score, suspect.concept))[:most]
        confounded = tuple(Concept(entry.concept, entry.kind, entry.rival, entry.score) for entry in ranked)
        found[name] = ClassConcepts(confounded, valid=(Concept(noun),))
    return ConceptSets(found, meta)
