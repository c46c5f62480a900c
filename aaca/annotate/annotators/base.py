"""`Annotator`, the role of the `annotator` config group: answers tasks."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aaca.annotate.task import Answer, Candidate, Task
from aaca.models.zero_shot import ImageText

SIMULATED = "simulated"
"""The first word of the name of whoever is no person."""


@dataclass(frozen=True)
class Knowledge:
    """What a stand-in may know beside the task.

    `core`: class → what truly belongs to it, the class itself first, where the benchmark says so.
    `rates` `[K, C]`: share of a class's training images that show each of `names`. `clip`: an image-text model.
    """

    classes: tuple[str, ...]
    names: tuple[str, ...]
    rates: np.ndarray
    core: Mapping[str, tuple[str, ...]] | None = None
    clip: ImageText | None = None


class Annotator(ABC):
    """Answers tasks. `simulated` says whether no person did."""

    simulated: bool = True
    needs_clip: bool = False
    needs_truth: frozenset[str] = frozenset()  # of `BenchmarkSource.truth`

    @property
    @abstractmethod
    def name(self) -> str:
        """Who that is, as concept sets name it."""

    @abstractmethod
    def answer_all(self, tasks: Sequence[Task], knowledge: Knowledge, seed: int) -> list[Answer]:
        """Answers to the tasks; several to one where several people answer."""

    def fingerprint(self) -> dict[str, Any]:
        """What influences the answers besides the arguments, files by content."""
        return {}


def highlighted(task: Task) -> Candidate | None:
    """What the task is about, or else what the overlay points at: the concept with most relevance for the prediction.

    Where no places are known, the first candidate; None without any.
    """
    if not task.candidates:
        return None
    if task.about:
        return next((candidate for candidate in task.candidates if candidate.name == task.about), None)
    shares = np.array([candidate.share for candidate in task.candidates])
    return task.candidates[0 if np.isnan(shares).all() else int(np.nanargmax(shares))]


def answer(task: Task, annotator: str, seen: Candidate | None, relevance: float | None, valid: Sequence[str]) -> Answer:
    """A stand-in's answer with the task's own fields filled in; its name says that it is none of a person."""
    return Answer(
        task_id=task.task_id,
        annotator=f"{SIMULATED} {annotator}",
        class_=task.class_,
        rival="" if task.predicted == task.class_ else task.predicted,
        image_id=task.image_id,
        type=seen.kind if seen else "object",
        content=seen.name if seen else "",
        relevance=relevance,
        valid=tuple(valid),
        flag="" if seen else "cannot tell",
    )
