import json

import numpy as np
import pandas as pd
import pytest
from fake_runs import CLASSES, make_run, predictions

from aaca.evaluate.examples import GAP, SIZE, Example, contact_sheet, read_examples, write_examples
from aaca.evaluate.outcome import Outcome, groups_of, summarise
from aaca.runtime.errors import DataError

#        label group  slice  before after
ROWS = [
    (0, "a/x", "hard", 1, 0),  # repaired
    (0, "a/x", "hard", 1, 1),
    (0, "a/y", "easy", 0, 0),
    (0, "a/y", "easy", 0, 1),  # broken
    (1, "b/x", "easy", 1, 1),
    (1, "b/x", "hard", 0, 1),  # repaired
    (1, "b/y", "hard", 1, 1),
]
TRAIN = pd.Series(["a/x"] * 1 + ["a/y"] * 5 + ["b/x"] * 2 + ["c/z"] * 9)


def frame(rows=ROWS, split="test") -> pd.DataFrame:
    columns = ["label", "group", "slice", "before", "after"]
    made = pd.DataFrame(rows, columns=columns)
    return made.assign(id=[f"{split}{i}" for i in range(len(rows))], split=split, source="")


def test_numbers_by_hand():
    other = frame([(0, "a/x", "hard", 1, 1)], "test_seen")  # must not count in the heads
    numbers = summarise(pd.concat([frame(), other], ignore_index=True), TRAIN, CLASSES, "hard")
    assert numbers["accuracy"] == 3 / 4 and numbers["before"]["accuracy"] == 1 / 4
    assert (numbers["worst_group"], numbers["worst_group_accuracy"], numbers["worst_group_n"]) == ("a/x", 0.5, 2)
    assert (numbers["before"]["worst_group"], numbers["before"]["worst_group_accuracy"]) == ("a/x", 0)
    assert (numbers["repaired"], numbers["newly_broken"], numbers["wrong_before"]) == (2, 1, 3)
    assert numbers["repair_rate"] == pytest.approx(2 / 3) and numbers["n_test"] == 7
    # weights a/x 1, a/y 5, b/x 2, b/y 0; c/z is not in test
    assert numbers["mean_accuracy_train_weighted"] == pytest.approx((1 * 0.5 + 5 * 0.5 + 2 * 1) / 8)
    assert numbers["slices"]["test/hard"]["per_class"] == {"bird": 0.5, "mammal": 1}
    assert numbers["slices"]["test_seen/hard"] == {
        "n": 1,
        "accuracy": 0,
        "accuracy_before": 0,
        "per_class": {"bird": 0},
        "per_class_before": {"bird": 0},
    }
    cell = {"split": "test", "group": "b/y", "class": "mammal", "n": 1, "n_train": 0}
    assert {**cell, "accuracy": 1, "accuracy_before": 1} in numbers["groups"]


def test_all_is_the_whole_test_split():
    assert summarise(frame(), TRAIN, CLASSES, "all")["accuracy"] == 5 / 7


def test_unknown_groups_are_classes():
    unknown = frame().assign(group="")
    train = groups_of(pd.DataFrame({"label": [0, 0, 0, 1], "group": ""}), CLASSES)
    numbers = summarise(unknown, train, CLASSES, "all")
    assert numbers["worst_group"] == "bird" and numbers["worst_group_accuracy"] == 0.5
    assert numbers["mean_accuracy_train_weighted"] == pytest.approx((3 * 0.5 + 1 * 1) / 4)
    # groups known in test alone: still weighed by class
    assert summarise(frame(), train, CLASSES, "all")["mean_accuracy_train_weighted"] == pytest.approx(
        (3 * 0.5 + 1 * 1) / 4
    )
    with pytest.raises(DataError, match="train_groups"):
        summarise(frame(), pd.Series(["", ""]), CLASSES, "all")


