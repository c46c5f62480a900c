"""Edits of heads: what is kept, what is left alone, and what they do where the truth is planted (E1 to E3)."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from pytorch_lightning.loggers import CSVLogger

from aaca.data.planted_features import five_classes, waterbirds_like
from aaca.models.head import FeatureBank, Head
from aaca.runtime.errors import AacaError, ConfigError, DataError
from aaca.runtime.launch import launch
from aaca.runtime.seeding import purpose_seed
from aaca.training.edit_head import EditRecipe, LiveImages, edit_head
from aaca.training.edit_recipe import lr_factor
from aaca.training.head_edit import HeadEdit
from aaca.training.trainer import TrainerSpec
from tests.neuron_toys import bank_of, fit_head
from tests.toys import plain_recipe, square_table
from tests.training.edit_tasks import NEURONS, bank_under, both, network

ONE = TrainerSpec(accelerator="cpu")
SHORT = EditRecipe(epochs=3, batch_size=32, monitor="last", strength=0.1)


@pytest.fixture(scope="module")
def banks():
    """Train and audit banks of five classes under a random head, and the planted neurons."""
    data = five_classes(0, images=30)
    head = Head(torch.randn(5, 64, generator=torch.Generator().manual_seed(1)) / 8, torch.zeros(5))
    train, val = (bank_of(split, head, data.classes) for split in (data.train, data.val))
    return train, val, {0: data.planted[0]}


def edit(banks, recipe=SHORT, seed=0, **changes):
    train, val, neurons = banks
    return edit_head(train, val, neurons, replace(recipe, **changes), ONE, seed)


def same(one: Head, other: Head) -> bool:
    return torch.equal(one.weight, other.weight) and torch.equal(one.bias, other.bias)


def test_cross_entropy_is_a_plain_loop_of_adam(banks):
    train = banks[0]
    weight, bias = (part.clone().requires_grad_() for part in (train.head.weight, train.head.bias))
    adam = torch.optim.Adam([weight, bias], lr=1e-3, weight_decay=0.1)
    batches, update, losses = math.ceil(150 / 32), 0, []
    for epoch in range(3):
        generator = torch.Generator().manual_seed(purpose_seed(7, "edit order", epoch))
        own = []
        for rows in torch.randperm(150, generator=generator).split(32):
            done = update / (3 * batches)
            cosine = 0.5 * (1 + math.cos(math.pi * (done - 0.75) / 0.25))
            adam.param_groups[0]["lr"] = 1e-3 * (done / 0.05 if done < 0.05 else cosine if done > 0.75 else 1)
            adam.zero_grad()
            loss = F.cross_entropy(train.features[rows] @ weight.T + bias, train.labels[rows])
            loss.backward()
            adam.step()
            own.append(float(loss.detach()))
            update += 1
        losses.append(np.mean(own))
    found = edit(banks, method="ce", weight_decay=0.1, seed=7)
    torch.testing.assert_close(found.head.weight, weight.detach(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.head.bias, bias.detach(), rtol=1e-4, atol=1e-6)
    assert found.updates == update and found.epoch == 3
    assert [row["loss"] for row in found.history[1:]] == pytest.approx(losses, rel=1e-5)


@pytest.mark.parametrize("method", ["retention", "retention_mean", "log_ratio"])
def test_without_strength_it_is_cross_entropy_to_the_bit(banks, method):
    for epochs in (1, 2):
        plain = edit(banks, method="ce", epochs=epochs)
        silent = edit(banks, method=method, strength=0.0, epochs=epochs)
        assert same(plain.head, silent.head)
        assert not same(plain.head, edit(banks, method=method, epochs=epochs, strength=1.0).head)
        assert silent.history[-1]["regulariser"] > 0


def test_the_same_seed_gives_the_same_bits_and_another_does_not(banks):
    first, again = edit(banks), edit(banks)
    assert same(first.head, again.head) and first.history == again.history
    assert not same(first.head, edit(banks, seed=1).head)


def test_the_controls_do_not_read_the_neurons_and_differ_from_each_other(banks):
    train, val, _ = banks
    heads = []
    for method in ("ce", "class_weight", "focal"):
        recipe = replace(SHORT, method=method)
        found = [edit_head(train, val, {0: own}, recipe, ONE, 0).head for own in ((), (1, 2))]
        assert same(*found)
        heads.append(found[0])
    assert not same(heads[0], heads[1]) and not same(heads[0], heads[2]) and not same(heads[1], heads[2])


def test_closed_forms_and_the_masked_refit(banks):
    train, _, neurons = banks
    own = list(neurons[0])
    rest = [neuron for neuron in range(64) if neuron not in own]
    projected, zeroed = edit(banks, method="project"), edit(banks, method="zero")
    assert (zeroed.head.weight[:, own] == 0).all()
    torch.testing.assert_close(projected.head.weight[:, own], train.head.weight[:, own].mean(0).expand(5, -1))
    for found in (projected, zeroed):
        assert torch.equal(found.head.weight[:, rest], train.head.weight[:, rest])
        assert (found.epoch, found.updates, len(found.history)) == (1, 0, 2)
    refit = edit(banks, method="mask_refit", weight_decay=0.1)
    assert (refit.head.weight[:, own] == 0).all()
    assert not torch.equal(refit.head.weight[:, rest], train.head.weight[:, rest])
    cut = FeatureBank(zeroed.head, train.features.clone(), train.labels, train.ids, train.groups, train.classes)
    cut.features[:, own] = 0  # the same, of features that never had them
    other = edit_head(cut, banks[1].with_head(cut.head), neurons, replace(SHORT, method="ce", weight_decay=0.1), ONE, 0)
    assert same(refit.head, other.head)


def test_the_un_edited_head_is_a_candidate_and_ties_go_to_the_earlier(banks):
    train, val, neurons = banks
    good = fit_head(five_classes(0, images=30).train, 5, 0)
    fitted = (train.with_head(good), val.with_head(good), neurons)
    worse = edit(fitted, method="log_ratio", strength=10.0, lr=0.5, monitor="accuracy", patience=2, min_epochs=1)
    assert worse.epoch == 0 and same(worse.head, good)
    assert len(worse.history) == 3  # it stopped after two epochs without a better one
    still = edit(fitted, method="ce", lr=1e-12, monitor="accuracy")
    assert still.epoch == 0 and len(still.history) == 4
    assert edit(fitted, method="ce", lr=1e-12).epoch == 3  # monitor=last
    better = edit(banks, method="ce", monitor="accuracy", lr=0.01)
    figures = [row["accuracy"] for row in better.history]
    assert better.epoch == int(np.argmax(figures)) > 0
    right = (better.head.logits(val.features).argmax(1) == val.labels).double().mean()
    assert float(right) == pytest.approx(max(figures))


def test_it_never_stops_before_the_least_number_of_epochs(banks):
    frozen = {"method": "ce", "lr": 1e-12, "monitor": "accuracy", "epochs": 9}
    assert len(edit(banks, patience=2, min_epochs=6, **frozen).history) == 7
    assert len(edit(banks, patience=4, min_epochs=1, **frozen).history) == 5
    assert len(edit(banks, patience=None, **frozen).history) == 10


def test_monitors_are_what_one_counts_by_hand(banks):
    train = banks[0]
    head = Head(torch.eye(3), torch.zeros(3))
    features = torch.eye(3)[[0, 0, 1, 1, 0, 1, 1, 2]]  # taken for these classes
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 1, 1])  # two of three right, three of five right, no image of class 2
    groups = np.array(["a", "b", "b", "", "", "c", "c", "c"], dtype=object)
    val = FeatureBank(head, features, labels, np.arange(8), groups, ("x", "y", "z"))
    found = edit_head(val, val, {1: [2]}, replace(SHORT, method="zero"), ONE, 0).history[0]
    assert found["accuracy"] == pytest.approx(5 / 8)
    assert found["class_accuracy"] == pytest.approx(3 / 5)
    assert found["min_class_accuracy"] == pytest.approx(3 / 5)
    assert found["worst_group"] == pytest.approx(1 / 2)
    both = edit_head(val, val, {0: [2], 1: [0]}, replace(SHORT, method="zero"), ONE, 0).history[0]
    assert both["class_accuracy"] == pytest.approx((2 / 3 + 3 / 5) / 2)
    nameless = replace(val, groups=np.full(8, "", dtype=object))
    assert "worst_group" not in edit_head(val, nameless, {1: [2]}, replace(SHORT, method="zero"), ONE, 0).history[0]
    with pytest.raises(DataError, match=r"repair\.monitor: worst_group, but no audit image has a group"):
        edit_head(val, nameless, {1: [2]}, replace(SHORT, monitor="worst_group"), ONE, 0)
    assert edit(banks, monitor="worst_group").history[0]["worst_group"] <= 1
    assert len(train) == 150


def test_the_learning_rate_follows_the_formula():
    flat = [lr_factor("warmup_flat_cosine", update, 10, 20) for update in range(200)]
    assert flat[:11] == pytest.approx([update / 10 for update in range(11)])
    assert set(flat[10:151]) == {1.0}
    assert flat[175] == pytest.approx(0.5) and flat[199] == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.98)))
    saw = [lr_factor("sawtooth", update, 10, 20) for update in range(200)]
    assert saw == pytest.approx([(update % 10) / 10 for update in range(200)])  # from 0 anew in every epoch
    assert {lr_factor("constant", update, 10, 20) for update in range(200)} == {1.0}


def test_warmup_lets_the_strength_grow(banks):
    # five updates an epoch; at the first update the strength is 0, as in plain training
    one = {"epochs": 1, "batch_size": 150, "schedule": "constant"}
    assert same(edit(banks, warmup=2.0, strength=5.0, **one).head, edit(banks, method="ce", **one).head)
    assert not same(edit(banks, strength=5.0, **one).head, edit(banks, method="ce", **one).head)


def test_the_automatic_target_is_a_third_of_the_way_to_the_least_importance(banks):
    train, val, neurons = banks
    mean = val.features.double().mean(dim=0)
    values = []
    for neuron in neurons[0]:
        cut = mean.clone()
        cut[neuron] = 0
        chances = [F.softmax(train.head.weight.double() @ part, dim=0)[0] for part in (mean, cut)]
        values.append(float(chances[0] / chances[1]))
    target = 1 + (min(values) - 1) / 3
    auto, given = edit(banks, target="auto"), edit(banks, target=target)
    torch.testing.assert_close(auto.head.weight, given.head.weight, rtol=1e-4, atol=1e-6)
    assert not same(auto.head, edit(banks, target=1.0).head)


@pytest.mark.parametrize(
    ("changes", "neurons", "message"),
    [
        ({}, {0: [64]}, r"repair\.neurons: 64; expected ids in 0…63"),
        ({}, {0: [-1]}, r"repair\.neurons: -1; expected ids in 0…63"),
        ({}, {5: [1]}, r"repair\.neurons: class 5; expected 0…4"),
        ({}, {0: []}, r"repair\.neurons: none for class class0; retention expects some"),
        ({"method": "project"}, {0: []}, r"repair\.neurons: none for class class0; project expects some"),
        ({"method": "ce"}, {}, r"repair\.neurons: no class is named"),
        ({"features": "live"}, {0: [1]}, r"repair\.features: live; expected cached"),
    ],
)
def test_what_does_not_exist_is_refused(banks, changes, neurons, message):
    train, val, _ = banks
    with pytest.raises(ConfigError, match=message):
        edit_head(train, val, neurons, replace(SHORT, **changes), ONE, 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "projekt"},
        {"reduce": "mean"},
        {"schedule": "cosine"},
        {"monitor": "acc"},
        {"features": "stored"},
        {"strength": -1.0},
        {"strength": math.nan},
        {"lr": 0.0},
        {"epochs": 0},
        {"batch_size": 0},
        {"patience": 0},
        {"min_epochs": -1},
        {"warmup": -0.5},
        {"weight_decay": -1.0},
        {"target": 0.0},
        {"target": "own"},
        {"target": "auto", "method": "log_ratio"},
    ],
)
def test_a_recipe_names_its_wrong_key(changes):
    with pytest.raises(ConfigError, match=rf"^repair\.{next(iter(changes))}: "):
        EditRecipe(**changes)


def test_banks_that_do_not_fit_are_refused(banks):
    train, val, neurons = banks
    with pytest.raises(DataError, match="different heads"):
        edit_head(train, val.with_head(Head(train.head.weight + 1, train.head.bias)), neurons, SHORT, ONE, 0)
    with pytest.raises(DataError, match="no audit image is of class class0"):
        edit_head(train, val.take(torch.nonzero(val.labels != 0).flatten()), neurons, SHORT, ONE, 0)


def test_a_loss_that_is_not_finite_says_what_to_lower(banks):
    broken = replace(banks[0], features=banks[0].features * math.inf)
    with pytest.raises(AacaError, match=r"update 1 .*lower repair\.lr or repair\.strength"):
        edit_head(broken, banks[1], banks[2], SHORT, ONE, 0)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_live_images_leave_the_network_as_it_was_to_the_bit(tmp_path, precision):
    table, classifier = square_table(tmp_path, 24), network().train()
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    bank, images = bank_under(classifier, table), LiveImages(classifier, table, plain_recipe().augment)
    spec = TrainerSpec(accelerator="cpu", precision=precision)
    recipe = replace(SHORT, features="live", batch_size=8, epochs=2)
    found = edit_head(bank, bank, NEURONS, recipe, spec, 0, live=images)
    after = classifier.state_dict()
    assert any(name.endswith("running_mean") for name in before)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert classifier.training and all(parameter.grad is None for parameter in classifier.parameters())
    assert found.updates == 6 and not same(found.head, bank.head)
    assert same(found.head, edit_head(bank, bank, NEURONS, recipe, spec, 0, live=images).head)
    with pytest.raises(DataError, match="the live images are others"):
        edit_head(bank.take(torch.arange(20)), bank, NEURONS, recipe, spec, 0, live=images)


def test_only_the_head_is_trained_and_the_network_is_no_part_of_the_module(tmp_path):
    table, classifier = square_table(tmp_path, 8), network().eval()
    bank = bank_under(classifier, table)
    module = HeadEdit(bank, bank, {0: [1]}, {0: 1.0}, SHORT, 0, classifier, batches=1).train()
    assert [name for name, _ in module.named_parameters()] == ["weight", "bias"]
    assert not classifier.training and not any("running" in name for name in module.state_dict())


def test_every_epoch_reaches_the_loggers(banks, tmp_path):
    train, val, neurons = banks
    logger = CSVLogger(tmp_path)
    found = edit_head(train, val, neurons, SHORT, ONE, 0, loggers=[logger])
    rows = pd.read_csv(Path(logger.log_dir) / "metrics.csv")
    for name in ("loss", "regulariser", "accuracy", "class_accuracy", "worst_group"):
        assert rows[f"edit/{name}"].tolist() == pytest.approx([row[name] for row in found.history[1:]], rel=1e-5)


def test_live_images_without_augmentation_give_what_their_features_give(tmp_path):
    table, classifier = square_table(tmp_path, 24), network()
    bank, images = bank_under(classifier, table), LiveImages(classifier, table, plain_recipe().augment)
    recipe = EditRecipe(method="mask_refit", batch_size=24, epochs=4, monitor="last")  # one batch: its order is nothing
    stored = edit_head(bank, bank, NEURONS, recipe, ONE, 0)
    shown = edit_head(bank, bank, NEURONS, replace(recipe, features="live"), ONE, 0, live=images)
    torch.testing.assert_close(shown.head.weight, stored.head.weight, rtol=1e-3, atol=1e-5)
    assert (shown.head.weight[:, [0, 1, 3]] == 0).all()
    assert shown.history[-1]["loss"] == pytest.approx(stored.history[-1]["loss"], rel=1e-4)


@pytest.mark.slow
def test_two_ranks_give_what_one_gives(tmp_path):
    argument = {"data": str(tmp_path)}
    one, two = both(argument), launch("tests.training.edit_tasks:both", argument, 2)
    for part in ("weight", "bias", "updates"):
        assert two["stored"][part] == one["stored"][part]
    shared, alone = two["live"], one["live"]
    np.testing.assert_allclose(shared["weight"], alone["weight"], rtol=1e-3, atol=1e-5)
    losses = [[row["loss"] for row in found["history"]] for found in (shared, alone)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert shared["updates"] == alone["updates"] == 6


def percent(split, head):
    """Right images in per cent by group of the split."""
    right = head.logits(torch.from_numpy(split.features)).argmax(1).numpy() == split.labels
    return {group: 100 * right[split.groups == group].mean() for group in sorted(set(split.groups))}


def last_heads(data, head, settings, seed):
    """The head of the last epoch by setting: (neurons, what the recipe changes)."""
    train, val = (bank_of(split, head, data.classes) for split in (data.train, data.val))
    recipe = EditRecipe(monitor="last")
    return {
        name: edit_head(train, val, neurons, replace(recipe, **changes), ONE, seed).head
        for name, (neurons, changes) in settings.items()
    }


def check_animals(seed):
    """E1: class 0 lost its cue, and gets it back only where the neurons of the cue are edited."""
    data = five_classes(seed)
    head = fit_head(data.train, 5, seed)
    others = np.setdiff1d(np.arange(64), data.planted[0])
    control = np.random.default_rng(seed).choice(others, 3, replace=False).tolist()
    settings = {
        "retention": (data.planted, {}),
        "random": ({0: control}, {}),
        "ce": (data.planted, {"method": "ce"}),
        "mask_refit": (data.planted, {"method": "mask_refit"}),
    }
    heads = {"base": head, **last_heads(data, head, settings, seed)}
    own = {name: percent(data.test, each)["class0|plain"] for name, each in heads.items()}
    features = torch.from_numpy(data.test.features)
    mean = {name: 100 * (each.logits(features).argmax(1).numpy() == data.test.labels).mean() for name, each in heads.items()}  # fmt: skip # noqa: E501
    for method in ("retention", "mask_refit"):
        assert own[method] >= own["base"] + 30 and own[method] >= own["random"] + 25, own
        assert mean[method] >= mean["base"] - 2, mean
    assert own["ce"] <= own["base"] + 5, own


def check_birds(seed):
    """E2: the worst group of birds, far above what going on with training gives; random neurons give nothing."""
    data = waterbirds_like(seed)
    head = fit_head(data.train, 2, seed, epochs=20)
    places = [*data.planted[0], *data.planted[1]]
    others = np.setdiff1d(np.arange(64), places)
    control = np.random.default_rng(seed).choice(others, 8, replace=False).tolist()
    settings = {
        "ce": ({1: places}, {"method": "ce"}),
        "retention": ({1: places}, {"strength": 0.1}),
        "log_ratio": ({1: places}, {"method": "log_ratio", "strength": 1.0}),
        "random": ({1: control}, {"method": "log_ratio", "strength": 1.0}),
        "mean": ({1: places}, {"method": "retention_mean"}),
    }
    heads = {"base": head, **last_heads(data, head, settings, seed)}
    groups = {name: percent(data.test, each) for name, each in heads.items()}
    worst = {name: min(found.values()) for name, found in groups.items()}
    names, counts = np.unique(data.train.groups, return_counts=True)
    weighted = {name: sum(found[g] * n for g, n in zip(names, counts, strict=True)) / 4795 for name, found in groups.items()}  # fmt: skip # noqa: E501
    for method in ("retention", "log_ratio"):
        assert worst[method] >= worst["base"] + 20 and worst[method] >= worst["ce"] + 5, worst
        assert weighted[method] >= weighted["base"] - 5, weighted
    assert worst["random"] <= worst["ce"] + 3, worst
    assert abs(worst["mean"] - worst["ce"]) <= 5, worst  # the released form is little but more training


def test_edits_mend_what_is_planted():
    check_animals(0)
    check_birds(0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_edits_mend_what_is_planted_in_more_seeds(seed):
    check_animals(seed)
    check_birds(seed)
