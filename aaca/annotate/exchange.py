"""Answers and tasks elsewhere: CSV, Label Studio, and the three-field records of AACA's public annotation sample."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from typing import Any, Literal

from aaca.annotate.pack import Pack
from aaca.annotate.task import NEURON, Answer, Task, from_entry, to_line
from aaca.runtime.errors import DataError

Format = Literal["csv", "label_studio", "scale"]
LIST = "; "  # between several names in one cell
FIELDS = ("task_id", "annotator", "class", "rival", "image_id", "type", "content", "relevance", "valid", "flag")
TIMES = ("seconds", "ts")

LABEL_STUDIO = """\
<View>
  <Header value="It is: $class. The model says: $predicted. $question"/>
  <Image name="image" value="$image"/>
  <Image name="overlay" value="$predicted_map"/>
  <TextArea name="content" toName="image" maxSubmissions="1" placeholder="what does the highlighted part show?"/>
  <Choices name="type" toName="image">
    <Choice value="object"/><Choice value="background"/><Choice value="attribute"/><Choice value="relation"/>
  </Choices>
  <Rating name="relevance" toName="image" maxRating="5"/>
  <TextArea name="valid" toName="image" maxSubmissions="5" placeholder="what tells that it is one?"/>
  <Choices name="flag" toName="image">
    <Choice value="label wrong"/><Choice value="ambiguous image"/><Choice value="cannot tell"/>
  </Choices>
</View>
"""
"""The labelling interface that the exported tasks are made for."""


def to_csv(answers: Sequence[Answer]) -> str:
    """One row an answer."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, [*FIELDS, *TIMES], lineterminator="\n")
    writer.writeheader()
    for answer in answers:
        entry = json.loads(to_line(answer))
        writer.writerow({name: _cell(LIST.join(entry[name]) if name == "valid" else entry[name]) for name in entry})
    return stream.getvalue()


def _cell(value: Any) -> Any:
    # a spreadsheet takes text that begins so for a formula
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t" and value else value


def from_csv(text: str, where: str, tasks: Sequence[Task]) -> list[Answer]:
    """Answers from what `to_csv` wrote, or a spreadsheet kept of it. Raises `DataError` naming line and field."""
    reader = csv.DictReader(io.StringIO(text))
    missing = [
        name for name in ("task_id", "annotator", "content", "relevance") if name not in (reader.fieldnames or [])
    ]
    if missing:
        raise DataError(f"{where}: no column {missing[0]!r}; expected {', '.join(FIELDS)}")
    found = []
    for row in reader:
        cells = {name: (cell or "").removeprefix("'") for name, cell in row.items() if name in (*FIELDS, *TIMES)}
        found.append(_completed(cells, tasks, f"{where}: line {reader.line_num}"))
    return found


def _completed(cells: dict[str, str], tasks: Sequence[Task], where: str) -> Answer:
    task = next((task for task in tasks if task.task_id == cells.get("task_id")), None)
    if task is None:
        raise DataError(f"{where}: task_id: {cells.get('task_id')!r} is none of these {len(tasks)} tasks")
    try:
        relevance = float(cells["relevance"]) if cells.get("relevance", "").strip() else None
        seconds = float(cells.get("seconds") or 0)
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error
    valid = [name.strip() for name in cells.get("valid", "").split(LIST.strip()) if name.strip()]
    entry = {
        "task_id": task.task_id,
        "annotator": cells.get("annotator", ""),
        "class": task.class_,
        "rival": "" if task.predicted == task.class_ else task.predicted,
        "image_id": task.image_id,
        "type": cells.get("type") or "object",
        "content": cells.get("content", ""),
        "relevance": relevance,
        "valid": valid,
        "flag": cells.get("flag", ""),
        "seconds": seconds,
        "ts": cells.get("ts", ""),
    }
    return from_entry(Answer, entry, where)


def to_scale(answers: Sequence[Answer]) -> str:
    """The three required fields of the sample: content type, content of the highlighted area, relevance 1…5."""
    records = [
        {
            "task_id": answer.task_id,
            "annotator": answer.annotator,
            "content_type": answer.type,
            "highlighted_content": answer.content,
            "relevance": answer.relevance,
        }
        for answer in answers
    ]
    return json.dumps(records, indent=2, ensure_ascii=False) + "\n"


def from_scale(text: str, where: str, tasks: Sequence[Task]) -> list[Answer]:
    """Answers from such records; "relationship" is our relation, and `valid` stays empty."""
    found = []
    for index, record in enumerate(_records(text, where)):
        place = f"{where}: record {index + 1}"
        for name in ("task_id", "content_type", "highlighted_content", "relevance"):
            if name not in record:
                raise DataError(f"{place}: {name}: missing")
        kind = str(record["content_type"]).lower().replace("relationship", "relation")
        cells = {"task_id": str(record["task_id"]), "annotator": str(record.get("annotator", "scale")), "type": kind}
        cells |= {"content": str(record["highlighted_content"]), "relevance": str(record["relevance"] or "")}
        found.append(_completed(cells, tasks, place))
    return found


def _records(text: str, where: str) -> list[dict[str, Any]]:
    try:
        records = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON ({error.msg})") from error
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise DataError(f"{where}: expected a list of objects")
    return records


def to_label_studio(pack: Pack) -> str:
    """Tasks to import into Label Studio, pictures inside; its labelling interface is `LABEL_STUDIO`."""
    tasks = [
        {
            "id": number,
            "data": {
                "task_id": task.task_id,
                "image": pictures["image"],
                "predicted_map": pictures["image" if task.kind == NEURON else "predicted"],
                "class": task.class_,
                "predicted": task.predicted,
                "question": _question(task),
            },
        }
        for number, (task, pictures) in enumerate(zip(pack.tasks, pack.pictures, strict=True), 1)
    ]
    return json.dumps(tasks, ensure_ascii=False) + "\n"


def _question(task: Task) -> str:
    if task.kind == NEURON:
        return (
            "These are the images that one neuron answers to most, where mistakes of the class hang on it. "
            "What do they share, and how much does that belong to the class?"
        )
    if task.about:
        return f"Do not mind the highlight: write {task.about!r} below, and how much it belongs to the class."
    return "What does the highlighted part show, and how much does it belong to the class?"


def from_label_studio(text: str, where: str, tasks: Sequence[Task]) -> list[Answer]:
    """Answers from Label Studio's JSON export."""
    found = []
    for record in _records(text, where):
        data = record.get("data") or {}
        place = f"{where}: task {record.get('id')}"
        for annotation in record.get("annotations") or []:
            if annotation.get("was_cancelled"):
                continue
            given: dict[str, list[str]] = {}
            for result in annotation.get("result") or []:
                value = result.get("value") or {}
                said = value.get("text") or value.get("choices") or value.get("rating") or []
                given[str(result.get("from_name"))] = [
                    str(part) for part in (said if isinstance(said, list) else [said])
                ]
            person = annotation.get("completed_by")
            name = person.get("email") if isinstance(person, dict) else person
            cells = {"task_id": str(data.get("task_id")), "annotator": str(name or "label studio")}
            cells |= {key: (given.get(key) or [""])[0] for key in ("content", "type", "relevance", "flag")}
            cells["valid"] = LIST.join(given.get("valid", []))
            cells["seconds"] = str(annotation.get("lead_time") or 0)
            found.append(_completed(cells, tasks, place))
    return found


READERS: dict[Format, Callable[[str, str, Sequence[Task]], list[Answer]]] = {
    "csv": from_csv,
    "label_studio": from_label_studio,
    "scale": from_scale,
}
