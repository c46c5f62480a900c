"""`cooccurrence`: a concept belongs to a class when it is special to it in the training data; knows no truth."""

from collections.abc import Sequence

import numpy as np

from aaca.annotate.annotators.base import Annotator, Knowledge, answer, highlighted
from aaca.annotate.task import MOST_VALID, Answer, Task


class Cooccurrence(Annotator):
    """Relevance by P(concept | class) against the other classes: 1 + 4 · P(c|y) / (P(c|y) + max other P(c|y')).

    Where the data has a bug, the bug is special to its class, too: this one cannot tell it from the real thing. It is
    what people are compared with, not their replacement.
    """

    @property
    def name(self) -> str:
        """As in the config."""
        return "cooccurrence"

    def answer_all(self, tasks: Sequence[Task], knowledge: Knowledge, seed: int) -> list[Answer]:
        """One answer a task."""
        places = {name: column for column, name in enumerate(knowledge.names)}
        found = []
        for task in tasks:
            label = knowledge.classes.index(task.class_)
            own = knowledge.rates[label]
            others = np.delete(knowledge.rates, label, axis=0).max(axis=0)
            special = np.divide(own, own + others, out=np.full(len(own), 0.5), where=own + others > 0)
            seen = highlighted(task)
            relevance = None if seen is None else round(1 + 4 * float(special[places[seen.name]]), 2)
            ranked = sorted(task.candidates, key=lambda candidate: -special[places[candidate.name]])
            valid = [candidate.name for candidate in ranked if special[places[candidate.name]] > 0.75]
            found.append(answer(task, self.name, seen, relevance, valid[:MOST_VALID]))
        return found
