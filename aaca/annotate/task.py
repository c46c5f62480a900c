"""`Task` and `Answer`: what a person is shown and says about one image; both travel as lines of JSON."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from aaca.concepts.concept_sets import LONGEST, ConceptKind
from aaca.runtime.errors import DataError
from aaca.runtime.files import write_text

Flag = Literal["", "label wrong", "ambiguous image", "cannot tell"]


def _printable(name: str) -> str:
    name = " ".join(name.split())
    if not name.isprintable():
        raise ValueError("expected printable characters")
    return name


Name = Annotated[str, AfterValidator(_printable), Field(min_length=1, max_length=LONGEST)]
Relevance = Annotated[float, Field(ge=1, le=5)]
MOST_VALID = 5
SUSPECT = "suspect"
"""Kind of a task, and first part of its id, that is about a concept which the statistics blame."""
NEURON = "neuron"
"""Kind of a task, and first part of its id, whose image is a sheet of what one neuron answers to."""


@dataclass(frozen=True)
class Candidate:
    """A concept that may be in the image: how much of the relevance for the predicted and the true class is on it."""

    name: str
    kind: ConceptKind
    share: float  # NaN where its place is not known
    share_true: float
    area: float


@dataclass(frozen=True)
class Task:
    """One image to look at.

    `kind`: a failure; a right image of the class (a control: what is the class known by?); an image with a concept
    that the statistics suspect, and then `about` is that concept: how much does it belong to the class?; or a sheet of
    images that one neuron answers to, which is blamed for mistakes of the class: what do they share?

    `candidates` are in the image by the evidence; `others` are names that may be chosen too; `controls` are ids of
    right images of the class, shown beside it.
    """

    task_id: str
    kind: Literal["failure", "control", "suspect", "neuron"]
    image_id: str
    class_: str
    predicted: str
    candidates: tuple[Candidate, ...]
    others: tuple[str, ...] = ()
    controls: tuple[str, ...] = ()
    about: str = ""


@dataclass(frozen=True)
class Answer:
    """What somebody said.

    T1, why: `content` is what the highlighted part shows ("" where nothing can be told), `type` what kind of thing,
    `relevance` 1…5 how much it belongs to the true class. T2, what instead: up to five concepts that are visible and
    tell the true class (`valid`).
    """

    task_id: str
    annotator: Annotated[str, Field(min_length=1, max_length=60)]
    class_: str
    rival: str
    image_id: str
    type: ConceptKind
    content: Annotated[str, AfterValidator(_printable), Field(max_length=LONGEST)]
    relevance: Relevance | None
    valid: Annotated[tuple[Name, ...], Field(max_length=MOST_VALID)]
    flag: Flag = ""
    seconds: Annotated[float, Field(ge=0)] = 0.0
    ts: str = ""


T = TypeVar("T", Task, Answer)


def to_line(record: Task | Answer) -> str:
    """One line of JSON."""
    entry = {name.rstrip("_"): value for name, value in asdict(record).items()}
    return json.dumps(entry, ensure_ascii=False)


def from_entry(cls: type[T], entry: Any, where: str) -> T:
    """A record from parsed JSON. Raises `DataError` naming `where` and the field."""
    if not isinstance(entry, dict):
        raise DataError(f"{where}: expected an object with the fields of a {cls.__name__.lower()}")
    known = {field.name.rstrip("_"): field.name for field in fields(cls)}
    unknown = sorted(set(entry) - set(known))
    if unknown:
        raise DataError(f"{where}: {unknown[0]}: unknown field; valid: {', '.join(known)}")
    try:
        record: T = TypeAdapter(cls).validate_python({known[name]: value for name, value in entry.items()})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])).rstrip("_")
        raise DataError(f"{where}: {field}: {first['msg']}, got {first['input']!r}") from error
    return record


def save_lines(path: Path, records: Iterable[Task | Answer]) -> None:
    """Write one record a line."""
    write_text(path, "".join(to_line(record) + "\n" for record in records))


def load_lines(path: Path, cls: type[T]) -> list[T]:
    """Read what `save_lines` wrote. A last line that a killed writer left unfinished is passed over; no other is."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    *lines, rest = text.split("\n")
    records = []
    for number, line in enumerate([*lines, rest], 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            if number > len(lines):
                continue
            raise DataError(f"{path}: line {number}: not JSON ({error.msg})") from error
        records.append(from_entry(cls, entry, f"{path}: line {number}"))
    return records


def check_answers(answers: Sequence[Answer], tasks: Sequence[Task], where: str) -> None:
    """Raise `DataError` for an answer to no task, or to one about another image or class."""
    known = {task.task_id: task for task in tasks}
    for answer in answers:
        task = known.get(answer.task_id)
        if task is None:
            raise DataError(f"{where}: an answer to task {answer.task_id!r}, which is none of these {len(tasks)} tasks")
        rival = "" if task.predicted == task.class_ else task.predicted
        if (answer.image_id, answer.class_, answer.rival) != (task.image_id, task.class_, rival):
            raise DataError(
                f"{where}: task {answer.task_id!r} is about {task.image_id!r} ({task.class_}); the answer speaks of "
                f"{answer.image_id!r} ({answer.class_}, taken for {answer.rival or answer.class_})"
            )
