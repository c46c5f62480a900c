"""`LlmConcepts`: class by class, the visible things that a language model or a list names for it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aaca.debugset.prompts.answers import Answers
from aaca.debugset.prompts.base import SLOT, Prompt, PromptWriter
from aaca.debugset.prompts.concepts import RefusedError, accept, bare, read_answer
from aaca.debugset.prompts.providers.base import ConceptProvider
from aaca.debugset.prompts.question import question, shown
from aaca.debugset.prompts.templates import check_slots
from aaca.runtime.errors import AacaError, ConfigError
from aaca.runtime.secrets import redact

CONCEPT = "{concept}"
"""Where the template names the concept, which brings its article along."""

MOST = 100  # concepts a class


class LlmConcepts(PromptWriter):
    """Asks for the class with each of `n` concepts that `provider` names for it.

    Args:
        provider: who names them.
        template: of the prompts, with the slots `{class}` and `{concept}`.
        n: concepts a class.
        retries: how often to ask again after an answer that is not `n` short names of visible things.

    """

    def __init__(
        self, provider: ConceptProvider, template: str = "{class} with {concept}", n: int = 10, retries: int = 3
    ) -> None:
        check_slots(template, "prompts.template", SLOT, CONCEPT)
        if not 1 <= n <= MOST:
            raise ConfigError(f"prompts.n: {n} concepts; expected 1…{MOST}")
        if retries < 0:
            raise ConfigError(f"prompts.retries: {retries}; expected 0 or more")
        self.provider, self.template, self.n, self.retries = provider, template, n, retries

    def fingerprint(self) -> dict[str, Any]:
        """The provider's."""
        return self.provider.fingerprint()

    def write(self, classes: Sequence[str], cache: Path) -> list[Prompt]:
        """`n` prompts a class. Raises `AacaError` when the provider cannot be asked or never answers properly."""
        answers = Answers(cache)
        try:
            return [
                Prompt(label, self.template.replace(CONCEPT, concept), concept=bare(concept))
                for label, name in enumerate(classes)
                for concept in self._concepts(name, answers)
            ]
        finally:
            self.provider.close()

    def _concepts(self, class_name: str, answers: Answers) -> list[str]:
        if self.provider.fixed:
            try:
                return accept(read_answer(self.provider.ask(class_name, self.n, "")), class_name, self.n)
            except RefusedError as refusal:
                raise ConfigError(
                    f"prompts.provider: {self.provider.name}: class {shown(class_name)!r}: {refusal}; expected "
                    f"{self.n} distinct concepts of 1 to 3 words; mend the list or lower prompts.n="
                ) from refusal
        asked = question(class_name, self.n).text
        return self._known(class_name, asked, answers) or self._asked(class_name, asked, answers)

    def _known(self, class_name: str, asked: str, answers: Answers) -> list[str] | None:
        concepts = answers.accepted(self.provider.name, asked)
        try:
            return None if concepts is None else accept(concepts, class_name, self.n)
        except RefusedError:  # the file was edited, or accepted by other rules
            return None

    def _asked(self, class_name: str, asked: str, answers: Answers) -> list[str]:
        complaint = answer = ""
        for _ in range(self.retries + 1):
            answer = redact(self.provider.ask(class_name, self.n, complaint))  # masked, a key is no concept
            try:
                concepts = accept(read_answer(answer), class_name, self.n)
            except RefusedError as refusal:
                complaint = str(refusal)
                answers.record(self.provider.name, asked, answer, None)
            else:
                # under the question without its complaint, so that the next run finds it at once
                answers.record(self.provider.name, asked, answer, concepts)
                return concepts
        raise AacaError(
            f"prompts.provider: {self.provider.name}: class {shown(class_name)!r}: expected {self.n} distinct concepts "
            f"of 1 to 3 words, but the last of {self.retries + 1} answers was {answer[:80]!r}: {complaint}; "
            "use another model, or lists without one: prompts=llm_concepts (provider static)"
        )
