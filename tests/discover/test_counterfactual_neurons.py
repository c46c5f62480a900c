import pytest
import torch

from aaca.discover.neurons import counterfactual
from aaca.discover.neurons.counterfactual import CounterfactualRule, counterfactuals
from aaca.discover.neurons.scorers import neuron_scores
from aaca.models.head import FeatureBank, Head
from aaca.runtime.errors import ConfigError, DataError


def problem(rows=24, neurons=256, classes=101, seed=0):
    """Features that all miss their random target, and a head."""
    generator = torch.Generator().manual_seed(seed)
    head = Head(torch.randn(classes, neurons, generator=generator) / 8, torch.zeros(classes))
    features = torch.randn(rows, neurons, generator=generator).relu()
    away = torch.randint(1, classes, (rows,), generator=generator)
    return features, (head.logits(features).argmax(1) + away) % classes, head


def one_by_one(features, targets, head, rule):
    """The paper's loop: one mistake after another, autograd and torch.optim.SGD."""
    changes, steps, converged = [], [], []
    for row, target in zip(features, targets, strict=True):
        change = torch.zeros(1, len(row), requires_grad=True)
        optimizer = torch.optim.SGD([change], lr=rule.lr, momentum=rule.momentum)
        step = 0
        while True:
            logits = (row + change) @ head.weight.T + head.bias
            reached = int(logits.argmax()) == int(target)
            if reached or step == rule.max_steps:
                break
            loss = torch.nn.functional.cross_entropy(logits, target[None])
            loss = loss + (rule.alpha * change.norm(p=1) + rule.beta * change.norm(p=2)) / len(row)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
        changes.append(change.detach()[0])
        steps.append(step)
        converged.append(reached)
    return torch.stack(changes), torch.tensor(steps), torch.tensor(converged)


@pytest.mark.parametrize(
    "rule",
    [
        CounterfactualRule(),
        CounterfactualRule(alpha=5.0, beta=20.0, lr=0.02, momentum=0.5),  # both norms move the result
        CounterfactualRule(max_steps=20),  # some arrive, some do not
    ],
)
def test_the_batch_is_the_papers_loop(rule):
    features, targets, head = problem()
    changes, steps, converged = one_by_one(features, targets, head, rule)
    found = counterfactuals(features, targets, head, rule, None)
    assert found.steps.tolist() == steps.tolist() and found.converged.tolist() == converged.tolist()
    assert float((found.change - changes).abs().max()) <= 1e-6
    if rule.max_steps == 20:
        assert 0 < int(converged.sum()) < len(converged)
    else:
        assert bool(converged.all()) and len(set(steps.tolist())) > 3


def test_penalties_change_the_result():
    features, targets, head = problem(rows=6)
    plain = counterfactuals(features, targets, head, CounterfactualRule(alpha=0, beta=0), None).change
    for name in ("alpha", "beta"):
        other = counterfactuals(features, targets, head, CounterfactualRule(**{name: 20.0}), None).change
        assert float((other - plain).abs().max()) > 1e-3


def test_every_row_flips_to_its_target_and_not_sooner():
    features, targets, head = problem()
    found = counterfactuals(features, targets, head, CounterfactualRule(), None)
    assert bool(found.converged.all())
    assert head.logits(features + found.change).argmax(1).tolist() == targets.tolist()
    short = counterfactuals(features, targets, head, CounterfactualRule(max_steps=int(found.steps.max()) - 1), None)
    late = found.steps == found.steps.max()
    assert short.converged.tolist() == (~late).tolist()
    assert bool((head.logits(features + short.change).argmax(1) != targets)[late].all())


def test_a_row_that_cannot_reach_its_class_stops_at_max_steps():
    features, _, head = problem(rows=3, classes=4)
    head.weight[3] = head.weight[2]  # class 3 never beats class 2
    head.bias[2] = 1.0
    found = counterfactuals(features, torch.tensor([3, 0, 1]), head, CounterfactualRule(max_steps=400), None)
    assert found.steps[0] == 400 and found.converged.tolist() == [False, True, True]
    assert bool(found.change[0].any()) and bool(found.change.isfinite().all())


