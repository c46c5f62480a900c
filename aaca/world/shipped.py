"""The files of the embedded models: what `embedded:<name>` in a config stands for."""

from pathlib import Path

from aaca.runtime.errors import ConfigError, nearest

MODELS = Path(__file__).with_name("models")
"""The folder of the embedded models, one folder or file a model (made by `aaca pretrain`)."""

PREFIX = "embedded:"


def shipped(name: str, key: str) -> str:
    """`name` itself, or the path behind `embedded:<name>`. Raises `ConfigError` naming `key` where there is none."""
    if not name.startswith(PREFIX):
        return name
    path = MODELS / name.removeprefix(PREFIX)
    if not path.exists():
        there = sorted(f"{PREFIX}{found.name}" for found in MODELS.glob("*") if not found.name.startswith(("_", ".")))
        raise ConfigError(f"{key}: no embedded model {name!r}; {nearest(name, there)}")
    return str(path)
