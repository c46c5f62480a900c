"""Any OpenAI-compatible endpoint: good answers, bad ones, none at all; one line each, and never the key."""

import json
import socket
import time

import pytest

from aaca.debugset.prompts.llm_concepts import LlmConcepts
from aaca.debugset.prompts.providers.openai_api import OpenAIConcepts
from aaca.runtime.errors import AacaError, ConfigError

NONSENSE = "I am a teapot, short and stout."


def write(endpoint, tmp_path, retries: int = 3, **arguments) -> list[str]:
    provider = OpenAIConcepts("tiny", base_url=endpoint.url, **arguments)
    return [prompt.text for prompt in LlmConcepts(provider, retries=retries).write(["bird"], tmp_path)]


def refused(endpoint, tmp_path, **arguments) -> str:
    """The one line of the error."""
    with pytest.raises(AacaError) as caught:
        write(endpoint, tmp_path, **arguments)
    line = str(caught.value)
    assert line.startswith(f"prompts.provider: tiny at {endpoint.url}: ") and "\n" not in line and len(line) < 450
    return line


def test_a_good_answer(endpoint, tmp_path, parts):
    assert write(endpoint, tmp_path) == [f"{{class}} with {part}" for part in parts]
    (request,) = endpoint.requests
    assert (request["model"], request["temperature"], request["seed"]) == ("tiny", 0, 0)
    assert [message["role"] for message in request["messages"]] == ["system", "user"]
    assert 'Class: "bird"' in request["messages"][1]["content"]
    assert endpoint.keys == ["Bearer none"]


def test_a_fenced_answer(endpoint, tmp_path, parts):
    endpoint.script = [f"Sure!\n```json\n{json.dumps(parts)}\n```"]
    assert len(write(endpoint, tmp_path)) == 10


def test_nonsense_twice_then_good(endpoint, tmp_path, parts):
    endpoint.script = [NONSENSE, json.dumps(["<aaca-bird>", *parts]), json.dumps(parts)]
    assert len(write(endpoint, tmp_path)) == 10
    last = [request["messages"][1]["content"].splitlines()[-1] for request in endpoint.requests]
    assert "1 concepts came" in last[1] and "'<aaca-bird>'" in last[2]


def test_always_nonsense(endpoint, tmp_path):
    endpoint.script = [NONSENSE]
    line = refused(endpoint, tmp_path)
    assert "class 'bird'" in line and "the last of 4 answers was 'I am a teapot" in line
    assert len(endpoint.requests) == 4


def test_it_hangs(endpoint, tmp_path):
    endpoint.script = [None]
    began = time.monotonic()
    assert "no answer within 0.3 s; run again or set prompts.provider.timeout=" in refused(
        endpoint, tmp_path, timeout=0.3
    )
    assert time.monotonic() - began < 4
    assert len(endpoint.requests) == 2


def test_connection_refused(endpoint, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint.url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        line = refused(endpoint, tmp_path)
    assert "cannot be reached" in line and "refused" in line and line.endswith("prompts.provider.base_url=")


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (401, "set OPENAI_API_KEY"),
        (403, "set OPENAI_API_KEY"),
        (404, "set prompts.provider.model= or prompts.provider.base_url="),
        (400, "set prompts.provider.model="),
    ],
)
def test_a_status_says_what_to_do(endpoint, tmp_path, key, status, remedy):
    endpoint.script = [(status, json.dumps({"error": {"message": f"you said {key}\nand {'x' * 999}"}}))]
    line = refused(endpoint, tmp_path)
    assert f"status {status}" in line and remedy in line
    assert key not in line and key[3:] not in line
    assert endpoint.keys == [f"Bearer {key}"]


@pytest.mark.parametrize(
    ("status", "remedy"), [(429, "the rate or the quota is used up: wait"), (503, "run again later")]
)
def test_a_passing_trouble_is_tried_once_more(endpoint, tmp_path, status, remedy):
    endpoint.script = [(status, "{}")]
    assert remedy in refused(endpoint, tmp_path)
    assert len(endpoint.requests) == 2