def test_no_error_before_and_empty_slice():
    perfect = frame([(0, "a", "s", 0, 0), (1, "b", "s", 1, 1)])
    assert summarise(perfect, pd.Series(["a", "b"]), CLASSES, "all")["repair_rate"] is None
    with pytest.raises(DataError, match="slice 'hrad'"):
        summarise(frame(), TRAIN, CLASSES, "hrad")


def test_outcome_round_trip_and_refusals(tmp_path):
    folder = make_run(tmp_path, "s_random", 1)
    outcome = Outcome.load(folder)
    assert outcome.label == "s_random"
    outcome.save(tmp_path / "again")
    assert Outcome.load(tmp_path / "again") == outcome
    fields = json.loads((folder / "outcome.json").read_text())
    (folder / "outcome.json").write_text(json.dumps({**fields, "accuracy": "high"}))
    with pytest.raises(DataError, match=r"outcome\.json.*'accuracy'"):
        Outcome.load(folder)
    with pytest.raises(DataError, match="schema is 2"):
        Outcome.from_json({**fields, "schema": 2})


def test_summarise_agrees_with_numpy_on_random_predictions():
    made = predictions("s_similarity", 7)
    numbers = summarise(made, pd.Series(made["group"]), CLASSES, "balanced")
    right = (made["after"] == made["label"]).to_numpy()
    cells = [right[(made["group"] == name).to_numpy()].mean() for name in made["group"].unique()]
    assert numbers["worst_group_accuracy"] == min(cells)
    assert numbers["accuracy"] == right[(made["slice"] == "balanced").to_numpy()].mean()
    # test groups weighted by their own share give the plain mean
    assert numbers["mean_accuracy_train_weighted"] == pytest.approx(right.mean())


def colour(value: int, shape=(20, 40, 3)) -> np.ndarray:
    return np.full(shape, value, dtype=np.uint8)


def test_contact_sheet_places_tiles():
    sheet = np.asarray(contact_sheet([[colour(10), colour(60)], [colour(200)]]))
    assert sheet.shape == (2 * SIZE + GAP, 2 * SIZE + GAP, 3)
    assert (sheet[:SIZE, :SIZE] == 10).all() and (sheet[:SIZE, SIZE + GAP :] == 60).all()
    assert (sheet[SIZE + GAP :, :SIZE] == 200).all() and (sheet[SIZE + GAP :, SIZE:] == 255).all()
    assert contact_sheet([[colour(1)]], size=32).size == (32, 32)
    with pytest.raises(DataError, match="no image"):
        contact_sheet([[]])


def test_examples_round_trip(tmp_path):
    strips = [
        Example("debug", "bird", [colour(5), colour(6)], ["a", "b"]),
        Example("failure", "bird", [colour(7)], ["bird → mammal"]),
        Example("debug", "mammal", [colour(8)], ["c"]),
        Example("debug", "empty", [], []),
    ]
    write_examples(tmp_path, strips)
    found = read_examples(tmp_path, "debug")
    assert [(part.label, part.captions) for part in found] == [("bird", ["a", "b"]), ("mammal", ["c"])]
    assert [image.mean() for part in found for image in part.images] == [5, 6, 8]
    assert read_examples(tmp_path, "benchmark") == [] and read_examples(tmp_path / "none", "debug") == []
    assert {path.name for path in (tmp_path / "examples").iterdir()} == {
        "examples.json",
        "failures.png",
        "debugset.png",
    }
    with pytest.raises(DataError, match="2 captions for 1 images"):
        write_examples(tmp_path, [Example("debug", "x", [colour(1)], ["a", "b"])])
    entry = {"kind": "debug", "class": "bird", "file": "debugset.png", "row": 9, "captions": ["a"]}
    (tmp_path / "examples" / "examples.json").write_text(json.dumps([entry]))
    with pytest.raises(DataError, match="outside the sheet"):
        read_examples(tmp_path, "debug")
