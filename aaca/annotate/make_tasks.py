"""Which images people are shown: failures, the surest first, spread over rivals; and right images of each class."""

from collections.abc import Sequence
from dataclasses import dataclass

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


def make_tasks(shown: Shown, failures: int, controls: int, seed: int) -> list[Task]:
    """At most so many failures and right images a class."""
    tasks = []
    for label, name in enumerate(shown.classes):
        right = np.flatnonzero((shown.labels == label) & (shown.predictions == label))
        right = np.random.default_rng(purpose_seed(seed, "controls", name)).permutation(right)
        beside = tuple(shown.ids[row] for row in right[:THUMBNAILS])
        wrong = _spread(shown, label)[:failures]
        tasks += [_task(shown, int(row), "failure", beside) for row in wrong]
        tasks += [_task(shown, int(row), "control", beside) for row in right[THUMBNAILS:][:controls]]
    return tasks


def _spread(shown: Shown, label: int) -> list[int]:
    # failures of a class: rivals in turn, within a rival the most confident first
    wrong = np.flatnonzero((shown.labels == label) & (shown.predictions != label))
    wrong = wrong[np.argsort(-shown.confidence[wrong], kind="stable")]
    queues = [list(wrong[shown.predictions[wrong] == rival]) for rival in range(len(shown.classes))]
    turns = max(map(len, queues), default=0)
    return [int(queue[turn]) for turn in range(turns) for queue in queues if turn < len(queue)]


def _task(shown: Shown, row: int, kind: str, controls: tuple[str, ...]) -> Task:
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
        task_id=f"{kind}/{shown.ids[row]}",
        kind="failure" if kind == "failure" else "control",
        image_id=str(shown.ids[row]),
        class_=shown.classes[shown.labels[row]],
        predicted=shown.classes[shown.predictions[row]],
        candidates=candidates,
        others=tuple(str(name) for column, name in enumerate(shown.names) if not shown.present[row, column]),
        controls=tuple(control for control in controls if control != shown.ids[row]),
    )
