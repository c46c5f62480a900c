"""People name neurons: tasks whose image is a sheet of what one neuron answers to, and what the answers say of it."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from aaca.annotate.aggregate import Verdicts, VoteRules, aggregate
from aaca.annotate.pack import write_pack
from aaca.annotate.task import NEURON, Answer, Candidate, Task
from aaca.concepts.concept_sets import ConceptKind, normal
from aaca.runtime.errors import DataError

SPURIOUS = 2.5
"""Mean relevance up to which a neuron answers to what does not belong to the class (as `VoteRules.confounded`)."""
Named = Sequence[tuple[str, ConceptKind]]


def neuron_tasks(
    blamed: pd.DataFrame, classes: Sequence[str], rivals: Mapping[str, str], likely: Mapping[int, Named], others: Named
) -> list[Task]:
    """One task a row of `blamed` (`label`, `list`, `neuron`): a neuron that a class's mistakes hang on.

    Args:
        blamed: neurons by class and list ("insufficient", "excessive").
        classes: names, by label.
        rivals: class → the one that most of its mistakes are taken for.
        likely: neuron → what it may be for, the most likely first; none of a neuron that is not there.
        others: all that a person may choose from beside these.

    Raises `DataError` for a row that is there twice, or a class without a rival.

    """
    tasks = []
    for row in blamed.itertuples():
        name, neuron = classes[int(row.label)], int(row.neuron)
        if name not in rivals:
            raise DataError(
                f"neuron tasks: class {name!r} has a blamed neuron, and no class its mistakes are taken for"
            )
        near = likely.get(neuron, ())
        known = {concept for concept, _ in near}
        tasks.append(
            Task(
                task_id=f"{NEURON}/{row.list}/{neuron}/{name}",
                kind="neuron",
                image_id=f"{neuron}/{name}",
                class_=name,
                predicted=rivals[name],
                candidates=tuple(Candidate(concept, kind, np.nan, np.nan, np.nan) for concept, kind in near),
                others=tuple(concept for concept, _ in others if concept not in known),
            )
        )
    if len({task.task_id for task in tasks}) < len(tasks):
        raise DataError("neuron tasks: a (class, list, neuron) is blamed twice")
    return tasks


def about(task: Task) -> tuple[str, int]:
    """(list, neuron) of a task about a neuron. Raises `DataError` for any other."""
    if task.kind != NEURON:
        raise DataError(f"task {task.task_id!r} is about no neuron")
    _, of, neuron, _ = task.task_id.split("/", 3)
    return of, int(neuron)


def write_neuron_pack(folder: Path, tasks: Sequence[Task], sheet: Callable[[int, str], np.ndarray]) -> None:
    """Write the pack. `sheet`: (neuron, class) → the images it answers to most, marked, as one uint8 `[H, W, 3]`."""
    shown = {task.image_id: (about(task)[1], task.class_) for task in tasks}

    def no_maps(image: str) -> Mapping[str, np.ndarray]:
        raise DataError(f"{image}: a sheet of a neuron has no maps")

    write_pack(folder, tasks, lambda image: sheet(*shown[image]), no_maps)


def names_from_answers(answers: Sequence[Answer], tasks: Sequence[Task]) -> pd.DataFrame:
    """What people call each neuron, one row a (neuron, class) with a usable answer.

    `neuron`, `class`, `concept` (said most often; of equals the one that belongs least, then the first by alphabet),
    `kind`, `votes` (how many said it), `relevance` (their mean), `spurious` (it is at most `SPURIOUS`).
    """
    known = {task.task_id: task for task in tasks}
    said: dict[tuple[int, str], dict[str, list[Answer]]] = defaultdict(lambda: defaultdict(list))
    for answer in _usable(answers):
        said[about(known[answer.task_id])[1], answer.class_][normal(answer.content)].append(answer)
    rows: list[dict[str, Any]] = []
    for (neuron, class_), given in sorted(said.items()):
        means = {name: float(np.mean([answer.relevance for answer in own])) for name, own in given.items()}
        concept = min(given, key=lambda name: (-len(given[name]), means[name], name))
        rows.append(
            {"neuron": neuron, "class": class_, "concept": concept, "kind": given[concept][0].type}
            | {"votes": len(given[concept]), "relevance": means[concept], "spurious": means[concept] <= SPURIOUS}
        )
    return pd.DataFrame(rows, columns=["neuron", "class", "concept", "kind", "votes", "relevance", "spurious"])


def sets_from_answers(
    answers: Sequence[Answer], tasks: Sequence[Task], blamed: pd.DataFrame, rules: VoteRules, classes: Sequence[str]
) -> Verdicts:
    """Verdicts by the rules that hold for images; the evidence against a concept is the blame of neurons called so.

    Of an insufficient neuron it is what the model knows the class by (no rival), of an excessive one what makes it say
    the rival. The score is `prec` / 100 of `blamed`. Votes for a (class, concept) count over all its neurons.
    """
    known = {task.task_id: task for task in tasks}
    prec = {(int(row.label), row.list, int(row.neuron)): float(row.prec) / 100 for row in blamed.itertuples()}
    rows = []
    for answer in _usable(answers):
        of, neuron = about(known[answer.task_id])
        key = (list(classes).index(answer.class_), of, neuron)
        if key not in prec:
            raise DataError(f"task {answer.task_id!r}: neuron {neuron} is not blamed for {answer.class_!r} ({of})")
        rows.append(
            {"class": answer.class_, "concept": answer.content, "kind": answer.type, "rival": answer.rival}
            | {"confounder": of == "excessive", "relied_on": of == "insufficient"}
            | {"S_conf": prec[key], "S_rely": prec[key], "S_val": np.nan}
        )
    columns = ["class", "concept", "kind", "rival", "confounder", "relied_on", "S_conf", "S_rely", "S_val"]
    return aggregate(answers, pd.DataFrame(rows, columns=columns), rules, classes)


def _usable(answers: Sequence[Answer]) -> list[Answer]:
    return [
        answer for answer in answers if answer.content and answer.relevance is not None and answer.flag != "cannot tell"
    ]
