"""Typed configuration: every wrong key, type and target is refused in one line that names it."""

import os
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from omegaconf import OmegaConf
from pydantic import Field

from aaca.debugset.selectors.base import Selector
from aaca.debugset.selectors.similarity import Similarity
from aaca.runtime.config import PLUGINS_VARIABLE, load_config, plain, resolve_target
from aaca.runtime.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Inner:
    per_class: Annotated[int, Field(ge=1)]
    fill: Literal["none", "random"] = "none"


@dataclass(frozen=True, kw_only=True)
class Schema:
    inner: Inner
    selector: Selector
    rate: float = 0.5
    note: str | None = None


SIMILARITY = {"_target_": "aaca.debugset.selectors.similarity.Similarity"}


def load(**changes: Any) -> Schema:
    base: dict[str, Any] = {"inner": {"per_class": 3}, "selector": SIMILARITY}
    return load_config(plain(OmegaConf.create({**base, **changes})), Schema)


def test_a_valid_config_becomes_typed_objects_and_plugins():
    loaded = load(rate=1)
    assert loaded.inner == Inner(per_class=3, fill="none")
    assert isinstance(loaded.selector, Similarity)
    assert loaded.rate == 1.0


@pytest.mark.parametrize(
    ("changes", "key", "said"),
    [
        ({"inner": {"per_clas": 3}}, "inner.per_clas", "nearest valid: per_class"),
        ({"inner": {"per_class": "many"}}, "inner.per_class", "expected a valid integer, got 'many'"),
        ({"inner": {"per_class": 2.5}}, "inner.per_class", "integer"),
        ({"inner": {"per_class": True}}, "inner.per_class", "integer"),
        ({"inner": {"per_class": 0}}, "inner.per_class", "greater than or equal to 1"),
        ({"inner": {"per_class": 1, "fill": "rnadom"}}, "inner.fill", "nearest valid: random"),
        ({"inner": {}}, "inner.per_class", "missing"),
        ({"inner": 4}, "inner", "expected a group of keys"),
        ({"sed": 1}, "sed", "unknown key"),
        ({"rate": "fast"}, "rate", "number"),
        ({"rate": "${nothing.here}"}, "rate", "nothing.here"),
        ({"rate": "???"}, "rate", "Missing mandatory value"),
        ({"selector": {**SIMILARITY, "redcue": "min"}}, "selector.redcue", "nearest valid: reduce"),
        ({"selector": {**SIMILARITY, "reduce": "mni"}}, "selector.reduce", "min"),
        ({"selector": {"reduce": "min"}}, "selector._target_", "missing"),
    ],
)
def test_a_wrong_config_is_one_line_with_the_key(changes: dict[str, Any], key: str, said: str):
    with pytest.raises(ConfigError) as caught:
        load(**changes)
    message = str(caught.value)
    assert message.startswith(key)
    assert said in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "target",
    [
        "torch.load",
        "os.system",
        "builtins.eval",
        "subprocess.Popen",
        "logging.os.system",  # an alias of os.system
        "aaca.runtime.files.os.system",  # the same through our own package
        "aaca.data.images.Image.open",
        "aaca.data.features.np.load",
        "aaca.models.checkpoint.torch.load",
        "aaca.models.checkpoint.load_file",  # foreign function imported into an allowed module
        "aaca.data.images.open_image",  # ours, but not a class
        "aaca.models.classifier.nn",
        "aaca.debugset.selectors.base.np.ndarray",
        "aaca.data.imagefolder.ImageFolder",  # ours, but not of the role asked for
        "aaca",
        "",
        7,
    ],
)
def test_targets_outside_the_allowlist_or_the_role_are_refused_and_not_called(target: Any, monkeypatch):
    called: list[str] = []
    monkeypatch.setattr(os, "system", lambda command: called.append(command))
    with pytest.raises(ConfigError, match=r"selector\._target_"):
        load(selector={"_target_": target, "command": "true"})
    assert called == []


def test_modules_outside_the_allowlist_are_not_even_imported(tmp_path, monkeypatch):
    (tmp_path / "evil_module.py").write_text("import pathlib; pathlib.Path(__file__).with_name('imported').touch()")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError):
        load(selector={"_target_": "evil_module.Selector"})
    assert not (tmp_path / "imported").exists()


def test_an_unknown_class_names_the_nearest_and_own_packages_can_be_allowed(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="nearest valid: Similarity"):
        load(selector={"_target_": "aaca.debugset.selectors.similarity.Similarty"})
    source = "from aaca.debugset.selectors.random import Random\nclass Mine(Random): pass\n"
    (tmp_path / "my_lab.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    target = "my_lab.Mine"
    with pytest.raises(ConfigError, match=PLUGINS_VARIABLE):
        resolve_target(target, Selector, "selector._target_")
    monkeypatch.setenv(PLUGINS_VARIABLE, "my_lab")
    assert resolve_target(target, Selector, "selector._target_").__name__ == "Mine"
