"""A composed config becomes typed objects: every key is checked and every plug-in resolved before any work starts.

The schema of a job is a dataclass; the schema of a plug-in (a node with `_target_`) is the signature of its class.
"""

import dataclasses
import importlib
import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from aaca.runtime.errors import ConfigError, nearest
from aaca.runtime.files import file_sha256

T = TypeVar("T")
TARGET = "_target_"
ALLOWED = (
    *("aaca.data.", "aaca.debugset.", "aaca.models.", "aaca.training.", "aaca.repair.", "aaca.evaluate."),
    *("aaca.discover.", "aaca.annotate."),
)
PLUGINS_VARIABLE = "AACA_PLUGINS"
"""Environment variable: comma-separated packages of your own whose classes a config may name."""


def plain(config: DictConfig) -> dict[str, Any]:
    """The composed `config`, resolved, as plain values. Raises `ConfigError` on a missing or unresolvable one."""
    try:
        node = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "config"
        raise ConfigError(f"{key}: {str(error).splitlines()[0]}") from error
    assert isinstance(node, dict)
    return {str(key): value for key, value in node.items()}


def load_config(config: Mapping[str, Any], schema: type[T]) -> T:
    """The `plain` config as an instance of the dataclass `schema`, plug-ins built.

    Raises `ConfigError` (one line: full key, what was expected, nearest valid names) on an unknown or missing key, a
    wrong type, an impossible value, or a `_target_` outside the allowlist or of the wrong role.
    """
    parsed: T = parse(config, schema, "")
    return parsed


def parse(node: Any, expected: Any, key: str) -> Any:
    """`node` (plain dicts, lists and scalars) as an instance of the annotation `expected`; `key` names it in errors."""
    expected = _without_none(expected) if node is not None else expected
    if isinstance(node, Mapping) and TARGET in node:
        cls = resolve_target(node[TARGET], expected, f"{key}.{TARGET}")
        return _construct(cls, {name: value for name, value in node.items() if name != TARGET}, key)
    if isinstance(expected, type) and (dataclasses.is_dataclass(expected) or inspect.isabstract(expected)):
        if not isinstance(node, Mapping):
            raise ConfigError(f"{key or 'config'}: expected a group of keys, got {node!r}")
        if inspect.isabstract(expected):
            raise ConfigError(f"{key}.{TARGET}: missing; expected the name of a {expected.__name__} class")
        return _construct(expected, node, key)
    return _leaf(node, expected, key)


def _without_none(expected: Any) -> Any:
    # `Role | None`: a given value is a Role
    choices = [choice for choice in get_args(expected) if choice is not type(None)]
    optional = get_origin(expected) in (Union, UnionType) and len(choices) == 1
    return choices[0] if optional else expected


def _construct(cls: type, node: Mapping[str, Any], key: str) -> Any:
    parameters = {
        name: parameter
        for name, parameter in inspect.signature(cls).parameters.items()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }
    hints = get_type_hints(
        cls if dataclasses.is_dataclass(cls) else inspect.getattr_static(cls, "__init__"), include_extras=True
    )
    prefix = f"{key}." if key else ""
    for name in node:
        if name not in parameters:
            raise ConfigError(f"{prefix}{name}: unknown key; {nearest(str(name), parameters)}")
    for name, parameter in parameters.items():
        if name not in node and parameter.default is parameter.empty:
            raise ConfigError(f"{prefix}{name}: missing; expected {_describe(hints.get(name, Any))}")
    arguments = {name: parse(value, hints.get(name, Any), f"{prefix}{name}") for name, value in node.items()}
    return cls(**arguments)


def _leaf(value: Any, expected: Any, key: str) -> Any:
    if get_origin(_without_none(expected)) is tuple and isinstance(value, list):
        value = tuple(value)  # YAML has lists alone
    try:
        adapter = TypeAdapter(expected, config=ConfigDict(strict=True))
    except PydanticUserError:
        adapter = TypeAdapter(expected)
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        inner = "".join(f".{part}" for part in first["loc"] if isinstance(part, str) and part in str(value))
        if first["type"] == "literal_error":
            choices = [str(choice) for choice in getattr(expected, "__args__", ())]
            raise ConfigError(f"{key}: {value!r} is not a choice; {nearest(str(value), choices)}") from error
        wanted = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
        got = first["input"]
        raise ConfigError(f"{key}{inner}: expected {wanted}, got {got!r} ({type(got).__name__})") from error


def _describe(expected: Any) -> str:
    return getattr(expected, "__name__", str(expected))


def resolve_target(target: Any, role: Any, key: str) -> type:
    """The class that `target` names, if it lies in an allowed package *by its own identity* and has the role asked for.

    Nothing outside the allowed packages is imported, and a name that leads from one of them to something else
    (`aaca.data.images.Image`, a function, `os.system` by any alias) is refused.
    """
    allowed = ALLOWED + tuple(
        f"{name.strip()}." for name in os.environ.get(PLUGINS_VARIABLE, "").split(",") if name.strip()
    )
    refused = f"expected a class below {', '.join(prefix.rstrip('.') for prefix in allowed)}"
    if not isinstance(target, str) or not target.startswith(allowed):
        raise ConfigError(f"{key}: {target!r} is not allowed; {refused} (own packages: set {PLUGINS_VARIABLE})")
    module_name, _, name = target.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{key}: no module {module_name!r} ({error.name} is not installed or does not exist)"
        ) from error
    found = getattr(module, name, None)
    if found is None:
        raise ConfigError(f"{key}: {module_name} has no class {name!r}; {nearest(name, _classes(module))}")
    if not isinstance(found, type) or not f"{found.__module__}.".startswith(allowed):
        raise ConfigError(f"{key}: {target!r} is not allowed; {refused}")
    if not (isinstance(role, type) and issubclass(found, role)):
        raise ConfigError(f"{key}: {target!r} is not a {_describe(role)}")
    return found


def identity(plugin: object) -> dict[str, Any]:
    """What tells a plug-in from others in a stage's key: its class and arguments; a foreign class by its source too."""
    cls = type(plugin)
    found: dict[str, Any] = {"class": f"{cls.__module__}.{cls.__qualname__}", **vars(plugin)}
    if not cls.__module__.startswith("aaca."):
        source = inspect.getsourcefile(cls)
        found["source"] = file_sha256(Path(source)) if source else None
    return found


def foreign_sources(config: Any) -> dict[str, str | None]:
    """SHA-256 of the source of every plug-in class that `config` names and that is not aaca's own."""
    if isinstance(config, Mapping):
        found = {name: sha for value in config.values() for name, sha in foreign_sources(value).items()}
        target = config.get(TARGET)
        if isinstance(target, str) and not target.startswith("aaca."):
            source = inspect.getsourcefile(importlib.import_module(target.rpartition(".")[0]))
            found[target] = file_sha256(Path(source)) if source else None
        return found
    if isinstance(config, list | tuple):
        return {name: sha for value in config for name, sha in foreign_sources(value).items()}
    return {}


def _classes(module: ModuleType) -> list[str]:
    return [
        name for name, value in vars(module).items() if isinstance(value, type) and value.__module__ == module.__name__
    ]
