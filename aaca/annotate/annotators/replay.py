"""`replay`: answers that were given before: by people, with `aaca annotate` or elsewhere."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aaca.annotate.annotators.base import SIMULATED, Annotator, Knowledge
from aaca.annotate.task import Answer, Task, check_answers, load_lines
from aaca.runtime.errors import ConfigError
from aaca.runtime.files import file_sha256


class Replay(Annotator):
    """Reads `file`, one answer a line; each has to be to one of the tasks."""

    def __init__(self, file: str) -> None:
        if not Path(file).is_file():
            raise ConfigError(f"annotator.file: no file {file}; expected the answers of `aaca annotate`")
        self.file = file
        self.simulated = any(name.startswith(SIMULATED) for name in self._people())

    def _people(self) -> list[str]:
        return sorted({answer.annotator for answer in load_lines(Path(self.file), Answer)})

    @property
    def name(self) -> str:
        """The people in the file."""
        return ", ".join(self._people()) or "nobody"

    def fingerprint(self) -> dict[str, Any]:
        """The file's content."""
        return {"answers": file_sha256(Path(self.file))}

    def answer_all(self, tasks: Sequence[Task], knowledge: Knowledge, seed: int) -> list[Answer]:
        """The answers in the file; of one person to one task the last."""
        answers = load_lines(Path(self.file), Answer)
        check_answers(answers, tasks, self.file)
        return list({(answer.task_id, answer.annotator): answer for answer in answers}.values())
