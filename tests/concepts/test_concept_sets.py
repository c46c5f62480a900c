"""Concept sets on disk: a round trip, a file by hand, and every mistake named with its place."""

import pytest
import yaml

from aaca.concepts.concept_sets import ANY, ClassConcepts, Concept, ConceptSets
from aaca.runtime.errors import DataError

CLASSES = ("bird", "mammal")
SETS = ConceptSets(
    {
        "bird": ClassConcepts(
            confounded=(
                Concept("sand", "background", "", 2.4, 29, 1.0),
                Concept("brick", "background", ANY, 0.4, 6, 1.5),
            ),
            valid=(Concept("beak", votes=50),),
            neutral=(Concept("rock", "background", votes=1, relevance=3.0),),
        ),
        "mammal": ClassConcepts(contested=(Concept("sand", "background", "bird"),)),
    },
    {"annotator": "simulated: oracle", "seed": 0},
)


def written(tmp_path, text):
    path = tmp_path / "concept_sets.yaml"
    path.write_text(text)
    return path


def test_what_is_saved_is_loaded(tmp_path):
    SETS.save(tmp_path / "sets.yaml")
    assert ConceptSets.load(tmp_path / "sets.yaml", CLASSES) == SETS
    entry = yaml.safe_load((tmp_path / "sets.yaml").read_text())["classes"]["bird"]["valid"][0]
    assert entry == {"name": "beak", "kind": "object", "votes": 50}  # what is unknown is not in the way


def test_by_hand_names_are_enough(tmp_path):
    path = written(tmp_path, "meta: {annotator: me}\nclasses:\n  bird: {valid: [beak, a wing], confounded: [sand]}\n")
    sets = ConceptSets.load(path, CLASSES)
    assert sets.names("valid") == {("bird", "beak"), ("bird", "a wing")} and sets.of("mammal") == ClassConcepts()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not YAML"),
        ("- bird", "expected a mapping with `classes`"),
        ("classes: {}", "meta.annotator: missing"),
        ("meta: {annotator: me}\nclasses: {brid: {}}", "classes.brid: no such class; .*bird"),
        ("meta: {annotator: me}\nclass: {}\nclasses: {}", "class: unknown key; .*classes"),
        ("meta: {annotator: me}\nclasses: {bird: {vaild: [beak]}}", "bird.vaild: unknown key; .*valid"),
        ("meta: {annotator: me}\nclasses: {bird: {valid: [{nam: x}]}}", r"valid\[0\].nam: unknown key; .*name"),
        ("meta: {annotator: me}\nclasses: {bird: {valid: [{kind: object}]}}", r"valid\[0\].name"),
        ("meta: {annotator: me}\nclasses: {bird: {valid: [{name: x, kind: thing}]}}", r"valid\[0\].kind: .*'thing'"),
        ("meta: {annotator: me}\nclasses: {bird: {valid: [{name: x, score: much}]}}", r"valid\[0\].score: .*'much'"),
        ("meta: {annotator: me}\nclasses: {bird: {valid: grass}}", "bird.valid: 'grass'; expected a list"),
        ("meta: {annotator: me}\nclasses: {bird: {valid: 5}}", "bird.valid: 5; expected a list"),
        ("meta: {annotator: me}\nclasses: {bird: {valid: ['']}}", r"valid\[0\].name: ''"),
        ('meta: {annotator: me}\nclasses: {bird: {valid: ["a\\nb"]}}', r"valid\[0\].name: "),
        ("meta: {annotator: me}\nclasses: {bird: {confounded: [{name: x, rival: cow}]}}", "rival: no class 'cow'"),
        ("meta: {annotator: me}\nclasses: {bird: {confounded: [x], valid: [x]}}", "'x' is confounded and valid"),
    ],
)
def test_mistakes_are_named_with_their_place(tmp_path, text, message):
    path = written(tmp_path, text)
    with pytest.raises(DataError, match=message) as error:
        ConceptSets.load(path, CLASSES)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        ConceptSets.load(tmp_path / "none.yaml", CLASSES)
