"""`human`: what people have listed for each image, in a table, or said in answers to tasks; no places."""

from pathlib import Path
from typing import Any, get_args

import pandas as pd

from aaca.concepts.concept_sets import LONGEST, ConceptKind, normal
from aaca.data.table import ImageTable
from aaca.discover.concepts.base import ConceptSource, Look, View
from aaca.discover.concepts.table import ConceptTable
from aaca.runtime.errors import ConfigError, DataError, nearest
from aaca.runtime.files import file_sha256

COLUMNS = ("id", "concept", "kind")


class Human(ConceptSource):
    """Reads a CSV table with the columns id, concept and, if it is there, kind; one line a concept of an image.

    For `rho` the file has to speak of training images, too: a class whose training images show nothing can have no
    data bug.

    Args:
        file: the table; images of other splits and of other datasets are passed over.

    """

    def __init__(self, file: str) -> None:
        if not Path(file).is_file():
            raise ConfigError(f"concepts.file: no file {file}; expected a CSV table with {', '.join(COLUMNS)}")
        self.file = file
        self._read()  # a mistake in the file is said before any work

    def fingerprint(self) -> dict[str, Any]:
        """The file's content."""
        return {"file": file_sha256(Path(self.file))}

    def check(self, table: ImageTable) -> None:
        """Raise `DataError` where no line is about an image of the table."""
        self._about(table)

    def find(self, table: ImageTable, view: View, look: Look | None, places: bool) -> ConceptTable:
        """One row a line about an image of `table`. Raises `DataError` where there is none."""
        frame = self._about(table)
        kinds: list[ConceptKind] = frame["kind"].tolist()
        return ConceptTable.build(frame["row"].tolist(), frame["concept"].tolist(), kinds, None, len(table), view.cells)

    def _about(self, table: ImageTable) -> pd.DataFrame:
        frame = self._read()
        rows = pd.Index(table.ids).get_indexer(frame["id"])
        frame = frame.assign(row=rows)[rows >= 0].drop_duplicates(["row", "concept"])
        if frame.empty:
            split = ", ".join(sorted(set(table.frame["split"])))
            raise DataError(f"concepts.file: {self.file}: no line is about an image of split {split}")
        return frame

    def _read(self) -> pd.DataFrame:
        try:
            frame = pd.read_csv(self.file, dtype=str, keep_default_na=False, encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError, ValueError) as error:
            raise ConfigError(f"concepts.file: {self.file} is no CSV table ({' '.join(str(error).split())})") from error
        for column in frame.columns:
            if column not in COLUMNS:
                raise ConfigError(f"concepts.file: {self.file}: column {column!r}; {nearest(column, COLUMNS)}")
        for column in COLUMNS[:2]:
            if column not in frame:
                raise ConfigError(f"concepts.file: {self.file}: no column {column!r}; expected {', '.join(COLUMNS)}")
        if "kind" not in frame:
            frame["kind"] = "object"
        frame["concept"] = frame["concept"].map(normal)
        for line, (name, kind) in enumerate(zip(frame["concept"], frame["kind"], strict=True), 2):
            if not 0 < len(name) <= LONGEST or not name.isprintable():
                raise ConfigError(
                    f"concepts.file: {self.file}: line {line}: concept {name!r}; expected 1…{LONGEST} characters"
                )
            if kind not in get_args(ConceptKind):
                raise ConfigError(
                    f"concepts.file: {self.file}: line {line}: kind {kind!r}; {nearest(kind, get_args(ConceptKind))}"
                )
        return frame
