"""Every file of conf/selector builds its selector, says where it comes from, and agrees with the class's defaults."""

import inspect
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from aaca.debugset.selectors.base import Selector
from aaca.runtime.config import parse
from aaca.runtime.errors import ConfigError

FOLDER = Path(__file__).parents[2] / "conf" / "selector"
NAMES = ["random", "similarity", "entropy", "margin", "least_confidence", "bald", "nearest_failure"]
NAMES += ["coreset", "badge", "typiclust", "entropy_distance"]


def node(name: str) -> dict:
    return OmegaConf.to_container(OmegaConf.load(FOLDER / f"{name}.yaml"))


def test_the_options_are_all_there():
    assert sorted(path.stem for path in FOLDER.glob("*.yaml")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_an_option_builds_and_agrees_with_its_class(name):
    assert (FOLDER / f"{name}.yaml").read_text().startswith("# ")
    config = node(name)
    selector = parse(config, Selector, "selector")
    assert isinstance(selector, Selector)
    defaults = {key: p.default for key, p in inspect.signature(type(selector)).parameters.items()}
    assert {key: value for key, value in config.items() if key != "_target_"} == {
        key: list(value) if isinstance(value, tuple) else value for key, value in defaults.items()
    }


def test_a_job_reads_from_the_selector_what_it_has_to_prepare():
    selectors = {name: parse(node(name), Selector, "selector") for name in NAMES}
    assert {name: s.mc_samples for name, s in selectors.items() if s.mc_samples > 1} == {"bald": 20}
    assert [name for name, s in selectors.items() if s.needs_train] == ["coreset"]
    assert parse({**node("entropy"), "mc_samples": 8}, Selector, "selector").mc_samples == 8


def test_wrong_values_name_the_full_key():
    with pytest.raises(ConfigError, match=r"^selector.modes: expected .* got 'three'"):
        parse({**node("similarity"), "modes": "three"}, Selector, "selector")
    with pytest.raises(ConfigError, match=r"^selector.weights"):
        parse({**node("entropy_distance"), "weights": "far"}, Selector, "selector")
    with pytest.raises(ConfigError, match=r"^selector.seeds: unknown key"):
        parse({**node("badge"), "seeds": 3}, Selector, "selector")
