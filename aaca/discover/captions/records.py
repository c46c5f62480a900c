"""What people answered about single words of captions: who, what or how it names, and how relevant that is (1 to 5).

Two forms are read: the released tasks of a text collection (JSON, EGA), and a table with one row an answer (CSV).
"""

import csv
import io
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aaca.discover.captions.mentions import KINDS
from aaca.runtime.errors import DataError
from aaca.runtime.files import read_json, write_text

COLUMNS = ("file", "region", "content_type", "content", "relevance")
NEEDED = ("file", "content_type", "content", "relevance")
LOWEST, HIGHEST = 1.0, 5.0
FILE = re.compile(
    r"(?:p\d+_)?(?P<image>[^/\\?]+?)__caption_(?P<word>\d+)(?:_[^/\\?]*)?\.(?:jpe?g|png)(?=$|\?)", re.IGNORECASE
)
"""`p1_<image>__caption_<position of the word, from 0>_attr_result.jpg`, alone or at the end of an address."""
ALIASES = {"relation": "relationship", "relationships": "relationship", "objects": "object", "attributes": "attribute"}


@dataclass(frozen=True)
class Record:
    """One answer about one word of one caption.

    `image`: file name of the image without ending; `word`: position of the word in the caption, from 0; `kind`: one of
    `KINDS`, or "" where it was left blank; `parts`: (object), (object, attribute) or (subject, relation, object), empty
    where the text was blank or does not fit its kind; `rating`: 1…5, fractional where several people's were averaged;
    None where nobody rated; `region`: of the image, "" where captions are one an image.
    """

    file: str
    image: str
    word: int
    kind: str
    parts: tuple[str, ...]
    rating: float | None
    region: str = ""

    @property
    def sample(self) -> str:
        """`<image>_<region>`, or the image alone."""
        return f"{self.image}_{self.region}" if self.region else self.image


@dataclass(frozen=True)
class Records:
    """All answers of a file, and how many tasks of it nobody had completed."""

    rows: tuple[Record, ...]
    unfinished: int = 0

    def summary(self) -> dict[str, int]:
        """How many images, answers, unfinished tasks; answers without rating, or kind, or of text that fits no kind."""
        return {
            "images": len({row.image for row in self.rows}),
            "answers": len(self.rows),
            "unfinished": self.unfinished,
            "unrated": sum(row.rating is None for row in self.rows),
            "blank": sum(not row.kind for row in self.rows),
            "unreadable": sum(bool(row.kind) and not row.parts for row in self.rows),
        }

    def by_sample(self) -> dict[str, list[Record]]:
        """The answers of each sample (`Record.sample`), in order."""
        found: defaultdict[str, list[Record]] = defaultdict(list)
        for row in self.rows:
            found[row.sample].append(row)
        return dict(found)

    def by_image(self) -> dict[str, list[Record]]:
        """The answers of each image, in order."""
        found: defaultdict[str, list[Record]] = defaultdict(list)
        for row in self.rows:
            found[row.image].append(row)
        return dict(found)


def read_records(path: Path) -> Records:
    """The answers of a `.json` file of tasks or of a `.csv` table. Raises `DataError` naming file and entry."""
    try:
        if path.suffix == ".json":
            return _from_tasks(read_json(path), str(path))
        return Records(tuple(_from_table(path.read_text(encoding="utf-8-sig"), str(path))))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); expected answers as .json or .csv") from error
    except (ValueError, RecursionError, csv.Error) as error:
        raise DataError(f"{path}: not readable as {path.suffix or '.csv'} ({error})") from error


def write_records(path: Path, rows: Iterable[Record]) -> None:
    """Write answers as the table that `read_records` reads."""
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(COLUMNS)
    for row in rows:
        rating = "" if row.rating is None else f"{row.rating:.6g}"
        table.writerow([row.file, row.region, row.kind, content_text(row.parts), rating])
    write_text(path, stream.getvalue())


def content_text(parts: Sequence[str]) -> str:
    """`name`, `(object, attribute)` or `(subject, relation, object)`."""
    return "".join(parts) if len(parts) < 2 else f"({', '.join(parts)})"


