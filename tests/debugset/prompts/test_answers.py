"""Answers are kept: asked once, safe to append to at once, readable after a kill."""

import json
import threading

import pytest

from aaca.debugset.prompts.answers import Answers
from aaca.debugset.prompts.llm_concepts import LlmConcepts
from aaca.runtime.errors import AacaError


def test_the_second_run_asks_nothing(tmp_path, scripted, parts):
    first, second = scripted("nonsense", json.dumps(parts)), scripted("nonsense")
    prompts = LlmConcepts(first).write(["bird"], tmp_path)
    assert LlmConcepts(second).write(["bird"], tmp_path) == prompts
    assert len(first.asked) == 2 and second.asked == []


def test_the_second_run_makes_no_request(tmp_path, endpoint):
    from aaca.debugset.prompts.providers.openai_api import OpenAIConcepts

    for _ in range(2):
        LlmConcepts(OpenAIConcepts("tiny", base_url=endpoint.url)).write(["bird"], tmp_path)
    assert len(endpoint.requests) == 1


def test_another_model_class_or_number_is_another_question(tmp_path, scripted, parts):
    LlmConcepts(scripted(json.dumps(parts))).write(["bird"], tmp_path)
    for provider, name, n in [
        (scripted(json.dumps(parts), name="other"), "bird", 10),
        (scripted(json.dumps(parts)), "hen", 10),
        (scripted(json.dumps(parts)), "bird", 9),
    ]:
        LlmConcepts(provider, n=n).write([name], tmp_path)
        assert len(provider.asked) == 1


def test_what_is_on_a_line(tmp_path):
    answers = Answers(tmp_path / "cache")
    answers.record("m", "p", "raw\nanswer \ud800", None)
    answers.record("m", "p", "[]", ["a beak"])
    lines = [json.loads(line) for line in answers.file.read_text().splitlines()]
    assert [sorted(line) for line in lines] == [["accepted", "answer", "model", "prompt", "time"]] * 2
    assert [line["accepted"] for line in lines] == [None, ["a beak"]]
    assert lines[0]["answer"] == "raw\nanswer \ud800"


def test_refused_answers_are_not_used_and_the_last_accepted_one_is(tmp_path):
    answers = Answers(tmp_path)
    assert answers.accepted("m", "p") is None
    for accepted in (None, ["a beak"], ["wings"], None):
        answers.record("m", "p", "", accepted)
    assert answers.accepted("m", "p") == ["wings"]
    assert answers.accepted("m", "q") is None and answers.accepted("n", "p") is None


@pytest.mark.parametrize("torn", [b'{"model": "m", "prompt": "p", "acc', b"\xff\xfe", b"[1]", b"null", b"{}", b"["])
def test_a_torn_line_costs_that_line_only(tmp_path, torn):
    answers = Answers(tmp_path)
    answers.record("m", "p", "", ["a beak"])
    with answers.file.open("ab") as stream:
        stream.write(torn)
    assert answers.accepted("m", "p") == ["a beak"]
    answers.record("m", "q", "", ["wings"])
    assert answers.accepted("m", "p") == ["a beak"] and answers.accepted("m", "q") == ["wings"]


def test_an_edited_line_is_not_trusted(tmp_path, scripted, parts):
    first = scripted(json.dumps(parts))
    LlmConcepts(first).write(["bird"], tmp_path)
    file = tmp_path / "answers.jsonl"
    entry = json.loads(file.read_text())
    file.write_text(json.dumps({**entry, "accepted": ["<aaca-bird>", *parts[1:]]}))
    again = scripted(json.dumps(parts))
    prompts = LlmConcepts(again).write(["bird"], tmp_path)
    assert len(again.asked) == 1 and "<" not in "".join(prompt.text for prompt in prompts)


def test_many_may_append_at_once(tmp_path):
    def append(number: int) -> None:
        for index in range(20):
            Answers(tmp_path).record(f"m{number}", f"p{index}", "x" * 9000, [f"thing {number} {index}"])

    threads = [threading.Thread(target=append, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == 40
    answers = Answers(tmp_path)
    assert all(answers.accepted(f"m{n}", f"p{i}") == [f"thing {n} {i}"] for n in range(2) for i in (0, 19))


def test_secrets_are_masked_and_endless_answers_cut(tmp_path, key):
    Answers(tmp_path).record("m", f"the key {key}", f"{key} " + "x" * 50_000, None)
    kept = (tmp_path / "answers.jsonl").read_text()
    assert key not in kept and len(kept) < 11_000


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "cache").write_text("a file where a folder should be")
    with pytest.raises(AacaError, match=r"answers\.jsonl: the answers of the language model cannot be kept") as caught:
        Answers(tmp_path / "cache").record("m", "p", "", None)
    assert "\n" not in str(caught.value)