@pytest.mark.parametrize(
    "body",
    [
        "<html>welcome</html>",
        "{not json",
        "{}",
        '{"choices": []}',
        '{"choices": [{"text": "a beak"}]}',
        '{"choices": {"a": 1}}',
        '{"choices": [null]}',
    ],
)
def test_status_200_from_something_else(endpoint, tmp_path, body):
    endpoint.script = [(200, body)]
    assert "does not answer as an OpenAI-compatible endpoint" in refused(endpoint, tmp_path)


def test_an_answer_without_text_is_a_refused_answer(endpoint, tmp_path):
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": None}}
    endpoint.script = [(200, json.dumps({"id": "1", "object": "chat.completion", "created": 1, "choices": [choice]}))]
    assert "0 concepts came" in refused(endpoint, tmp_path, retries=0)


def test_the_key_is_kept_nowhere(endpoint, tmp_path, key, parts):
    endpoint.script = [f"your key is {key}", json.dumps([key, *parts[1:]]), json.dumps(parts)]
    provider = OpenAIConcepts("tiny", base_url=endpoint.url)
    LlmConcepts(provider).write(["bird"], tmp_path)
    kept = (tmp_path / "answers.jsonl").read_text()
    assert kept.count("(secret)") == 2
    for text in (kept, repr(vars(provider)), repr(provider), json.dumps(provider.fingerprint()), provider.name):
        assert key not in text
    assert all(key not in json.dumps(request) for request in endpoint.requests)


def test_another_variable_may_hold_the_key(endpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_LLM", "plain-words-as-key")
    endpoint.script = [(400, json.dumps({"error": {"message": "bad plain-words-as-key"}}))]
    assert "plain-words-as-key" not in refused(endpoint, tmp_path, key_variable="MY_LLM")
    assert endpoint.keys == ["Bearer plain-words-as-key"]


def test_without_a_key_only_an_endpoint_of_ones_own_goes(monkeypatch):
    monkeypatch.delenv("SOME_KEY", raising=False)
    OpenAIConcepts("tiny", base_url="http://127.0.0.1:1/v1", key_variable="SOME_KEY")
    with pytest.raises(ConfigError, match=r"^prompts\.provider\.key_variable: .* SOME_KEY is not set"):
        OpenAIConcepts("tiny", key_variable="SOME_KEY")


@pytest.mark.parametrize("value", ["two words", "kéy", "a\nb"])
def test_what_cannot_be_a_key_is_refused_unseen(monkeypatch, value):
    monkeypatch.setenv("SOME_KEY", value)
    with pytest.raises(ConfigError, match="SOME_KEY does not hold a key") as caught:
        OpenAIConcepts("tiny", key_variable="SOME_KEY")
    assert value not in str(caught.value)


def test_the_package_is_optional(monkeypatch, key):
    monkeypatch.setattr("aaca.models.chat.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'aaca\[llm\]'"):
        OpenAIConcepts("tiny")


@pytest.mark.parametrize("url", ["", "127.0.0.1:80", "ftp://x/v1", "http://", "http://[", "file:///etc/passwd"])
def test_an_address_that_is_none(url):
    with pytest.raises(ConfigError, match=r"^prompts\.provider\.base_url: .* is no address"):
        OpenAIConcepts("tiny", base_url=url)


@pytest.mark.parametrize("url", ["http://me:hunter2@x/v1", "http://x/v1?key=hunter2"])
def test_an_address_holds_no_secret(url):
    with pytest.raises(ConfigError, match="without user, password and query") as caught:
        OpenAIConcepts("tiny", base_url=url)
    assert "hunter2" not in str(caught.value)


def test_impossible_settings(key):
    with pytest.raises(ConfigError, match=r"^prompts\.provider\.timeout"):
        OpenAIConcepts("tiny", timeout=0.0)
    with pytest.raises(ConfigError, match=r"^prompts\.provider\.model"):
        OpenAIConcepts(" ")


def test_the_config_alone_says_where_answers_come_from(monkeypatch, key):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://elsewhere/v1")
    provider = OpenAIConcepts("gpt-4o-mini")
    assert provider.name == "gpt-4o-mini at https://api.openai.com/v1"
    assert provider.fingerprint() == {
        "provider": "openai",
        "model": "gpt-4o-mini",
        "base_url": "https://api.openai.com/v1",
    }
    assert not provider.offline and not provider.fixed
