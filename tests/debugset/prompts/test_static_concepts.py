"""Lists in a file: the shipped ones and a person's own."""

import os

import pytest

from aaca.data.places365 import CLASSES
from aaca.debugset.prompts.llm_concepts import LlmConcepts
from aaca.debugset.prompts.providers.static import StaticConcepts
from aaca.runtime.errors import ConfigError
from aaca.world.captions import PARTS


def concepts(tmp_path, *classes: str, file: str | None = None, n: int = 10) -> list[str]:
    prompts = LlmConcepts(StaticConcepts(file), n=n).write(classes, tmp_path / "cache")
    return [prompt.text.removeprefix("{class} with ") for prompt in prompts]


def test_the_embedded_model_is_asked_for_the_words_it_has_learnt(tmp_path):
    for name, parts in PARTS.items():
        assert concepts(tmp_path, name) == list(parts)


def test_every_shipped_scene_has_ten_concepts_and_nothing_is_cached(tmp_path):
    assert len(concepts(tmp_path, *CLASSES)) == 10 * len(CLASSES)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("name", ["museum/indoor", "/m/museum/indoor", "indoor museum"])
def test_a_class_is_found_however_it_is_written(tmp_path, name):
    assert concepts(tmp_path, name, n=2) == ["display cases", "a skeleton"]


def test_an_unknown_class_names_the_nearest_and_the_way_out(tmp_path):
    with pytest.raises(ConfigError, match=r"class 'kitchn'; nearest valid: kitchen.*prompts\.provider\.file=$"):
        concepts(tmp_path, "kitchn")


def test_own_lists(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("no: [a door, walls]\n1: [dots, a line]\n")
    assert concepts(tmp_path, "no", "1", file=str(file), n=2) == ["a door", "walls", "dots", "a line"]


def test_a_list_that_is_too_short_or_not_of_things_is_named(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("dog: [fur, a tail]\ncat: [fur, <aaca-cat>]\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml: class 'dog': 2 concepts came, 3 are needed.*prompts\.n="):
        concepts(tmp_path, "dog", file=str(file), n=3)
    with pytest.raises(ConfigError, match=r"mine\.yaml: class 'cat': concept 2"):
        concepts(tmp_path, "cat", file=str(file), n=2)


@pytest.mark.parametrize(
    "content",
    ["", "- a\n- b\n", "dog: fur", "dog: [[a], b]", "dog: {a: b}", "a: b: c", "dog: [", b"\xff\xfe\x00", "[" * 1000],
)
def test_a_file_of_another_kind_is_refused_before_any_work(tmp_path, content):
    file = tmp_path / "mine.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(
        ConfigError, match=r"^prompts\.provider\.file: .*expected a (mapping of class to list|list)"
    ) as caught:
        StaticConcepts(str(file))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused_before_any_work(tmp_path):
    for path in (tmp_path / "absent.yaml", tmp_path):
        with pytest.raises(ConfigError, match=r"^prompts\.provider\.file: cannot read .*expected a YAML file"):
            StaticConcepts(str(path))


def test_the_fingerprint_is_of_the_content_not_the_place(tmp_path):
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text("dog: [fur]\n")
    one, same = (StaticConcepts(os.fspath(tmp_path / name)) for name in ("a.yaml", "b.yaml"))
    assert one.fingerprint() == same.fingerprint() != StaticConcepts().fingerprint()
    assert repr(one) == repr(same)
