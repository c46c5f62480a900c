"""`Answers`: what language models have answered, kept so that no question is paid for twice."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from aaca.runtime.errors import AacaError
from aaca.runtime.files import digest
from aaca.runtime.secrets import redact

FILE = "answers.jsonl"
LONGEST = 10_000  # characters of an answer


class Answers:
    """`answers.jsonl` in a folder: a line an answer, refused ones (`accepted` null) too. Many processes may append."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / FILE

    def accepted(self, model: str, prompt: str) -> list[str] | None:
        """The concepts that were last accepted from this model for this prompt; None if there are none."""
        wanted, found = _key(model, prompt), None
        with self._on_disk():
            lines = self.file.read_bytes().split(b"\n") if self.file.is_file() else []
        for line in lines:
            try:
                entry = json.loads(line)
                concepts = entry["accepted"]
                if concepts is not None and _key(entry["model"], entry["prompt"]) == wanted:
                    found = [str(concept) for concept in concepts]
            except (ValueError, KeyError, TypeError, RecursionError):
                continue  # empty, torn by a kill, or not ours
        return found

    def record(self, model: str, prompt: str, answer: str, accepted: list[str] | None) -> None:
        """Append an answer, secrets masked, and flush it to the disk."""
        entry = {
            "model": redact(model),
            "prompt": redact(prompt),
            "answer": redact(answer)[:LONGEST],
            "accepted": accepted,
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        line = json.dumps(entry).encode() + b"\n"
        with self._on_disk():
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.file.with_name(f".{FILE}.lock")), self.file.open("ab+") as stream:
                if stream.tell():
                    stream.seek(-1, os.SEEK_END)
                    if stream.read(1) != b"\n":  # what a kill has torn stays a line of its own
                        line = b"\n" + line
                stream.write(line)
                stream.flush()
                os.fsync(stream.fileno())

    @contextmanager
    def _on_disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise AacaError(
                f"{self.file}: the answers of the language model cannot be kept ({error.strerror or error}); free "
                "space or make the file writable, then run again"
            ) from error


def _key(model: str, prompt: str) -> str:
    return digest([model, prompt])
