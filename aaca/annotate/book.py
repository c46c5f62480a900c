"""`AnswerBook`: the file of answers while people write into it: append-only, one answer a line, on the disk at once."""

import json
import os
import threading
from pathlib import Path

from filelock import FileLock, Timeout

from aaca.annotate.task import Answer, load_lines, to_line
from aaca.runtime.errors import AacaError, DataError


class AnswerBook:
    """One process owns the file, any number of its threads add answers. Of a person and task the last one counts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._owner = FileLock(f"{path}.lock")
        try:
            self._owner.acquire(timeout=0)
        except Timeout as error:
            raise AacaError(f"{path}: somebody else is writing answers into it; expected another answers=") from error
        self._lock = threading.Lock()
        self._cut_unfinished()
        self._answers = {(a.task_id, a.annotator): a for a in load_lines(path, Answer)} if path.is_file() else {}
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as error:
            raise AacaError(f"{path}: cannot be written ({error.strerror})") from error

    def _cut_unfinished(self) -> None:
        # a killed writer may have left part of a line that it never confirmed
        if not self.path.is_file():
            return
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole == len(content):
            return
        try:
            json.loads(content[whole:])
        except ValueError:
            with self.path.open("r+b") as file:
                file.truncate(whole)
        else:  # an editor left the last line without its end
            with self.path.open("ab") as file:
                file.write(b"\n")

    def add(self, answer: Answer) -> None:
        """Write the answer to the disk. Raises `DataError` when the disk does not take it; then nothing is kept."""
        line = (to_line(answer) + "\n").encode()
        with self._lock:
            size = os.fstat(self._file).st_size
            try:
                written = os.write(self._file, line)
                if written != len(line):
                    raise OSError(f"{written} of {len(line)} bytes written")
                os.fsync(self._file)
            except OSError as error:
                os.ftruncate(self._file, size)
                raise DataError(f"{self.path}: the answer could not be saved ({error.strerror or error})") from error
            self._answers[answer.task_id, answer.annotator] = answer

    def of(self, annotator: str) -> dict[str, Answer]:
        """Task → what this person has said."""
        with self._lock:
            return {task: answer for (task, who), answer in self._answers.items() if who == annotator}

    def __len__(self) -> int:
        return len(self._answers)

    def close(self) -> None:
        """Give the file back."""
        os.close(self._file)
        self._owner.release()
