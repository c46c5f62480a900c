"""Secrets: refused on a command line, masked in everything that is written, and ordinary values left alone."""

import html
import json
import logging

import pytest

from aaca.runtime import secrets
from aaca.runtime.errors import ConfigError
from aaca.runtime.files import write_json, write_text
from aaca.runtime.log import setup_logging
from aaca.runtime.secrets import MASK, learn, redact, redacted, refuse_secrets

KEY = "0123456789abcdef" * 2 + "01234567"


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(secrets, "_learnt", set())


@pytest.mark.parametrize(
    "override",
    [
        f"logger.api_key={KEY}",
        f"+dataset.token='{KEY}'",
        "++hydra.job.env_set.WANDB_API_KEY=abcdef",
        "db.password=hunter2",
        f"study={KEY}",
        "study=sk-proj_0123456789abcdefXYZ",
        "study=hf_abcdefghijklmnopqrstuvwx",
        "+dataset={password:geheim12}",
        "+dataset={'inner':{'api_key': 'abcdefgh'}}",
    ],
)
def test_a_secret_on_the_command_line_is_refused_without_repeating_it(override, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with pytest.raises(ConfigError, match="does not belong on a command line") as caught:
        refuse_secrets(["seed=0", override])
    for value in (override.partition("=")[2].strip("'"), "geheim12", "abcdefgh"):
        assert value not in str(caught.value)


@pytest.mark.parametrize(
    "override",
    [
        "model.max_tokens=77",
        "tokenizer=clip",
        "dataset.token=${oc.env:HF_TOKEN}",
        "dataset.token=null",
        "seed=0,1,2",
        "~dataset.per_class",
        "model.secret_layer=blocks",
        "paths.root=/data/task-segmentation-2024-images",
        "paths.root=/data/sk-segmentation-2024-images",
    ],
)
def test_ordinary_overrides_pass(override):
    refuse_secrets([override])


def test_values_of_the_environment_and_of_configs_are_masked_in_files_and_logs(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MY_SERVICE_TOKEN", "value-of-the-environment")
    monkeypatch.setenv("LAB_KEY", "another-of-the-environment")
    monkeypatch.setenv("PIN_TOKEN", "12345678")  # would be found in any number
    assert redact("another-of-the-environment 0.12345678") == f"{MASK} 0.12345678"
    short = {"password": "geheim", "n": {"token": "x" * 99, "tokens": 7, "api_key": None}, "split": "test"}
    assert redacted(short) == {"password": MASK, "n": {"token": MASK, "tokens": 7, "api_key": None}, "split": "test"}
    learn(short)
    assert redact("geheim") == "geheim"  # too short to be told from a word out of its place
    monkeypatch.setenv("SOME_KEY_DIR_TOKEN", str(tmp_path))  # a path is no secret
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    learn({"db": {"password": 'with "quotes" & <marks>'}})
    assert redact(json.dumps({"x": 'with "quotes" & <marks>'})) == '{"x": "(secret)"}'
    assert redact(html.escape('with "quotes" & <marks>')) == "(secret)"
    learn({"dataset": {"password": "from-a-yaml", "list": [{"api_key": "in-a-list"}]}, "seed": 1})
    text = f"value-of-the-environment from-a-yaml in-a-list false {tmp_path} ghp_0123456789abcdefghij"
    assert redact(text) == f"{MASK} {MASK} {MASK} false {tmp_path} {MASK}"
    write_text(tmp_path / "a.txt", text)
    write_json(tmp_path / "a.json", {"x": text})
    for file in tmp_path.iterdir():
        assert "from-a-yaml" not in file.read_text()
        assert MASK in file.read_text()
    assert redacted({"a": ["from-a-yaml"]}) == {"a": [MASK]}
    write_json(tmp_path / "manifest.json", {"files": ["sk-segmentation-000000001.png"]})
    assert "sk-segmentation-000000001.png" in (tmp_path / "manifest.json").read_text()
    from aaca.runtime import log

    monkeypatch.setattr(log.console, "_file", None)  # not `file`: undoing that would pin this test's stream
    setup_logging()
    logging.getLogger("aaca").info("key is %s", "from-a-yaml")
    said = capsys.readouterr().err
    assert "key is (secret)" in said
    assert "from-a-yaml" not in said
