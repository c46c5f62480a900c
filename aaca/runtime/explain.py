"""Errors as one line: those that a user can mend, in the words of the config."""

import importlib
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from aaca.runtime.errors import AacaError, nearest
from aaca.runtime.files import DISK_ERRORS

SMALLER = "lower recipe.batch_size (and raise recipe.accumulate to keep the updates the same)"


def one_line(error: Exception, name: str) -> str | None:
    """The line to show for an error that the user can mend; None for a defect of ours, which deserves its traceback."""
    if isinstance(error, AacaError):
        return None if getattr(error, "trace", None) else str(error)
    if isinstance(error, HydraException | OmegaConfBaseException):
        return explain(error, name)
    if isinstance(error, ValueError) and str(error).startswith("Config group override must be"):
        return _no_option()
    if isinstance(error, OSError) and (error.filename is not None or error.errno in DISK_ERRORS):
        return f"{error.filename or 'paths.root'}: {error.strerror}"
    if out_of_memory(error):
        return f"out of memory ({summary(error)}); {SMALLER}"
    return None


def out_of_memory(error: Exception) -> bool:
    """Whether Python, the GPU or the CPU allocator of torch had no memory left."""
    text = str(error)
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and (type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator: can't allocate memory" in text)
    )


def summary(error: Exception) -> str:
    """Type and message of any error, in one line of bounded length."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def explain(error: Exception, name: str) -> str:
    """One line for an error of Hydra's or OmegaConf's in job `name`: the key, what was wrong, the nearest choices."""
    text = str(error)
    option = re.search(r"Could not find '([\w/]+)/([^'/]+)'\n\nAvailable options in '[^']*':\n((?:\t.*\n?)+)", text)
    if option:
        group, value, listed = option.groups()
        return f"{group}: no option {value!r}; {nearest(value, listed.split())}"
    unknown = re.search(r"Could not override '([^']+)'", text)
    if unknown:
        parent, _, key = unknown.group(1).rpartition(".")
        config = _composed(name)
        node = OmegaConf.select(config, parent) if parent else config
        siblings = [str(one) for one in node] if isinstance(node, DictConfig) else []
        if siblings:
            choices = nearest(key, siblings)
        else:
            whole = OmegaConf.to_container(config, resolve=False)
            assert isinstance(whole, dict)
            choices = nearest(unknown.group(1), _keys(whole))
        return f"{unknown.group(1)}: unknown key; {choices}"
    return " ".join(text.split())


def _no_option() -> str:
    """The line for a group that the command line sets to nothing."""
    folder = Path(importlib.import_module("aaca.conf").__path__[0])
    for item in sys.argv[1:]:
        group, _, value = item.partition("=")
        if {"null", ""} & set(value.split(",")) and (folder / group).is_dir():
            options = sorted(file.stem for file in (folder / group).glob("*.yaml"))
            return (
                f"{group}: null is no option; leave it out (~{group} takes it out of a preset), or {', '.join(options)}"
            )
    return "a config group is set to nothing; leave it out, or give it one of its options"


def _composed(name: str) -> DictConfig:
    """The job's config with the command line's group choices."""
    GlobalHydra.instance().clear()
    groups = Path(importlib.import_module("aaca.conf").__path__[0])
    choices = [item for item in sys.argv[1:] if (groups / item.split("=")[0]).is_dir() and "," not in item]
    with hydra.initialize_config_module("aaca.conf", version_base="1.3"):
        return hydra.compose(name, overrides=choices)


def _keys(node: Mapping[Any, Any], above: str = "") -> Iterator[str]:
    """All keys at any depth, each with those above it: `graphs.images`."""
    for key, value in node.items():
        yield f"{above}{key}"
        if isinstance(value, Mapping):
            yield from _keys(value, f"{above}{key}.")
