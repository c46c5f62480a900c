import json
import logging
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from aaca.data.planted_features import five_classes, waterbirds_like
from aaca.discover.neurons.counterfactual import CounterfactualRule, counterfactuals
from aaca.discover.neurons.inspect import Inspection, InspectSpec, inspect
from aaca.discover.neurons.scorers import contributions, neuron_scores
from aaca.models.head import Head
from aaca.runtime.errors import ConfigError, DataError
from tests.neuron_toys import bank_of, fit_head

RULE = CounterfactualRule()


def animals(seed=0):
    found = five_classes(seed)
    return found, bank_of(found.val, fit_head(found.train, 5, seed), found.classes)


@pytest.fixture(scope="module")
def five():
    return animals()


@pytest.fixture(scope="module")
def birds():
    found = waterbirds_like(0)
    return found, bank_of(found.val, fit_head(found.train, 2, seed=0, epochs=20), found.classes)


def hits(neurons, planted):
    return len(set(neurons) & set(planted))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("scorer", ["counterfactual", "gradient"])
def test_planted_neurons_lead_the_insufficient_list(seed, scorer):
    found, bank = animals(seed)
    inspection = inspect(bank, InspectSpec(scorer=scorer), seed)
    (report,) = inspection.reports
    assert report.name == "class0"  # the worst
    assert set(found.planted[0]) <= set(inspection.neurons("insufficient", 5)[0])
    assert all(row.prec > 90 for row in report.insufficient[:3])
    assert not hits([row.neuron for row in report.excessive], found.planted[0])


def test_one_step_ranks_as_the_whole_loop(five):
    _, bank = five
    rows = bank.mistakes(0)
    loop, step = (neuron_scores(bank, rows, scorer, RULE, 0).values for scorer in ("counterfactual", "gradient"))
    tops = [values.topk(5, dim=1).indices.tolist() for values in (loop, step)]
    assert np.mean([len(set(a) & set(b)) / 5 for a, b in zip(*tops, strict=True)]) > 0.8
    torch.testing.assert_close(
        step, -_first_gradient(bank.features[rows], bank.labels[rows], bank.head), rtol=1e-4, atol=1e-6
    )


