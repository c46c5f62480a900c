"""A language model as annotator: what it is asked, what of its answers counts; no image is ever sent."""

import json

import numpy as np
import pytest

from aaca.annotate.annotators.base import Knowledge
from aaca.annotate.annotators.llm import LlmAnnotator, read_ratings
from aaca.annotate.task import Candidate, Task
from aaca.runtime.config import identity
from aaca.runtime.errors import AacaError
from aaca.runtime.files import digest

NAMES = ("sand", "beak")
GOOD = json.dumps({"sand": 1, "beak": 5})


@pytest.fixture
def asked(monkeypatch):
    """Answers of a script, the last for ever; what was asked."""
    heard, script = [], [GOOD]

    def ask(self, system, user):
        heard.append(user)
        return script.pop(0) if len(script) > 1 else script[0]

    monkeypatch.setattr("aaca.models.chat.ChatEndpoint.ask", ask)
    return heard, script


def task():
    shown = (Candidate("sand", "background", 0.7, 0.2, 0.5), Candidate("beak", "attribute", 0.1, 0.4, 0.1))
    return Task("failure/1", "failure", "1", "bird", "mammal", shown)


def answers(retries=3):
    annotator = LlmAnnotator("tiny", base_url="http://127.0.0.1:1/v1", retries=retries)
    return annotator.answer_all([task(), task()], Knowledge(("bird", "mammal"), NAMES, np.zeros((2, 2))), 0)


def test_one_question_a_class_and_names_are_data(asked):
    first, _ = answers()
    assert (first.content, first.relevance, first.valid) == ("sand", 1.0, ("beak",))
    assert first.annotator.startswith("simulated llm tiny at")
    assert [json.loads(user) for user in asked[0]] == [
        {"class": "bird", "things": ["sand", "beak"]}
    ]  # no task of mammals


def test_equal_annotators_have_equal_keys():
    one, other = (LlmAnnotator("tiny", base_url="http://127.0.0.1:1/v1") for _ in range(2))
    assert digest({**identity(one), **one.fingerprint()}) == digest({**identity(other), **other.fingerprint()})


def test_an_answer_without_a_number_is_asked_again_then_refused(asked):
    asked[1][:] = ["no idea", '{"sand": 9, "beak": 5}', GOOD]
    assert answers()[0].relevance == 1.0
    assert "it is not JSON" in asked[0][1] and "'sand' has no number from 1 to 5" in asked[0][2]
    asked[1][:] = ["never"]
    with pytest.raises(AacaError, match="class 'bird': the last of 2 answers was refused: it is not JSON"):
        answers(retries=1)


@pytest.mark.parametrize(
    "said", ["", "[]", '{"sand": true, "beak": 2}', '{"sand": "5", "beak": 2}', '{"beak": 2}', "{" * 5000]
)
def test_what_is_no_rating(said):
    assert read_ratings(said, NAMES)[0] == {} and read_ratings(said, NAMES)[1]


def test_an_object_in_other_words():
    assert read_ratings(f"Sure!\n```json\n{GOOD}\n```", NAMES) == ({"sand": 1.0, "beak": 5.0}, "")
