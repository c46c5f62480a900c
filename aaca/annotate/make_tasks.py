"""Which images people are shown: failures, the surest first; right images; images of what the statistics suspect."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from aaca.annotate.task import Candidate, Task
from aaca.concepts.concept_sets import ConceptKind
from aaca.runtime.seeding import purpose_seed

THUMBNAILS = 3  # right images beside a task


@dataclass(frozen=True)
class Shown:
    """What is known of the audit images `[N]` and of their concepts `[N, C]`."""

    ids: np.ndarray
    classes: tuple[str, ...]
    labels: np.ndarray
    predictions: np.ndarray
    confidence: np.ndarray
    names: Sequence[str]  # C concepts
    kinds: Sequence[ConceptKind]
    present: np.ndarray
    predicted_share: np.ndarray
    true_share: np.ndarray
    area: np.ndarray
    suspicion: np.ndarray  # [K, C] of classes and concepts: the order of concepts whose places are not known
    suspects: Sequence[Sequence[str]]  # of each class, concepts that the statistics blame, the worst first


def make_tasks(shown: Shown, failures: int, controls: int, seed: int, suspects: int = 0) -> list[Task]:
    """At most so many failures and right images a class, and images of each concept that is suspected of a class."""
    tasks = []
    for label, name in enumerate(shown.classes):
        right = np.flatnonzero((shown.labels == label) & (shown.predictions == label))
        right = np.random.default_rng(purpose_seed(seed, "controls", name)).permutation(right)
        beside = tuple(shown.ids[row] for row in right[:THUMBNAILS])
        wrong = _spread(shown, label)[:failures]
        tasks += [_task(shown, int(row), "failure", beside) for row in wrong]
        tasks += [_task(shown, int(row), "control", beside) for row in right[THUMBNAILS:][:controls]]
        for suspect in shown.suspects[label]:
            column = list(shown.names).index(suspect)
            there = np.flatnonzero((shown.labels == label) & shown.present[:, column])
            share = np.nan_to_num(shown.predicted_share[there, column], nan=0.0)
            rows = there[np.argsort(-share, kind="stable")][:suspects]
            tasks += [_task(shown, int(row), "suspect", beside, suspect) for row in rows]
    return tasks


def _spread(shown: Shown, label: int) -> list[int]:
    # failures of a class: rivals in turn, within a rival the most confident first
    wrong = np.flatnonzero((shown.labels == label) & (shown.predictions != label))
    wrong = wrong[np.argsort(-shown.confidence[wrong], kind="stable")]
    queues = [list(wrong[shown.predictions[wrong] == rival]) for rival in range(len(shown.classes))]
    turns = max(map(len, queues), default=0)
    return [int(queue[turn]) for turn in range(turns) for queue in queues if turn < len(queue)]


def _task(
    shown: Shown, row: int, kind: Literal["failure", "control", "suspect"], controls: tuple[str, ...], about: str = ""
) -> Task:
    there = np.flatnonzero(shown.present[row])
    share, suspected = shown.predicted_share[row, there], shown.suspicion[shown.labels[row], there]
    order = there[np.lexsort((-suspected, -np.nan_to_num(share, nan=0.0)))]
    candidates = tuple(
        Candidate(
            str(shown.names[column]),
            shown.kinds[column],
            float(shown.predicted_share[row, column]),
            float(shown.true_share[row, column]),
            float(shown.area[row, column]),
        )
        for column in order
    )
    return Task(
        task_id="/".join([kind, *([about] if about else []), shown.ids[row]]),
        kind=kind,
        image_id=str(shown.ids[row]),
        class_=shown.classes[shown.labels[row]],
        predicted=shown.classes[shown.predictions[row]],
        candidates=candidates,
        others=tuple(str(name) for column, name in enumerate(shown.names) if not shown.present[row, column]),
        controls=tuple(control for control in controls if control != shown.ids[row]),
        about=about,
    )
