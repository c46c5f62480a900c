"""`oracle`: knows the planted truth; `noisy_oracle`: several people of whom each errs."""

from collections.abc import Sequence

import numpy as np

from aaca.annotate.annotators.base import Annotator, Knowledge, answer, highlighted
from aaca.annotate.task import MOST_VALID, Answer, Task
from aaca.runtime.errors import ConfigError, DataError
from aaca.runtime.seeding import purpose_seed

YES, NO = 5.0, 1.0  # relevance of what belongs to a class, and of what does not


class Oracle(Annotator):
    """Names what the overlay points at; says 5 where it belongs to the true class and 1 where it does not."""

    @property
    def name(self) -> str:
        """As in the config."""
        return "oracle"

    def answer_all(self, tasks: Sequence[Task], knowledge: Knowledge, seed: int) -> list[Answer]:
        """One answer a task. Raises `DataError` where the benchmark has no planted truth."""
        return [self._answer(task, _core(knowledge)) for task in tasks]

    def _answer(self, task: Task, core: dict[str, frozenset[str]]) -> Answer:
        seen, own = highlighted(task), core[task.class_]
        relevance = None if seen is None else YES if seen.name in own else NO
        valid = [candidate.name for candidate in task.candidates if candidate.name in own][:MOST_VALID]
        return answer(task, self.name, seen, relevance, valid)


class NoisyOracle(Annotator):
    """`k` people: each turns the relevance around with probability `eps`, and misses each valid concept as often."""

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
            seen, own = highlighted(task), core[task.class_]
            for person in range(self.k):
                rng = np.random.default_rng(purpose_seed(seed, "person", person, task.task_id))
                right = seen is not None and (seen.name in own) != (rng.random() < self.eps)
                shown = [candidate.name for candidate in task.candidates if candidate.name in own]
                valid = [name for name in shown if rng.random() >= self.eps][:MOST_VALID]
                relevance = None if seen is None else YES if right else NO
                found.append(answer(task, f"worker {person + 1}", seen, relevance, valid))
        return found


def _core(knowledge: Knowledge) -> dict[str, frozenset[str]]:
    if knowledge.core is None:
        raise DataError(
            "annotator: this dataset says nothing of what belongs to a class, so there is no oracle; "
            "expected annotator=cooccurrence, clip, replay"
        )
    return dict(knowledge.core)
