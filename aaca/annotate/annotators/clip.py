"""`clip`: relevance by how near a concept's text is to the class's name for an image-text model."""

from collections.abc import Sequence

import numpy as np

from aaca.annotate.annotators.base import Annotator, Knowledge, answer, highlighted
from aaca.annotate.task import MOST_VALID, Answer, Task
from aaca.world.language import with_article


class ClipAnnotator(Annotator):
    """Ranks all concepts by the cosine of their text with the class's; the rank in fifths is the relevance."""

    needs_clip = True

    @property
    def name(self) -> str:
        """As in the config."""
        return "clip"

    def answer_all(self, tasks: Sequence[Task], knowledge: Knowledge, seed: int) -> list[Answer]:
        """One answer a task."""
        assert knowledge.clip is not None
        if not knowledge.names:  # nothing could be named in any image
            return [answer(task, self.name, None, None, ()) for task in tasks]
        texts = knowledge.clip.text_vectors([with_article(name) for name in knowledge.names])
        named = knowledge.clip.text_vectors([with_article(name) for name in knowledge.classes])
        ranks = (named @ texts.T).argsort(axis=1).argsort(axis=1)  # 0: farthest
        relevances = 1 + np.floor(5 * ranks / len(knowledge.names))
        places = {name: column for column, name in enumerate(knowledge.names)}
        found = []
        for task in tasks:
            own, seen = relevances[knowledge.classes.index(task.class_)], highlighted(task)
            relevance = None if seen is None else float(own[places[seen.name]])
            ranked = sorted(task.candidates, key=lambda candidate: -own[places[candidate.name]])
            valid = [candidate.name for candidate in ranked if own[places[candidate.name]] >= 4][:MOST_VALID]
            found.append(answer(task, self.name, seen, relevance, valid))
        return found
