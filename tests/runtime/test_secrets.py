"""Secrets: refused on a command line, masked in everything that is written, and ordinary values left alone."""

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
        "paths.root=/tmp/hf_abcdefghijklmnopqrstuvwx",
    ],
)
def test_a_secret_on_the_command_line_is_refused_without_repeating_it(override, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with pytest.raises(ConfigError, match="does not belong on a command line") as caught:
        refuse_secrets(["seed=0", override])
    value = override.partition("=")[2].strip("'")
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
    ],
)
def test_ordinary_overrides_pass(override):
    refuse_secrets([override])


def test_values_of_the_environment_and_of_configs_are_masked_in_files_and_logs(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MY_SERVICE_TOKEN", "value-of-the-environment")
    monkeypatch.setenv("SOME_KEY_DIR_TOKEN", str(tmp_path))  # a path is no secret
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    learn({"dataset": {"password": "from-a-yaml", "list": [{"api_key": "in-a-list"}]}, "seed": 1})
    text = f"value-of-the-environment from-a-yaml in-a-list false {tmp_path} ghp_0123456789abcdefghij"
    assert redact(text) == f"{MASK} {MASK} {MASK} false {tmp_path} {MASK}"
    write_text(tmp_path / "a.txt", text)
    write_json(tmp_path / "a.json", {"x": text})
    for file in tmp_path.iterdir():
        assert "from-a-yaml" not in file.read_text()
        assert MASK in file.read_text()
    assert redacted({"a": ["from-a-yaml"]}) == {"a": [MASK]}
    from aaca.runtime import log

    monkeypatch.setattr(log.console, "file", None, raising=False)
    setup_logging()
    logging.getLogger("aaca").info("key is %s", "from-a-yaml")
    said = capsys.readouterr().err
    assert "from-a-yaml" not in said
