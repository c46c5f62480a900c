"""Keys and passwords stay out of everything that is written: files, logs, pages, dashboards."""

import html
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from aaca.runtime.errors import ConfigError

MASK = "(secret)"
_WORDS = r"(?:api|access|private|secret)[_-]?key|secret|token|password|passwd|passphrase|credential"
NAMED = re.compile(rf"(?:{_WORDS})s?$", re.IGNORECASE)
"""Names of config keys whose text is secret."""
INLINE = re.compile(rf"(?:{_WORDS})s?['\"]?\s*:\s*['\"]?([^,}}'\"]+)", re.IGNORECASE)
ENVIRONMENT = re.compile(r"(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?)$", re.IGNORECASE)
"""Names of environment variables whose value is secret."""
KNOWN = re.compile(
    r"(?<![\w/-])(?:sk-[\w-]{16,}|hf_\w{20,}|gh[pousr]_\w{20,}|AKIA[0-9A-Z]{16}|xox[abp]-[\w-]{10,}|wandb_v1_\w{16,})"
)
"""Shapes of keys that services hand out."""
SHORTEST = 8  # shorter values are words, not secrets, once their key is out of sight

_learnt: set[str] = set()


def learn(config: Any) -> None:
    """Remember the values below secretly named keys of a config, so that they are known wherever they turn up."""
    _learnt.update(value for key, value in _leaves(config) if NAMED.search(key) and _telling(value))


def mask_values(text: str) -> str:
    """`text` without the values of secrets that the environment and the configs hold."""
    for value in sorted(_learnt | _of_environment(), key=len, reverse=True):
        for written in {value, *_quoted(value)}:
            text = text.replace(written, MASK)
    return text


def redact(text: str) -> str:
    """`text` with every known secret masked, also what only looks like one."""
    return KNOWN.sub(MASK, mask_values(text))


def redacted(value: Any) -> Any:
    """Plain values with their secrets masked: below secretly named keys, however short, and wherever else they are."""
    if isinstance(value, Mapping):
        return {
            key: MASK if NAMED.search(str(key)) and _is_text(inner) else redacted(inner) for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [redacted(inner) for inner in value]
    return redact(value) if isinstance(value, str) else value


def mask_file(path: Path) -> None:
    """Mask the secrets of a text file that somebody else wrote."""
    if path.is_file():
        text = path.read_text(encoding="utf-8")
        masked = redact(text)
        if masked != text:
            path.write_text(masked, encoding="utf-8")


def refuse_secrets(overrides: Iterable[str]) -> None:
    """Raise `ConfigError` for a secret on the command line: the process list, the shell's history and logs show it."""
    for item in overrides:
        key, _, value = item.partition("=")
        name, literal = key.lstrip("+~"), value.strip("'\"")
        named = bool(NAMED.search(name)) and _is_text(literal)
        if named or redact(literal) != literal or any(_is_text(inner.strip()) for inner in INLINE.findall(value)):
            raise ConfigError(
                f"{redact(name)}: a secret does not belong on a command line; put it into an environment variable "
                "(WANDB_API_KEY is found by itself; in a YAML write ${oc.env:NAME})"
            )


def _is_text(value: Any) -> bool:
    # numbers, switches and references are no secrets
    return (
        isinstance(value, str)
        and not value.startswith("${")
        and re.search(r"[A-Za-z]", value) is not None
        and value.lower() not in {"null", "none", "true", "false"}
    )


def _telling(value: Any) -> bool:
    return _is_text(value) and len(value) >= SHORTEST and not _is_path(value)


def _of_environment() -> set[str]:
    return {value for name, value in os.environ.items() if ENVIRONMENT.search(name) and _telling(value)}


def _is_path(value: str) -> bool:
    return value.startswith(("/", "~", ".")) and Path(value).expanduser().exists()


def _quoted(value: str) -> Iterable[str]:
    # as JSON and pages write it
    return json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], html.escape(value)


def _leaves(node: Any, key: str = "") -> Iterable[tuple[str, Any]]:
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from _leaves(value, str(name))
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _leaves(value, key)
    else:
        yield key, node
