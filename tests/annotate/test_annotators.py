"""Tasks, and those who answer them without being people."""

import json
from dataclasses import replace

import numpy as np
import pytest

from aaca.annotate.aggregate import VoteRules, aggregate
from aaca.annotate.annotators.base import Knowledge, highlighted
from aaca.annotate.annotators.cooccurrence import Cooccurrence
from aaca.annotate.annotators.oracle import NoisyOracle, Oracle
from aaca.annotate.annotators.replay import Replay
from aaca.annotate.make_tasks import Shown, make_tasks
from aaca.annotate.task import Answer, Candidate, Task, load_lines, save_lines, to_line
from aaca.runtime.errors import ConfigError, DataError
from tests.annotate.test_aggregate import evidence

CLASSES = ("bird", "mammal")
NAMES = ("bird", "grass", "mammal", "sand")
CORE = {"bird": ("bird", "beak", "wings"), "mammal": ("mammal", "fur")}
RATES = np.array([[1.0, 0.05, 0.0, 0.9], [0.0, 0.9, 1.0, 0.05]])
KNOWLEDGE = Knowledge(CLASSES, NAMES, RATES, CORE)


def shown(n=60, seed=0):
    """Birds lie on sand, mammals on grass, but for a fifth, which f0 gets wrong and which may lie on either."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    wrong = rng.random(n) < 0.3
    predictions = np.where(wrong, 1 - labels, labels)
    present = np.zeros((n, 4), dtype=bool)
    present[np.arange(n), np.where(labels == 0, 0, 2)] = True
    present[np.arange(n), np.where(predictions == 0, 3, 1)] = True
    predicted = np.where(present, [0.2, 0.7, 0.2, 0.7], 0.0)
    ids = np.array([f"image/{row:03d}" for row in range(n)], dtype=object)
    kinds = ["object", "background", "object", "background"]
    confidence = rng.random(n)
    suspicion = np.zeros((2, 4))
    return Shown(
        ids,
        CLASSES,
        labels,
        predictions,
        confidence,
        NAMES,
        kinds,
        present,
        predicted,
        predicted,
        predicted,
        suspicion,
        suspects=[[], []],
    )


def test_failures_come_surest_first_and_are_told_from_controls():
    world = shown()
    tasks = make_tasks(world, failures=4, controls=3, seed=0)
    failures = [task for task in tasks if task.kind == "failure"]
    assert len(failures) == 8 and len(tasks) == 14
    rows = {name: row for row, name in enumerate(world.ids)}
    birds = [rows[task.image_id] for task in failures if task.class_ == "bird"]
    wrong = np.flatnonzero((world.labels == 0) & (world.predictions == 1))
    assert birds == list(wrong[np.argsort(-world.confidence[wrong])][:4])
    for task in tasks:
        row = rows[task.image_id]
        assert (task.predicted == task.class_) is (task.kind == "control")
        assert {candidate.name for candidate in task.candidates} == set(np.array(NAMES)[world.present[row]])
        assert not {candidate.name for candidate in task.candidates} & set(task.others)
        assert len(task.controls) == 3 and task.image_id not in task.controls
    assert make_tasks(world, 4, 3, seed=0) == tasks and make_tasks(world, 4, 3, seed=1) != tasks


def test_where_places_are_not_known_the_most_suspicious_comes_first():
    world = shown()
    suspicion = np.array([[0.0, 0.2, 0.0, 0.9], [0.0, 0.9, 0.0, 0.2]])
    blind = replace(world, predicted_share=np.full_like(world.predicted_share, np.nan), suspicion=suspicion)
    for task in make_tasks(blind, 5, 5, 0):
        ranks = [suspicion[CLASSES.index(task.class_), NAMES.index(candidate.name)] for candidate in task.candidates]
        assert ranks == sorted(ranks, reverse=True) and highlighted(task).name in ("sand", "grass")


def test_what_the_numbers_blame_is_asked_by_name():
    world = replace(shown(), suspects=[["grass", "bird"], []])
    tasks = [task for task in make_tasks(world, 2, 2, 0, suspects=3) if task.kind == "suspect"]
    assert [task.about for task in tasks].count("grass") == 3 and {task.class_ for task in tasks} == {"bird"}
    assert len({task.task_id for task in tasks}) == len(tasks)
    for task, answer in zip(tasks, Oracle().answer_all(tasks, KNOWLEDGE, 0), strict=True):
        assert task.about in [candidate.name for candidate in task.candidates]
        assert answer.content == task.about and answer.relevance == (5 if task.about == "bird" else 1)
    assert not [task for task in make_tasks(world, 2, 2, 0) if task.about]


def test_rivals_take_turns():
    classes = (*CLASSES, "fish")
    predictions = np.where(np.arange(60) < 50, 1, 2)
    many = replace(shown(), classes=classes, labels=np.zeros(60, dtype=int), predictions=predictions)
    many = replace(many, suspicion=np.zeros((3, 4)), suspects=[[]] * 3)
    seen = [task.predicted for task in make_tasks(many, failures=6, controls=0, seed=0)]
    assert seen == ["mammal", "fish"] * 3


def test_the_oracle_says_what_is_true():
    tasks = make_tasks(shown(), 10, 10, 0)
    for task, answer in zip(tasks, Oracle().answer_all(tasks, KNOWLEDGE, 0), strict=True):
        assert answer.content in ("sand", "grass") and answer.relevance == 1 and answer.type == "background"
        assert answer.valid == CORE[task.class_]  # what is there, and its parts
        assert answer.rival == ("" if task.kind == "control" else task.predicted)


def verdicts_of(annotator, tasks):
    rows = [
        ("bird", "*", "sand", "background", False, True, 0.0, 2.0, 0.5),
        ("bird", "mammal", "grass", "background", True, False, 1.0, 0.0, 0.1),
        ("mammal", "*", "grass", "background", False, True, 0.0, 2.0, 0.5),
        ("mammal", "bird", "sand", "background", True, False, 1.0, 0.0, 0.1),
    ]
    found = aggregate(annotator.answer_all(tasks, KNOWLEDGE, 0), evidence(*rows), VoteRules(), CLASSES)
    return {(name, concept.name) for name, own in found.classes.items() for concept in own.confounded}, found


@pytest.mark.parametrize("seed", range(5))
def test_five_noisy_people_find_what_the_oracle_finds(seed):
    tasks = make_tasks(shown(120, seed), 25, 25, 0)
    (truth, _), (noisy, found) = verdicts_of(Oracle(), tasks), verdicts_of(NoisyOracle(0.2, 5), tasks)
    assert truth == {("bird", "sand"), ("bird", "grass"), ("mammal", "grass"), ("mammal", "sand")}
    assert noisy == truth and found.counts["people"] == 5


def test_noise_is_a_person_s_and_a_task_s_alone():
    tasks = make_tasks(shown(), 10, 5, 0)
    every = {(a.task_id, a.annotator): a for a in NoisyOracle(0.3, 3).answer_all(tasks, KNOWLEDGE, 7)}
    some = NoisyOracle(0.3, 2).answer_all(tasks[3:6], KNOWLEDGE, 7)
    assert all(every[a.task_id, a.annotator] == a for a in some) and len(every) == 3 * len(tasks)
    turned = np.mean([a.relevance == 5 for a in every.values()])
    assert 0.1 < turned < 0.5
    calm = NoisyOracle(0.0, 1).answer_all(tasks, KNOWLEDGE, 7)
    oracle = Oracle().answer_all(tasks, KNOWLEDGE, 7)
    assert [(a.content, a.relevance, a.valid) for a in calm] == [(a.content, a.relevance, a.valid) for a in oracle]


def test_cooccurrence_cannot_tell_the_bug_from_the_class():
    tasks = make_tasks(shown(), 10, 10, 0)
    for task, answer in zip(tasks, Cooccurrence().answer_all(tasks, KNOWLEDGE, 0), strict=True):
        assert (answer.relevance > 4) is (task.kind == "control")  # sand is "relevant" to birds
        assert task.class_ in answer.valid


def test_the_overlay_points_at_the_largest_share_or_at_the_first_candidate():
    def task(*shares):
        candidates = tuple(Candidate(f"c{i}", "object", share, share, 0.1) for i, share in enumerate(shares))
        return Task("t", "failure", "i", "bird", "mammal", candidates)

    assert highlighted(task(0.1, 0.5, 0.2)).name == "c1"
    assert highlighted(task(float("nan"), 0.2)).name == "c1"
    assert highlighted(task(float("nan"), float("nan"))).name == "c0"
    assert highlighted(task()) is None
    answer = Oracle().answer_all([task()], KNOWLEDGE, 0)[0]
    assert answer.flag == "cannot tell" and answer.relevance is None and answer.content == ""


def test_without_planted_truth_there_is_no_oracle():
    with pytest.raises(DataError, match="no oracle; expected annotator=cooccurrence"):
        Oracle().answer_all([], Knowledge(CLASSES, NAMES, RATES), 0)


def test_records_survive_a_round_trip_and_a_killed_writer(tmp_path):
    tasks = make_tasks(shown(), 3, 2, 0)
    answers = Oracle().answer_all(tasks, KNOWLEDGE, 0)
    save_lines(tmp_path / "tasks.jsonl", tasks)
    save_lines(tmp_path / "answers.jsonl", answers)
    assert load_lines(tmp_path / "tasks.jsonl", Task) == tasks
    file = tmp_path / "answers.jsonl"
    file.write_text(file.read_text() + to_line(answers[0])[:40])
    assert load_lines(file, Answer) == answers  # the line being written is lost, no other
    assert json.loads(file.read_text().splitlines()[0])["class"] == answers[0].class_


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"relevance": 9}, "line 1: relevance: "),
        ({"type": "thing"}, "line 1: type: "),
        ({"flag": "bad"}, "line 1: flag: "),
        ({"annotator": ""}, "line 1: annotator: "),
        ({"valid": list("abcdef")}, "line 1: valid: "),
        ({"content": "x" * 61}, "line 1: content: "),
        ({"shell": "rm"}, "line 1: shell: unknown field"),
    ],
)
def test_answers_of_others_are_checked(tmp_path, change, message):
    answer = Oracle().answer_all(make_tasks(shown(), 1, 0, 0), KNOWLEDGE, 0)[0]
    entry = {**json.loads(to_line(answer)), **change}
    (tmp_path / "answers.jsonl").write_text(json.dumps(entry) + "\n")
    with pytest.raises(DataError, match=message):
        load_lines(tmp_path / "answers.jsonl", Answer)


def test_replay_gives_what_people_said_once_each(tmp_path):
    tasks = make_tasks(shown(), 2, 2, 0)
    answers = Oracle().answer_all(tasks, KNOWLEDGE, 0)
    file = tmp_path / "answers.jsonl"
    second = Answer(**{**vars(answers[0]), "relevance": 4.0})
    save_lines(file, [*answers, second])
    given = Replay(str(file)).answer_all(tasks, KNOWLEDGE, 0)
    assert len(given) == len(tasks) and next(a for a in given if a.task_id == second.task_id).relevance == 4
    assert Replay(str(file)).name == "simulated oracle" and Replay(str(file)).simulated  # a stand-in stays one
    with pytest.raises(DataError, match="none of these 2 tasks"):
        Replay(str(file)).answer_all(tasks[:2], KNOWLEDGE, 0)
    with pytest.raises(ConfigError, match=r"annotator.file: no file"):
        Replay(str(tmp_path / "none.jsonl"))
