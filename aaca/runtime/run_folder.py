"""A run's folder belongs to one config: `run.json` says to which, so that nothing is mixed or overwritten unasked."""

import os
import platform
import time
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from aaca import __version__
from aaca.runtime.config import foreign_sources
from aaca.runtime.errors import ConfigError
from aaca.runtime.files import digest, ensure_writable, read_json, write_json, write_text
from aaca.runtime.ranks import current
from aaca.runtime.secrets import redacted
from aaca.runtime.trial import IMMATERIAL, Trial

RUN, CONFIG = "run.json", "config.yaml"


def claim(trial: Trial, dataset: Mapping[str, Any], force: bool) -> str:
    """Take the trial's folder for its (parsed) config and this dataset; the hash of these and of the code.

    All ranks call it and compare what they hold. Raises `AacaError` with all values when they hold different datasets,
    `ConfigError` when the folder is another config's and not `force`.
    """
    ranks = current()
    code = digest({"aaca": __version__, "plugins": foreign_sources(trial.config)})
    mine = {"config": trial.config_sha256, "dataset": digest(dataset), "code": code}
    who = {"rank": ranks.rank, **mine, "pid": os.getpid(), "host": platform.node()}
    everyone = ranks.exchange(who)
    ranks.agree("dataset", mine["dataset"])
    problem = None
    if ranks.rank == 0:
        try:
            _claim(trial, mine, everyone, force)
        except ConfigError as error:
            problem = str(error)
    problem = ranks.share(problem)
    if problem:
        raise ConfigError(problem)
    return digest(mine)


def _claim(trial: Trial, mine: Mapping[str, str], everyone: list[dict[str, Any]], force: bool) -> None:
    file = trial.path / RUN
    before = read_json(file) if file.is_file() else None
    if before is not None and before["config"] != mine["config"] and not force:
        raise ConfigError(
            f"resume.force: {trial.path} holds a run of another config ({before['config'][:8]}…, this one is "
            f"{mine['config'][:8]}…{_differences(trial)}); resume.force=true puts this one in its place, another "
            "paths.root keeps both"
        )
    ensure_writable(trial.path, "paths.root")
    shown = yaml.safe_dump(redacted(trial.config), sort_keys=False, allow_unicode=True, width=10_000)
    write_text(trial.path / CONFIG, shown)
    write_json(file, {**mine, "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "ranks": everyone})


def _differences(trial: Trial) -> str:
    file = trial.path / CONFIG
    if not file.is_file():
        return ""
    before = dict(_flat(yaml.safe_load(file.read_text(encoding="utf-8"))))
    now = dict(_flat(redacted(trial.config)))
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key) and _counts(key)]
    shown = "; ".join(f"{key}: {before.get(key)} → {now.get(key)}" for key in changed[:3])
    return f"; {shown}{' …' if len(changed) > 3 else ''}" if changed else ""


def _counts(key: str) -> bool:
    return key.partition(".")[0] not in IMMATERIAL


def _flat(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _flat(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, node
