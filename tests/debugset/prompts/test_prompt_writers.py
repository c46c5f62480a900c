"""Prompts by class name, by templates and by concepts."""

import json
import re

import pytest

from aaca.debugset.prompts.class_name import ClassName
from aaca.debugset.prompts.llm_concepts import LlmConcepts
from aaca.debugset.prompts.templates import Templates
from aaca.runtime.config import identity
from aaca.runtime.errors import AacaError, ConfigError
from aaca.runtime.files import digest

NONSENSE = "The quick brown fox jumps over the lazy dog."


def test_class_name_is_one_prompt_a_class(tmp_path):
    prompts = ClassName().write(["bird", "flower"], tmp_path)
    assert [(p.label, p.text, p.negative, p.concept) for p in prompts] == [
        (0, "a photo of {class}", "", ""),
        (1, "a photo of {class}", "", ""),
    ]
    assert ClassName().fingerprint() == {}


def test_templates_are_all_asked_of_every_class(tmp_path):
    prompts = Templates(["a {class}", "{class} at night"]).write(["bird", "flower"], tmp_path)
    assert [(p.label, p.text) for p in prompts] == [
        (0, "a {class}"),
        (0, "{class} at night"),
        (1, "a {class}"),
        (1, "{class} at night"),
    ]


@pytest.mark.parametrize(
    "template", ["a photo", "{class} and {class}", "{clas}", "{class} on {ground}", "{class} {", ""]
)
def test_a_template_has_the_slot_once_and_no_other(template):
    with pytest.raises(ConfigError, match=r"^prompts\.templates\[1\]: .*expected"):
        Templates(["{class}", template])


def test_no_template_is_a_mistake():
    with pytest.raises(ConfigError, match=r"^prompts\.templates: none given"):
        Templates([])


def test_concepts_come_with_their_articles_and_the_class_stays_a_slot(tmp_path, scripted):
    provider = scripted(json.dumps(["beak", "feathers", "glass", "an hour", "fur", "the iris", "oil paint"]))
    prompts = LlmConcepts(provider, "a photo of {class} with {concept}", n=7).write(["bird"], tmp_path)
    assert [p.text.removeprefix("a photo of {class} with ") for p in prompts] == [
        "a beak",
        "feathers",
        "a glass",
        "an hour",
        "fur",
        "iris",
        "oil paint",
    ]
    assert [p.concept for p in prompts] == ["beak", "feathers", "glass", "hour", "fur", "iris", "oil paint"]
    assert {p.label for p in prompts} == {0}
    assert all(p.text.count("{class}") == 1 for p in prompts)


def test_classes_are_asked_one_after_the_other_and_the_provider_is_closed(tmp_path, scripted, parts):
    provider = scripted(json.dumps(parts))
    prompts = LlmConcepts(provider).write(["bird", "hen"], tmp_path)
    assert [p.label for p in prompts] == [0] * 10 + [1] * 10
    assert provider.asked == [("bird", 10, ""), ("hen", 10, "")]
    assert provider.closed == 1


def test_after_a_refused_answer_the_model_hears_why_and_is_asked_again(tmp_path, scripted, parts):
    provider = scripted(NONSENSE, json.dumps(parts[:4]), json.dumps(parts))
    assert len(LlmConcepts(provider).write(["bird"], tmp_path)) == 10
    complaints = [complaint for _, _, complaint in provider.asked]
    assert complaints == ["", "1 concepts came, 10 are needed", "4 concepts came, 10 are needed"]


def test_a_model_that_never_answers_properly_ends_in_one_clear_line(tmp_path, scripted):
    provider = scripted("x" * 5000 + "\n" + NONSENSE)
    with pytest.raises(AacaError) as caught:
        LlmConcepts(provider, retries=2).write(["bi\nrd\x1b[31m"], tmp_path)
    line = str(caught.value)
    assert line.startswith("prompts.provider: scripted-1: class 'bird[31m': expected 10 distinct concepts")
    assert "the last of 3 answers was 'xxx" in line and "2 concepts came" in line
    assert line.endswith("prompts=llm_concepts (provider static)")
    assert "\n" not in line and "\x1b" not in line and len(line) < 400
    assert len(provider.asked) == 3 and provider.closed == 1


def test_no_retries_means_one_question(tmp_path, scripted):
    provider = scripted(NONSENSE)
    with pytest.raises(AacaError, match="the last of 1 answers"):
        LlmConcepts(provider, retries=0).write(["bird"], tmp_path)
    assert len(provider.asked) == 1


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"template": "{class}"}, "prompts.template"),
        ({"template": "{concept}"}, "prompts.template"),
        ({"template": "{class} {concept} {x}"}, "prompts.template"),
        ({"n": 0}, "prompts.n"),
        ({"n": 101}, "prompts.n"),
        ({"retries": -1}, "prompts.retries"),
    ],
)
def test_impossible_settings_name_their_key(scripted, arguments, key):
    with pytest.raises(ConfigError, match=rf"^{re.escape(key)}: .*expected"):
        LlmConcepts(scripted(""), **arguments)


def test_equal_writers_have_equal_stage_keys(scripted):
    one, same, other = (LlmConcepts(scripted("", name=name)) for name in ("m", "m", "n"))
    assert one.fingerprint() == {"provider": "scripted", "name": "m"}
    assert digest(identity(one)) == digest(identity(same)) != digest(identity(other))