def _first_gradient(features, targets, head):
    change = torch.zeros_like(features, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(head.logits(features + change), targets, reduction="sum")
    return torch.autograd.grad(loss, change)[0]


def test_two_classes_let_every_mistake_name_the_same_neurons(birds, caplog):
    found, bank = birds
    with caplog.at_level(logging.WARNING):
        inspection = inspect(bank, InspectSpec(classes="all", hide_overlap=False), 0)
    assert "two classes" in caplog.text
    for report in inspection.reports:
        gap = bank.head.weight[report.label] - bank.head.weight[1 - report.label]
        assert {row.neuron for row in report.insufficient} == set(gap.topk(5).indices.tolist())
        assert all(row.prec == 100 for row in report.insufficient)
    cues = (*found.planted[0], *found.planted[1])
    paper, ours = (
        sum(
            hits(neurons, cues)
            for lists in ("insufficient", "excessive")
            for neurons in inspect(bank, InspectSpec(classes="all", scorer=scorer), 0).neurons(lists, 4).values()
        )
        for scorer in ("counterfactual", "contribution")
    )
    assert paper == 0 and ours >= 8  # of 16 places


def test_contribution_is_silent_about_two_classes(birds, caplog):
    inspect(birds[1], InspectSpec(scorer="contribution"), 0)
    assert not caplog.text


def test_contributions_put_each_neuron_on_its_side(birds):
    found, bank = birds
    rows = bank.mistakes(1)  # water birds on land: water is missing, land is too much
    values = contributions(bank, rows).mean(dim=0)
    assert bool((values[list(found.planted[1])] > 0).all()) and bool((values[list(found.planted[0])] < 0).all())
    mean = bank.features[(bank.labels == 1) & (bank.predictions == 1)].mean(dim=0)
    for row in rows[:3].tolist():
        for neuron in range(0, 64, 7):
            gap = float(mean[neuron] - bank.features[row, neuron])
            gain = gap * float(bank.head.weight[1, neuron] - bank.head.weight[0, neuron])
            expected = 0.0 if gain <= 0 else gain if gap > 0 else -gain
            place = rows.tolist().index(row)
            assert float(contributions(bank, rows)[place, neuron]) == pytest.approx(expected, abs=1e-5)


def test_scores_that_do_not_look_at_the_image(five):
    _, bank = five
    rows = torch.cat([bank.mistakes(0)[:4], bank.mistakes(3)[:2]])
    weight = neuron_scores(bank, rows, "weight", RULE, 0)
    assert torch.equal(weight.values, bank.head.weight[[0, 0, 0, 0, 3, 3]])
    assert weight.steps is None and weight.converged is None and bool(weight.used.all())
    importance = neuron_scores(bank, rows, "importance", RULE, 0).values
    expected = bank.head.importance(bank.features.mean(dim=0), 3).float() - 1
    torch.testing.assert_close(importance[4:], expected.expand(2, -1))
    random = [neuron_scores(bank, rows, "random", RULE, seed).values for seed in (0, 0, 1)]
    assert torch.equal(random[0], random[1]) and not torch.equal(random[0], random[2])
    assert torch.equal(random[0][0], random[0][3]) and not torch.equal(random[0][0], random[0][4])
    with pytest.raises(ConfigError, match=r"inspect\.scorer.*gradient"):
        neuron_scores(bank, rows, "gradiant", RULE, 0)


def test_the_box_is_that_of_the_bank(five):
    _, bank = five
    rows, rule = bank.mistakes(0), CounterfactualRule(box="q99")
    direct = counterfactuals(
        bank.features[rows], bank.labels[rows], bank.head, rule, torch.from_numpy(np.quantile(bank.features, 0.99, 0))
    )
    torch.testing.assert_close(neuron_scores(bank, rows, "counterfactual", rule, 0).values, direct.change)
    assert float((bank.features[rows] + direct.change).min()) >= -1e-6


def test_a_report_is_what_the_bank_says(five):
    _, bank = five
    inspection = inspect(bank, InspectSpec(classes="all", min_prec=10.0), 0)
    assert [report.label for report in inspection.reports] == list(range(5))
    for report in inspection.reports:
        rows = bank.mistakes(report.label)
        wrong = Counter(bank.classes[int(index)] for index in bank.predictions[rows])
        assert (report.images, report.mistakes, report.rivals) == (100, len(rows), dict(wrong))
        alone = counterfactuals(bank.features[rows], bank.labels[rows], bank.head, RULE, None)
        assert report.used == report.converged == len(rows)
        assert report.steps == pytest.approx(float(alone.steps.float().mean()))
        right = (bank.labels == report.label) & (bank.predictions == report.label)
        votes = Counter(alone.change.topk(5, dim=1).indices.flatten().tolist())
        for row in report.insufficient:
            assert row.prec == pytest.approx(100 * votes[row.neuron] / len(rows)) and row.prec > 10
            assert row.weight == pytest.approx(float(bank.head.weight[report.label, row.neuron]))
            assert row.mistakes == pytest.approx(float(bank.features[rows, row.neuron].mean()), rel=1e-5)
            assert row.correct == pytest.approx(float(bank.features[right][:, row.neuron].mean()), rel=1e-5)
        assert sum(sum(rank.values()) for rank in report.details["+"].values()) == 5 * len(rows)


def test_mistakes_that_do_not_arrive_are_counted(five, caplog):
    report = inspect(five[1], InspectSpec(rule=CounterfactualRule(max_steps=2)), 0).reports[0]
    assert report.converged < report.used == report.mistakes and report.steps <= 2
    assert "did not reach" in caplog.text


def test_a_class_without_mistakes_says_so(five):
    _, bank = five
    sure = bank.with_head(Head(bank.head.weight, bank.head.bias + torch.tensor([0.0, 99.0, 0.0, 0.0, 0.0])))
    inspection = inspect(sure, InspectSpec(classes=["class1"]), 0)
    (report,) = inspection.reports
    assert (report.images, report.mistakes, report.used, report.converged, report.steps) == (100, 0, 0, 0, None)
    assert report.insufficient == report.excessive == () and inspection.neurons("both", 5) == {1: ()}


def test_a_class_without_correct_images_has_no_contribution(five, caplog):
    _, bank = five
    never = bank.with_head(Head(bank.head.weight, bank.head.bias - torch.tensor([99.0, 0.0, 0.0, 0.0, 0.0])))
    report = inspect(never, InspectSpec(scorer="contribution"), 0).reports[0]
    assert (report.mistakes, report.used, report.insufficient) == (100, 0, ())
    assert "100 of the 100 mistakes of 'class0' have no vote" in caplog.text
    listed = inspect(never, InspectSpec(), 0).reports[0].insufficient
    assert listed and all(row.correct is None for row in listed)


def test_neurons_of_one_or_both_lists(five):
    inspection = inspect(five[1], InspectSpec(), 0)
    more, less = (inspection.neurons(lists, 50)[0] for lists in ("insufficient", "excessive"))
    assert inspection.neurons("both", 5)[0] == (more[0], less[0], more[1], less[1], more[2])
    assert set(inspection.neurons("both", 99)[0]) == set(more) | set(less)
    report = inspection.reports[0]
    shorter = replace(inspection, reports=(replace(report, excessive=()),))
    assert shorter.neurons("both", 3)[0] == more[:3]


def test_classes_are_chosen_by_name(five):
    _, bank = five
    named = inspect(bank, InspectSpec(classes=["class3", "class1", "class3"]), 0)
    assert [report.name for report in named.reports] == ["class3", "class1"]
    everything = inspect(bank, InspectSpec(classes="all"), 0)
    assert named.reports[0] == everything.reports[3]  # a class's report does not depend on its company
    assert inspect(bank, InspectSpec(classes="class4"), 0).reports[0].label == 4
    with pytest.raises(ConfigError, match=r"inspect\.classes: 'clas4'; nearest valid: class4"):
        inspect(bank, InspectSpec(classes="clas4"), 0)
    with pytest.raises(ConfigError, match="no class"):
        inspect(bank, InspectSpec(classes=[]), 0)
    without = bank.take(torch.nonzero(bank.labels != 0).flatten())
    assert inspect(without, InspectSpec(), 0).reports[0].label != 0
    with pytest.raises(DataError, match="no images"):
        inspect(bank.take(torch.zeros(0, dtype=torch.int64)), InspectSpec(), 0)


@pytest.mark.parametrize("scorer", ["counterfactual", "contribution"])
def test_a_saved_inspection_comes_back(five, tmp_path, scorer):
    inspection = inspect(five[1], InspectSpec(classes="all", scorer=scorer), 3)
    inspection.save(tmp_path / "new")
    assert Inspection.load(tmp_path / "new") == inspection
    found = json.loads((tmp_path / "new" / "inspection.json").read_text())
    assert (found["schema"], found["K"], found["D"], found["seed"]) == (1, 5, 64, 3)
    assert found["spec"]["scorer"] == scorer and found["spec"]["rule"]["alpha"] == 0.1
    report, votes = inspection.reports[0], found["reports"][0]["votes"]
    assert votes["total"]["+"] == {str(row.neuron): row.prec for row in report.insufficient}
    assert list(votes["details"]["-"]) == [f"top-{rank}" for rank in range(1, 6)]
    table = pd.read_parquet(tmp_path / "new" / "neurons.parquet")
    own = table[(table["label"] == 0) & (table["list"] == "insufficient")]
    assert own["neuron"].tolist() == [row.neuron for row in report.insufficient]
    assert own["rank"].tolist() == list(range(1, len(own) + 1))
    assert len(table) == sum(len(r.insufficient) + len(r.excessive) for r in inspection.reports)


def test_a_broken_report_is_refused(tmp_path):
    with pytest.raises(DataError, match="no neuron inspection"):
        Inspection.load(tmp_path)
    (tmp_path / "inspection.json").write_text('{"schema": 99}')
    with pytest.raises(DataError, match="schema 99; expected 1"):
        Inspection.load(tmp_path)
    (tmp_path / "inspection.json").write_text('{"schema": 1, "reports": [{"label": 0}]}')
    with pytest.raises(DataError, match="no neuron inspection"):
        Inspection.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"), [("scorer", "weigth"), ("top_k", 0), ("max_rows", 0), ("min_prec", -1.0), ("min_prec", 100.0)]
)
def test_bad_specs_name_their_key(name, value):
    with pytest.raises(ConfigError, match=rf"inspect\.{name}"):
        InspectSpec(**{name: value})
