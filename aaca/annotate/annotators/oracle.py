"""`oracle`: knows the planted truth; `noisy_oracle`: several people of whom each errs."""

from collections.abc import Mapping, Sequence

import numpy as np

from aaca.annotate.annotators.base import Annotator, Knowledge, answer, highlighted
from aaca.annotate.task import MOST_VALID, Answer, Candidate, Task
from aaca.concepts.concept_sets import normal
from aaca.runtime.errors import ConfigError, DataError
from aaca.runtime.seeding import purpose_seed

YES, NO = 5.0, 1.0  # relevance of what belongs to a class, and of what does not


class Oracle(Annotator):
    """Names what the overlay points at; says 5 where it belongs to the true class and 1 where it does not.

    Where something of the class is in the image, it names what a person would: the thing and its parts.
    """

    needs_truth = frozenset({"core"})

    @property
    def name(self) -> str:
        """As in the config."""
        return "oracle"

    def answer_all(self, tasks: Sequence[Task], knowledge: Knowledge, seed: int) -> list[Answer]:
        """One answer a task. Raises `DataError` where the benchmark has no planted truth."""
        core = _core(knowledge)
        found = []
        for task in tasks:
            seen, belongs = _true_answer(task, core)
            relevance = None if seen is None else YES if belongs else NO
            found.append(answer(task, self.name, seen, relevance, _visible(task, core)))
        return found


class NoisyOracle(Annotator):
    """`k` people: each turns the relevance around with probability `eps`, and misses each valid concept as often."""

    needs_truth = frozenset({"core"})

    def __init__(self, eps: float = 0.2, k: int = 5) -> None:
        if not 0 <= eps <= 0.5:
            raise ConfigError(f"annotator.eps: {eps}; expected a probability in 0…0.5")
        if not 1 <= k <= 100:
            raise ConfigError(f"annotator.k: {k}; expected 1…100 people")
        self.eps, self.k = eps, k

    @property
    def name(self) -> str:
        """With its settings."""
        return f"noisy_oracle(eps={self.eps}, k={self.k})"

    def answer_all(self, tasks: Sequence[Task], knowledge: Knowledge, seed: int) -> list[Answer]:
        """`k` answers a task; each depends on seed, task and person alone."""
        core, found = _core(knowledge), []
        for task in tasks:
            seen, belongs = _true_answer(task, core)
            visible = _visible(task, core)
            for person in range(self.k):
                rng = np.random.default_rng(purpose_seed(seed, "person", person, task.task_id))
                said = belongs != (rng.random() < self.eps)
                named = [name for name in visible if rng.random() >= self.eps]
                relevance = None if seen is None else YES if said else NO
                found.append(answer(task, f"worker {person + 1}", seen, relevance, named))
        return found


def _true_answer(task: Task, core: Mapping[str, tuple[str, ...]]) -> tuple[Candidate | None, bool]:
    # (what the overlay points at, whether it belongs to the class)
    seen = highlighted(task)
    return seen, seen is not None and normal(seen.name) in core[task.class_]


def _visible(task: Task, core: Mapping[str, tuple[str, ...]]) -> list[str]:
    # what tells the class: its own concepts in the image, then, where there are any, its other parts
    own = core[task.class_]
    there = [candidate.name for candidate in task.candidates if normal(candidate.name) in own]
    return [*there, *(name for name in own if name not in there)][:MOST_VALID] if there else []


def _core(knowledge: Knowledge) -> Mapping[str, tuple[str, ...]]:
    if knowledge.core is None:
        raise DataError(
            "annotator: this dataset says nothing of what belongs to a class, so there is no oracle; "
            "expected annotator=cooccurrence, clip or replay"
        )
    return {name: tuple(normal(entry) for entry in core) for name, core in knowledge.core.items()}
