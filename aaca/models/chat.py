"""`ChatEndpoint`: a language model behind any OpenAI-compatible endpoint, OpenAI's own or one on this machine."""

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from aaca.runtime.errors import AacaError, ConfigError
from aaca.runtime.secrets import learn, redact

if TYPE_CHECKING:
    import openai

OPENAI_URL = "https://api.openai.com/v1"
"""The endpoint without `base_url`, whatever OPENAI_BASE_URL says: a run's config tells where its answers came from."""

REMEDIES = {
    401: "the key is not valid there: set {key_variable}",
    403: "the key may not use this model: set {key_variable} or {part}.model=",
    404: "no such model or path: set {part}.model= or {part}.base_url= (most end in /v1)",
    429: "the rate or the quota is used up: wait, then run again",
}


class ChatEndpoint:
    """Asks a chat model over the network, at temperature 0 (extra `llm`).

    Args:
        part: of the config that it belongs to, for messages: `prompts.provider`.
        model: as the endpoint calls it.
        base_url: of an OpenAI-compatible endpoint; None is OpenAI's own.
        key_variable: the environment variable with the key; with a `base_url` it may be unset.
        timeout: seconds without a sign of the endpoint, of each of two attempts.

    """

    def __init__(
        self,
        part: str,
        model: str,
        base_url: str | None = None,
        key_variable: str = "OPENAI_API_KEY",
        timeout: float = 30.0,
    ) -> None:
        self.part = part
        self.model, self.base_url, self.key_variable, self.timeout = model, base_url, key_variable, timeout
        if not model.strip():
            raise ConfigError(f"{part}.model: empty; expected the name of a model")
        if timeout <= 0:
            raise ConfigError(f"{part}.timeout: {timeout} seconds; expected more than 0")
        if base_url is not None:
            _check_url(f"{part}.base_url", base_url, f"{part}.key_variable")
        if find_spec("openai") is None:
            raise ConfigError(f"{part}: the package openai is not installed: pip install 'aaca[llm]'")
        self._key()

    @property
    def name(self) -> str:
        """The model and the endpoint."""
        return f"{self.model} at {self._endpoint}"

    @property
    def _endpoint(self) -> str:
        return (self.base_url or OPENAI_URL).rstrip("/")

    def ask(self, system: str, user: str) -> str:
        """The text of the first choice. Raises `AacaError`, one line, when the endpoint gives none."""
        import openai  # a second to import, and optional

        try:
            with openai.OpenAI(
                api_key=self._key(), base_url=self._endpoint, timeout=self.timeout, max_retries=1
            ) as client:
                reply = client.chat.completions.create(
                    model=self.model,
                    messages=[{"role": "system", "content": system}, {"role": "user", "content": user}],
                    temperature=0,
                    seed=0,
                )
        except openai.APITimeoutError as error:
            raise self._failed(
                f"no answer within {self.timeout:g} s", f"run again or set {self.part}.timeout="
            ) from error
        except openai.APIStatusError as error:
            raise self._status(error) from error
        except openai.APIConnectionError as error:
            reason = str(error.__cause__ or error)
            raise self._failed(f"cannot be reached ({reason})", f"start it or set {self.part}.base_url=") from error
        except (openai.OpenAIError, ValueError) as error:
            raise self._foreign() from error
        try:
            return str(reply.choices[0].message.content or "")
        except (AttributeError, LookupError, TypeError) as error:  # a page, or JSON of another kind, with status 200
            raise self._foreign() from error

    def fingerprint(self) -> dict[str, Any]:
        """Model and endpoint."""
        return {"model": self.model, "base_url": self._endpoint}

    def _key(self) -> str:
        # read when needed and never kept in an attribute, which might be written somewhere
        key = os.environ.get(self.key_variable, "").strip()
        if not key and self.base_url is not None:
            return "none"  # the client insists on one; endpoints on one's own machine do not look at it
        if not key:
            raise ConfigError(
                f"{self.part}.key_variable: the environment variable {self.key_variable} is not set; expected the "
                f"key of the endpoint in it (or set {self.part}.base_url= to one that needs none)"
            )
        if not key.isascii() or not key.isprintable() or " " in key:
            raise ConfigError(f"{self.part}.key_variable: {self.key_variable} does not hold a key")
        learn({"api_key": key})
        return key

    def _status(self, error: "openai.APIStatusError") -> AacaError:
        code = error.status_code
        remedy = REMEDIES.get(code, "run again later, or set {part}.model=")
        # what the endpoint says of a key may hold parts of it
        said = "" if code in (401, 403) else f": {error.message}"
        return self._failed(f"status {code}{said}", remedy.format(key_variable=self.key_variable, part=self.part))

    def _foreign(self) -> AacaError:
        return self._failed("does not answer as an OpenAI-compatible endpoint", f"set {self.part}.base_url=")

    def _failed(self, what: str, remedy: str) -> AacaError:
        return AacaError(f"{self.part}: {self.name}: {' '.join(redact(what).split())[:160]}; {remedy}")


def _check_url(key: str, url: str, variable: str) -> None:
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        whole = False
    if not whole:
        raise ConfigError(f"{key}: {url!r} is no address; expected one such as http://127.0.0.1:8000/v1")
    if parts.username or parts.password or parts.query:
        raise ConfigError(
            f"{key}: expected an address without user, password and query; a key goes into the environment variable "
            f"that {variable} names"
        )
