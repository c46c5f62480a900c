"""Every file of conf/prompts builds its writer, says what it is, and agrees with the class's defaults."""

import inspect
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from aaca.debugset.prompts.base import PromptWriter
from aaca.runtime.config import load_config, plain
from aaca.runtime.errors import ConfigError

FOLDER = Path(__file__).parents[3] / "conf" / "prompts"
NAMES = ["class_name", "templates", "llm_concepts", "llm_openai", "llm_local", "concept_sets"]


@dataclass(frozen=True)
class Job:
    prompts: PromptWriter


def load(name: str, **changes: object) -> PromptWriter:
    config = OmegaConf.create({"prompts": OmegaConf.load(FOLDER / f"{name}.yaml")})
    for key, value in changes.items():
        OmegaConf.update(config, f"prompts.{key.replace('__', '.')}", value)
    return load_config(plain(config), Job).prompts


@pytest.fixture
def model(tmp_path) -> str:
    (tmp_path / "config.json").write_text("{}")
    return str(tmp_path)


def test_the_options_are_all_there():
    assert sorted(path.stem for path in FOLDER.glob("*.yaml")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_an_option_builds_and_agrees_with_its_class(name, model, key):
    assert (FOLDER / f"{name}.yaml").read_text().startswith("# ")
    writer = load(name, provider__folder=model) if name == "llm_local" else load(name)
    config = OmegaConf.to_container(OmegaConf.load(FOLDER / f"{name}.yaml"))
    built_from = [(writer, config)]
    if "provider" in config:
        built_from.append((writer.provider, config["provider"]))
    for built, node in built_from:
        defaults = {key: p.default for key, p in inspect.signature(type(built)).parameters.items()}
        given = {key: value for key, value in node.items() if key in defaults}
        required = {key for key, value in defaults.items() if value is inspect.Parameter.empty}
        assert all(defaults[key] == value for key, value in given.items() if key not in required), node
        assert set(given) == set(defaults)


@pytest.mark.parametrize("name", ["class_name", "templates", "llm_concepts"])
def test_an_option_without_a_model_writes(name, tmp_path):
    prompts = load(name).write(["bird", "flower"], tmp_path)
    assert {prompt.label for prompt in prompts} == {0, 1}
    assert all(prompt.text.count("{class}") == 1 for prompt in prompts)
    assert (
        len({(prompt.label, prompt.text) for prompt in prompts}) == len(prompts) == (2 if name == "class_name" else 20)
    )


def test_wrong_values_name_the_full_key():
    with pytest.raises(ConfigError, match=r"^prompts\.n: expected .* got 'ten'"):
        load("llm_concepts", n="ten")
    with pytest.raises(ConfigError, match=r"^prompts\.provider\._target_: .* is not a ConceptProvider"):
        load("llm_concepts", provider___target_="aaca.debugset.prompts.class_name.ClassName")
    with pytest.raises(ConfigError, match=r"^prompts\.provider: expected a group of keys, got 'static'"):
        load("llm_concepts", provider="static")
    with pytest.raises(ConfigError, match=r"prompts\.provider\.folder"):
        load("llm_local")


def test_a_missing_key_is_told_before_any_work(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY is not set"):
        load("llm_openai")


def test_importing_is_cheap():
    modules = ["static", "openai_api", "local"]
    code = "import sys; " + "; ".join(f"import aaca.debugset.prompts.providers.{name}" for name in modules)
    code += "; import aaca.debugset.prompts.llm_concepts, aaca.debugset.prompts.templates"
    code += "; sys.exit(str(sorted({'torch', 'transformers', 'openai'} & set(sys.modules))))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr.strip() == "[]"
