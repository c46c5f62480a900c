"""Keys and passwords stay out of everything that is written: files, logs, pages, dashboards."""

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from aaca.runtime.errors import ConfigError

MASK = "(secret)"
NAMED = re.compile(r"(api[_-]?key|access[_-]?key|secret|token|password|passwd|passphrase|credential)s?$", re.IGNORECASE)
KNOWN = re.compile(r"sk-[\w-]{16,}|hf_\w{20,}|gh[pousr]_\w{20,}|AKIA[0-9A-Z]{16}|xox[abp]-[\w-]{10,}|wandb_v1_\w{16,}")
"""Shapes of keys that services hand out."""
SHORTEST = 8  # shorter values of the environment are words, not secrets

_learnt: set[str] = set()


def learn(config: Any) -> None:
    """Remember the values below secretly named keys of a config, so that `redact` knows them."""
    for key, value in _leaves(config):
        if NAMED.search(key) and isinstance(value, str) and len(value) > 3:
            _learnt.add(value)


def redact(text: str) -> str:
    """`text` with every known secret masked: of the environment, of configs, of well-known shapes."""
    for value in sorted(_learnt | _of_environment(), key=len, reverse=True):
        text = text.replace(value, MASK)
    return KNOWN.sub(MASK, text)


def redacted(value: Any) -> Any:
    """Plain values with their secrets masked."""
    return json.loads(redact(json.dumps(value, ensure_ascii=False, default=str)))


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
        literal = value.strip("'\"")
        named = NAMED.search(key.lstrip("+~")) and not _harmless(literal)
        if named or redact(literal) != literal:
            raise ConfigError(
                f"{key.lstrip('+~') if named else MASK}: a secret does not belong on a command line; put it into an "
                "environment variable (WANDB_API_KEY is found by itself; in a YAML write ${oc.env:NAME})"
            )


def _harmless(value: str) -> bool:
    return value.startswith("${") or not re.search(r"[A-Za-z]", value) or value.lower() in {"null", "true", "false"}


def _of_environment() -> set[str]:
    named = (value for name, value in os.environ.items() if NAMED.search(name))
    return {value for value in named if len(value) >= SHORTEST and not _is_path(value)}


def _is_path(value: str) -> bool:
    return value.startswith(("/", "~", ".")) and Path(value).expanduser().exists()


def _leaves(node: Any, key: str = "") -> Iterable[tuple[str, Any]]:
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from _leaves(value, str(name))
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _leaves(value, key)
    else:
        yield key, node
