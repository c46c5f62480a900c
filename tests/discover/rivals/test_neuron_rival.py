"""Blamed neurons with names are suspects, and what is planted is recovered."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from aaca.data.table import ImageTable
from aaca.discover.rivals.base import Findings, NeuronFindings, as_sets
from aaca.discover.rivals.neurons import NeuronRival
from aaca.discover.truth import recovery
from aaca.models.head import FeatureBank, Head
from aaca.runtime.errors import ConfigError

CLASSES = ("bird", "mammal", "flower")
NAMES = pd.DataFrame(
    {
        "neuron": range(6),
        "concept": ["sand", "grass", "mammal", "", "sand", "ball"],
        "kind": ["background", "background", "object", "", "background", "object"],
        "score": [0.8, 0.5, 0.9, 0.9, 0.4, 0.1],
    }
)
BLAMED = pd.DataFrame(
    [
        (1, "excessive", 0, 50.0, 0.9),
        (1, "excessive", 4, 75.0, 0.9),
        (1, "insufficient", 1, 40.0, 1.2),
        (1, "insufficient", 2, 90.0, 1.2),
        (1, "insufficient", 3, 90.0, 1.2),
        (1, "excessive", 5, 99.0, 0.8),
        (2, "excessive", 0, 30.0, 0.9),
    ],
    columns=["label", "list", "neuron", "prec", "importance"],
)


def findings():
    labels = np.array([0, 0, 1, 1, 1, 1, 2, 2])
    predictions = np.array([0, 0, 0, 0, 2, 1, 2, 2])  # mammals are mostly taken for birds; flowers never fail
    head = Head(torch.eye(3), torch.zeros(3))
    features = torch.from_numpy(np.eye(3, dtype=np.float32)[predictions])
    ids = np.array([str(row) for row in range(8)], dtype=object)
    bank = FeatureBank(head, features, torch.from_numpy(labels), ids, np.full(8, "", dtype=object), CLASSES)
    frame = pd.DataFrame({"id": ids, "label": labels, "path": "none.npy", "row": range(8)})
    return Findings(
        classes=CLASSES,
        nouns=CLASSES,
        audit=ImageTable.build(frame, CLASSES),
        probabilities=np.eye(3)[predictions],
        train_labels=labels,
        look=None,
        in_train=None,
        seed=0,
        neurons=NeuronFindings(bank, NAMES, BLAMED),
    )


def blamed(rival):
    sets = as_sets(rival.suspects(findings()), CLASSES, CLASSES, rival.most, {"annotator": "nobody"})
    return {
        name: [(concept.name, concept.rival, round(concept.score, 3)) for concept in sets.of(name).confounded]
        for name in CLASSES
    }


def test_lack_has_no_rival_and_excess_has_the_class_said_most():
    assert NeuronRival.needs_neurons and not NeuronRival.needs_clip
    assert blamed(NeuronRival()) == {
        "bird": [],
        "mammal": [("sand", "bird", 0.4), ("grass", "", 0.2)],  # of two neurons for sand the better; no class's name
        "flower": [("sand", "*", 0.24)],
    }


def test_lists_most_and_least_score():
    assert blamed(NeuronRival(lists="insufficient"))["mammal"] == [("grass", "", 0.2)]
    assert blamed(NeuronRival(lists="excessive"))["mammal"] == [("sand", "bird", 0.4)]
    assert blamed(NeuronRival(most=1))["mammal"] == [("sand", "bird", 0.4)]
    assert blamed(NeuronRival(least_score=0.6))["mammal"] == [("sand", "bird", 0.4)]
    assert ("ball", "bird", 0.099) in blamed(NeuronRival(least_score=0.0))["mammal"]


def test_planted_bugs_are_recovered():
    sets = as_sets(NeuronRival().suspects(findings()), CLASSES, CLASSES, 5, {"annotator": "nobody"})
    planted = [{"class": "bird", "value": "sand"}, {"class": "mammal", "value": "grass"}]
    found = recovery(sets, planted)
    assert found["rank"].tolist() == [1, 1]  # as what makes it say bird; as what it knows mammals by


def test_nothing_blamed_and_nothing_named():
    given = findings()
    for part in ({"names": NAMES.assign(concept="")}, {"blamed": BLAMED[:0]}):
        assert NeuronRival(least_score=0).suspects(replace(given, neurons=replace(given.neurons, **part))) == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"most": 0}, r"discovery\.most"),
        ({"least_score": -0.1}, r"discovery\.least_score"),
        ({"lists": "exessive"}, r"discovery\.lists.*nearest valid: excessive"),
    ],
)
def test_wrong_values_are_said(wrong, message):
    with pytest.raises(ConfigError, match=message):
        NeuronRival(**wrong)
