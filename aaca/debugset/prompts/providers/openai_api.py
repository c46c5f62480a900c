"""`OpenAIConcepts`: a model behind any OpenAI-compatible endpoint, OpenAI's own or one on this machine."""

from typing import Any

from aaca.debugset.prompts.providers.base import ConceptProvider
from aaca.debugset.prompts.question import question
from aaca.models.chat import ChatEndpoint


class OpenAIConcepts(ConceptProvider):
    """Asks a chat model over the network, at temperature 0 (extra `llm`).

    Args:
        model: as the endpoint calls it.
        base_url: of an OpenAI-compatible endpoint; None is OpenAI's own.
        key_variable: the environment variable with the key; with a `base_url` it may be unset.
        timeout: seconds without a sign of the endpoint, of each of two attempts.

    """

    offline = False

    def __init__(
        self, model: str, base_url: str | None = None, key_variable: str = "OPENAI_API_KEY", timeout: float = 30.0
    ) -> None:
        self.endpoint = ChatEndpoint("prompts.provider", model, base_url, key_variable, timeout)

    @property
    def name(self) -> str:
        """The model and the endpoint."""
        return self.endpoint.name

    def ask(self, class_name: str, n: int, complaint: str) -> str:
        """The text of the first choice. Raises `AacaError`, one line, when the endpoint gives none."""
        asked = question(class_name, n, complaint)
        return self.endpoint.ask(asked.system, asked.user)

    def fingerprint(self) -> dict[str, Any]:
        """Model and endpoint."""
        return {"provider": "openai", **self.endpoint.fingerprint()}