def file_name(image: str, word: int) -> str:
    """The released name of the picture that shows a word of a caption."""
    return f"p1_{image}__caption_{word}_attr_result.jpg"


def _from_table(text: str, where: str) -> Iterator[Record]:
    table = csv.DictReader(io.StringIO(text, newline=""))
    lacking = [name for name in NEEDED if name not in (table.fieldnames or ())]
    if lacking:
        raise DataError(f"{where}: no column {', '.join(lacking)}; expected {', '.join(COLUMNS)} (region may lack)")
    for row in table:
        values = {name: (row.get(name) or "").strip() for name in COLUMNS}
        yield _record(values, f"{where}: line {table.line_num}")


def _from_tasks(value: Any, where: str) -> Records:
    if isinstance(value, Mapping):  # an export wraps its tasks
        value = next((inner for inner in value.values() if isinstance(inner, list)), None)
    if not isinstance(value, list):
        raise DataError(f"{where}: not a list of tasks")
    rows, unfinished = [], 0
    for number, task in enumerate(value):
        if not isinstance(task, Mapping):
            raise DataError(f"{where}: task {number}: {type(task).__name__}; expected a record of named fields")
        if task.get("status", "completed") != "completed":
            unfinished += 1
            continue
        answers = _answers(task.get("response", task))
        files = [text for text in _texts(task) if FILE.search(text)]
        values = {"region": "", **dict.fromkeys(NEEDED[1:], ""), **answers, "file": files[0] if files else ""}
        rows.append(_record(values, f"{where}: task {number}"))
    return Records(tuple(rows), unfinished)


def _record(values: Mapping[str, str], where: str) -> Record:
    found = FILE.search(values["file"])
    if found is None:
        raise DataError(f"{where}: file {values['file'][:80]!r}; expected p1_<image>__caption_<word>_attr_result.jpg")
    kind = values["content_type"].strip().lower()
    kind = ALIASES.get(kind, kind)
    if kind and kind not in KINDS:
        raise DataError(f"{where}: content type {kind[:80]!r}; expected {', '.join(KINDS)}, or nothing")
    parts = _parts(values["content"])
    fits = not kind or len(parts) == KINDS.index(kind) + 1
    rating = _rating(values["relevance"], where)
    word = int(found["word"])
    return Record(found[0], found["image"], word, kind, parts if fits else (), rating, values["region"])


def _parts(text: str) -> tuple[str, ...]:
    text = " ".join(text.lower().split())
    listed = text[1:-1].split(",") if text.startswith("(") and text.endswith(")") else [text]
    parts = tuple(part.strip() for part in listed)
    return parts if all(parts) and len(parts) <= len(KINDS) else ()


def _rating(text: str, where: str) -> float | None:
    if not text.strip():
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not LOWEST <= value <= HIGHEST:
        raise DataError(f"{where}: relevance {text[:80]!r}; expected a number from 1 to 5, or nothing")
    return value


def _answers(response: Any) -> dict[str, str]:
    """The three fields wherever they stand in a response: under their names, or beside a `field_id` that is one."""
    found: dict[str, str] = {}
    if isinstance(response, list):
        for entry in response:
            found |= _answers(entry)
    if isinstance(response, Mapping):
        own = _field(response.get("field_id") or response.get("title"))
        if own:
            return {own: _scalar(response)}
        for key, value in response.items():
            name = _field(key)
            found |= {name: _scalar(value)} if name else _answers(value)
    return found


def _field(key: Any) -> str:
    word = re.sub(r"[^a-z]+", " ", key.lower()).strip() if isinstance(key, str) else ""
    if word.startswith("content"):
        return "content_type" if "type" in word else "content"
    return "relevance" if word.startswith(("relevance", "rating")) else ""


def _scalar(value: Any) -> str:
    # the first answer in whatever it is wrapped in
    if isinstance(value, Mapping):
        return next((_scalar(value[key]) for key in ("response", "value", "answer", "text") if key in value), "")
    if isinstance(value, list):
        return _scalar(value[0]) if value else ""
    return "" if value is None else str(value)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(inner)
