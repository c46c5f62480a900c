"""`ConceptProvider`, the role of `prompts.provider`: who is asked for the concepts of a class."""

from abc import ABC, abstractmethod
from typing import Any

from aaca.runtime.files import canonical_json


class ConceptProvider(ABC):
    """Answers with concepts of a class, in whatever form; the answer is checked elsewhere and never trusted."""

    offline: bool  # whether it works without a network
    fixed: bool = False  # whether answers are those of a file: neither kept nor asked for again

    @property
    @abstractmethod
    def name(self) -> str:
        """The model as messages and kept answers call it; differs where answers may."""

    @abstractmethod
    def ask(self, class_name: str, n: int, complaint: str) -> str:
        """The raw answer when asked for `n` concepts; `complaint` is what was wrong with the one before ("": nothing).

        Raises `AacaError` when no answer can be had.
        """

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """Everything that influences the answers, files by content; no secret."""

    def close(self) -> None:
        """Let go of what answering has loaded; asking loads it again."""
        return None

    def __repr__(self) -> str:
        # equal for equal providers: a repr may end up in a stage's key
        return f"{type(self).__qualname__}({canonical_json(self.fingerprint())})"