def test_rows_that_are_there_already_take_no_step_and_are_not_used():
    features, targets, head = problem(rows=5, classes=7)
    targets[2] = head.logits(features).argmax(1)[2]
    found = counterfactuals(features, targets, head, CounterfactualRule(), None)
    assert found.steps[2] == 0 and bool(found.converged[2]) and not bool(found.change[2].any())
    bank = FeatureBank(head, features, targets, torch.arange(5).numpy(), torch.arange(5).numpy(), tuple("abcdefg"))
    scored = neuron_scores(bank, torch.arange(5), "counterfactual", CounterfactualRule(), 0)
    assert scored.used.tolist() == [True, True, False, True, True]


def test_company_and_chunks_change_nothing(monkeypatch):
    features, targets, head = problem(rows=9)
    whole = counterfactuals(features, targets, head, CounterfactualRule(), None)
    monkeypatch.setattr(counterfactual, "CHUNK_VALUES", 2 * 256 + 5)  # two rows at a time
    parts = counterfactuals(features, targets, head, CounterfactualRule(), None)
    assert parts.steps.tolist() == whole.steps.tolist() and bool(parts.converged.all())
    torch.testing.assert_close(parts.change, whole.change, rtol=0, atol=1e-6)


def test_the_box_is_kept():
    features, targets, head = problem()
    upper = features.quantile(0.99, dim=0)
    free = features + counterfactuals(features, targets, head, CounterfactualRule(), None).change
    assert float((free < -1e-6).float().mean()) > 0.05  # the paper's loop leaves what a ReLU can give
    found = counterfactuals(features, targets, head, CounterfactualRule(box="q99"), upper)
    boxed = features + found.change
    assert float(boxed.min()) >= -1e-6
    assert bool((boxed <= torch.maximum(upper, features) + 1e-6).all())
    assert bool((boxed >= upper - 1e-6).any()) and bool(found.converged.all())
    assert head.logits(boxed).argmax(1).tolist() == targets.tolist()


def test_nothing_comes_of_nothing():
    _, _, head = problem()
    found = counterfactuals(torch.zeros(0, 256), torch.zeros(0, dtype=torch.int64), head, CounterfactualRule(), None)
    assert found.change.shape == (0, 256) and found.steps.shape == found.converged.shape == (0,)


def test_bad_tensors_are_refused():
    features, targets, head = problem(rows=3)
    rule = CounterfactualRule()
    with pytest.raises(DataError, match=r"\[M, 256\]"):
        counterfactuals(features[:, :9], targets, head, rule, None)
    with pytest.raises(DataError, match="outside 0 … 100"):
        counterfactuals(features, targets + 101, head, rule, None)
    with pytest.raises(DataError, match="not finite"):
        counterfactuals(features / 0, targets, head, rule, None)
    with pytest.raises(DataError, match="bounds"):
        counterfactuals(features, targets, head, rule, torch.ones(3))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("alpha", -1),
        ("beta", -0.1),
        ("lr", 0),
        ("momentum", 1.0),
        ("max_steps", 0),
        ("box", "q9"),
        ("lr", float("nan")),
    ],
)
def test_bad_rules_name_their_key(name, value):
    with pytest.raises(ConfigError, match=rf"inspect\.{name}"):
        CounterfactualRule(**{name: value})


@pytest.mark.parametrize("label", [0, 60])
def test_importance_is_what_switching_a_neuron_off_does(label):
    features, _, head = problem()
    mean = features.mean(dim=0)
    whole = head.logits(mean[None]).double().softmax(1)[0, label]
    brute = []
    for neuron in range(len(mean)):
        off = mean.clone()
        off[neuron] = 0
        brute.append(whole / head.logits(off[None]).double().softmax(1)[0, label])
    torch.testing.assert_close(head.importance(mean, label), torch.stack(brute), rtol=1e-5, atol=0)
