"""`repair=edit`: which neurons are chosen, and that nothing of the network changes but its head."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from aaca.concepts.concept_sets import ClassConcepts, Concept, ConceptSets
from aaca.data.transforms import BatchAugment
from aaca.discover.neurons.inspect import InspectSpec, inspect
from aaca.discover.neurons.responses import Responses
from aaca.models.head import Head
from aaca.repair.edit import EditHead, others
from aaca.runtime.errors import AacaError, ConfigError, DataError
from tests.repair_toys import context, network
from tests.toys import plain_recipe
from tests.training.edit_tasks import bank_under

METHODS = ("retention", "retention_mean", "log_ratio", "project", "mask_refit", "zero", "ce", "class_weight", "focal")
STRIPE, SQUARE = (2, 5, 11), (3, 7)  # neurons that are said to respond to them
LISTED = {"choose": "listed", "neurons": {"green": [4, 9, 4], "red": [1]}}
HEAD = {"backbone.fc.weight", "backbone.fc.bias"}


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """f0 of the stripes, its features, what an inspection lists, planted responses, and a stripe that is blamed."""
    found = context(tmp_path_factory.mktemp("edit"), pairs=())
    classifier = found.start("f0").eval()
    banks = {split: bank_under(classifier, found.benchmark.split(split)) for split in ("train", "audit")}
    report = inspect(banks["audit"], InspectSpec(classes="all", scorer="contribution", hide_overlap=False), 0)
    return replace(
        found, banks=banks, inspection=report, responses=planted(banks["audit"].head.neurons), sets=blamed("A stripe")
    )


def planted(neurons: int) -> Responses:
    scores = np.full((neurons, 2), -0.5, dtype=np.float32)
    for place, own in enumerate((STRIPE, SQUARE)):
        scores[list(own), place] = np.linspace(0.9, 0.5, len(own))
    return Responses(["stripe", "square"], np.full_like(scores, np.nan), scores, scores, np.array([9, 9]))


def blamed(*names: str, **more: tuple[str, ...]) -> ConceptSets:
    own = {"green": names, **more}
    classes = {name: ClassConcepts(confounded=tuple(map(Concept, those))) for name, those in own.items()}
    return ConceptSets(classes, {"annotator": "me"})


def chosen(given, **options) -> dict[int, tuple[int, ...]]:
    return EditHead(**options).chosen(given)


def edited(given, folder: Path, **options) -> tuple[dict[str, torch.Tensor], dict]:
    folder.mkdir()
    summary = EditHead(**{**LISTED, "epochs": 2, "batch_size": 32, **options}).apply(given, folder)
    assert json.loads((folder / "fit.json").read_text()) == summary
    return load_file(folder / "model.safetensors"), summary


def reliance(head: Head, features: torch.Tensor, neurons: tuple[int, ...], label: int) -> float:
    """Mean |p(class) / p(class without the neurons) − 1|, by taking them out of the features."""
    without = features.clone()
    without[:, list(neurons)] = 0
    shares = [head.logits(each).double().softmax(dim=1)[:, label] for each in (features, without)]
    return float((shares[0] / shares[1] - 1).abs().mean())


def test_listed_neurons_are_those_of_the_classes_by_name(given):
    assert chosen(given, **LISTED, shared=False) == {1: (4, 9), 0: (1,)}
    assert chosen(given, **LISTED) == {1: (4, 9, 1), 0: (4, 9, 1)}
    assert chosen(given, choose="listed", neurons={"red": [3], "green": []}) == {0: (3,)}
    for neurons, said in (
        ({"gren": [1]}, r"repair\.neurons: no class 'gren'; nearest valid: green"),
        ({"green": [16]}, r"repair\.neurons\.green: 16; expected 0…15"),
        ({"green": [-1]}, r"repair\.neurons\.green: -1; expected 0…15"),
    ):
        with pytest.raises(ConfigError, match=said):
            chosen(given, choose="listed", neurons=neurons)


def test_the_inspector_chooses_by_list_and_number(given):
    report = given.inspection.reports
    assert all(len(one.insufficient) > 2 and len(one.excessive) > 2 for one in report)
    for lists in ("insufficient", "excessive"):
        own = chosen(given, choose="inspection", lists=lists, top=2, shared=False)
        assert own == {one.label: tuple(row.neuron for row in getattr(one, lists)[:2]) for one in report}
    every = chosen(given, choose="inspection", shared=False)
    assert all(set(every[one.label]) == {row.neuron for row in (*one.insufficient, *one.excessive)} for one in report)
    shared = chosen(given, choose="inspection", lists="insufficient", top=2)
    assert set(shared) == {0, 1} and shared[0] == shared[1]
    assert set(shared[0]) == {row.neuron for one in report for row in one.insufficient[:2]}
    nothing = replace(given.inspection, reports=tuple(replace(one, insufficient=(), excessive=()) for one in report))
    with pytest.raises(AacaError, match=r"lists no neurons; expected a lower inspect\.min_prec"):
        chosen(replace(given, inspection=nothing), choose="inspection")


def test_what_is_blamed_chooses_the_neurons_that_respond_to_it(given, caplog):
    assert chosen(given) == {1: STRIPE}  # only green has something that is blamed
    assert chosen(given, top=2) == {1: STRIPE[:2]} and chosen(given, least_score=0.6) == {1: STRIPE[:2]}
    both = replace(given, sets=blamed("stripe", "square"))
    assert chosen(both) == {1: (2, 3, 5, 7, 11)}  # best first, equal ones by number
    assert chosen(both, top=1) == {1: (2, 3)}  # of each concept
    two = replace(given, sets=blamed("stripe", red=("the square",)))
    assert chosen(two, shared=False) == {0: SQUARE, 1: STRIPE}
    assert set(chosen(two)[0]) == set(chosen(two)[1]) == {*SQUARE, *STRIPE}
    with caplog.at_level(logging.WARNING):
        assert chosen(replace(given, sets=blamed("stripe", "zebra"))) == {1: STRIPE}
    assert "nothing is known of how neurons respond to 'zebra'" in caplog.text
    with pytest.raises(AacaError, match=r"no neuron responds to a blamed concept \(stripe\); .* repair\.least_score"):
        chosen(replace(given, sets=blamed("stripe")), least_score=0.95)
    with pytest.raises(AacaError, match=r"\(zebra\)"):
        chosen(replace(given, sets=blamed("zebra")))
    with pytest.raises(AacaError, match=r"\(nothing is blamed\)"):
        chosen(replace(given, sets=blamed()))


def test_random_neurons_are_as_many_and_come_from_the_seed(given):
    mine = chosen(given, **LISTED, shared=False)
    drawn = [chosen(replace(given, seed=seed), **LISTED, shared=False, random=True) for seed in range(40)]
    again = chosen(replace(given, seed=3), **LISTED, shared=False, random=True)
    assert again == drawn[3] and len({str(one) for one in drawn}) > 30
    for one in drawn:
        assert {label: len(set(ids)) for label, ids in one.items()} == {label: len(ids) for label, ids in mine.items()}
        assert len({*one[0], *one[1]}) == 3  # different ones stay different
    assert {neuron for one in drawn for ids in one.values() for neuron in ids} == set(range(16))
    same = chosen(given, **LISTED, random=True)
    assert same[0] == same[1] and len(set(same[0])) == 3  # what classes share, they share afterwards
    half = others({0: (0, 1), 1: (1, 2)}, 4, 0)
    assert half[0][1] == half[1][0] and all(0 <= neuron < 4 for ids in half.values() for neuron in ids)
    every = others({0: tuple(range(16))}, 16, 5)
    assert sorted(every[0]) == list(range(16)) != list(every[0])


def test_cross_entropy_asks_for_no_neurons():
    repair = EditHead(method="ce")
    assert not (repair.needs_sets or repair.needs_inspection or repair.needs_responses) and repair.needs_banks
    assert EditHead().needs_sets and EditHead().needs_responses and not EditHead().needs_inspection
    inspected = EditHead(choose="inspection")
    assert inspected.needs_inspection and not (inspected.needs_sets or inspected.needs_responses)
    listed = EditHead(**LISTED)
    assert not (listed.needs_sets or listed.needs_inspection or listed.needs_responses)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"choose": "listed"}, r"repair\.neurons: choose=listed and the neurons go together"),
        ({"neurons": {"red": [1]}}, r"repair\.neurons: choose=listed and the neurons go together"),
        ({"top": 0}, r"repair\.top: 0; expected 1 or more"),
        ({"method": "retain"}, r"repair\.method: no 'retain'; nearest valid: retention"),
        ({"epochs": 0}, r"repair\.epochs: 0"),
        ({"strength": -1.0}, r"repair\.strength: -1\.0"),
        ({"method": "ce", "monitor": "class_accuracy"}, r"repair\.monitor: class_accuracy"),
        ({"method": "log_ratio", "target": "auto"}, r"repair\.target: auto"),
    ],
)
def test_a_wrong_option_names_its_key(options, said):
    with pytest.raises(ConfigError, match=said):
        EditHead(**options)


def test_mixed_images_are_refused_where_they_would_be_live():
    mixed = plain_recipe(mixup=0.5)
    EditHead(**LISTED).check(network(), mixed)
    EditHead(**LISTED, features="live").check(network(), plain_recipe())
    with pytest.raises(ConfigError, match=r"recipe\.mixup: mixed images have no class"):
        EditHead(**LISTED, features="live").check(network(), mixed)


def test_the_fingerprint_tells_edits_apart():
    prints = [EditHead(**options).fingerprint() for options in ({}, {"random": True}, {"top": 3}, LISTED, {"lr": 0.1})]
    assert len({json.dumps(one, sort_keys=True) for one in prints}) == 5
    assert all(one["init"] == "f0" and one["repair"] == "edit" for one in prints)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_changes_the_head_and_nothing_else(given, tmp_path, method):
    before = load_file(given.f0_weights)
    after, summary = edited(given, tmp_path / "a", method=method)
    assert after.keys() == before.keys()
    assert {name for name in after if not torch.equal(after[name], before[name])} <= HEAD
    assert not torch.equal(after["backbone.fc.weight"], before["backbone.fc.weight"])
    closed = method in ("project", "zero")
    assert summary["updates"] == (0 if closed else 6) and summary["epochs"] == (0 if closed else 2)
    assert summary["train_images"] == 96 and summary["kept_epoch"] == (1 if closed else 2)
    named = {"red": [], "green": []} if method == "ce" else {"green": [4, 9, 1], "red": [4, 9, 1]}
    report = json.loads((tmp_path / "a" / "edit.json").read_text())
    assert report["neurons"] == summary["neurons"] == named and report["kept_epoch"] == summary["kept_epoch"]
    assert len(report["history"]) == (2 if closed else 3) and all(
        0 <= each["accuracy"] <= 1 for each in report["history"]
    )
    columns = after["backbone.fc.weight"][:, [1, 4, 9]]
    if method == "project":
        torch.testing.assert_close(columns, before["backbone.fc.weight"][:, [1, 4, 9]].mean(0).expand(2, -1))
    assert (not columns.any()) == (method in ("zero", "mask_refit"))


def test_the_same_seed_gives_the_same_file_and_the_last_accuracy_is_that_of_the_file(given, tmp_path):
    first, again, other = (
        edited(replace(given, seed=seed), tmp_path / name, method="retention")[0]
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["backbone.fc.weight"], other["backbone.fc.weight"])
    head, audit = Head(first["backbone.fc.weight"], first["backbone.fc.bias"]), given.banks["audit"]
    right = float((head.logits(audit.features).argmax(dim=1) == audit.labels).double().mean())
    report = json.loads((tmp_path / "a" / "edit.json").read_text())
    assert report["history"][-1]["accuracy"] == pytest.approx(right)


@pytest.mark.parametrize("method", ["retention", "retention_mean", "log_ratio", "project"])
def test_the_class_minds_its_neurons_less_than_before(given, tmp_path, method):
    neurons, audit = (4, 9, 1), given.banks["audit"]
    strength = 2.0 if method == "retention_mean" else 5.0  # of a mean, 5 overshoots on some processors
    options = {"epochs": 10, "lr": 1e-2, "strength": strength, "warmup": 0.0, "method": method}
    after, _ = edited(given, tmp_path / "a", **options)
    plain, _ = edited(given, tmp_path / "b", **{**options, "method": "ce"})
    heads = [Head(one["backbone.fc.weight"], one["backbone.fc.bias"]) for one in (after, plain)]
    for label in (0, 1):
        mine, without, start = (reliance(head, audit.features, neurons, label) for head in (*heads, audit.head))
        assert mine < 0.5 * min(without, start), (method, label, mine, without, start)


def test_live_images_change_the_head_alone(given, tmp_path):
    before = load_file(given.f0_weights)
    after, summary = edited(replace(given, recipe=plain_recipe()), tmp_path / "a", features="live")
    assert {name for name in after if not torch.equal(after[name], before[name])} == HEAD
    assert summary["updates"] == 6 and summary["kept_epoch"] == 2
    turned = BatchAugment(scale_min=0.5, hflip=0.5, brightness=0.0)
    other, _ = edited(replace(given, recipe=plain_recipe(augment=turned)), tmp_path / "b", features="live")
    assert not torch.equal(other["backbone.fc.weight"], after["backbone.fc.weight"])  # the recipe's augmentation counts


def test_banks_of_two_heads_are_refused_and_leave_nothing(given, tmp_path):
    foreign = {**given.banks, "audit": given.banks["audit"].with_head(Head(torch.zeros(2, 16), torch.zeros(2)))}
    with pytest.raises(DataError, match="different heads"):
        edited(replace(given, banks=foreign), tmp_path / "a")
    assert not list((tmp_path / "a").iterdir())
