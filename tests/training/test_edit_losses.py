"""The losses of head edits, each against a loop that follows its definition, and against finite differences."""

import math

import pytest
import torch
import torch.nn.functional as F

from aaca.training.edit_losses import class_weights, focal, log_ratio, log_ratios, retention, retention_mean, without

EPS = 1e-9
NEURONS = {0: [1, 4], 2: [0, 4, 5]}
UNION = [0, 1, 4, 5]
TARGETS = {0: 1.02, 2: 0.9}


@pytest.fixture
def problem():
    """Features [7, 6], weight [3, 6], bias [3] in float64, with gradients of the head."""
    generator = torch.Generator().manual_seed(3)
    features = torch.rand(7, 6, generator=generator, dtype=torch.float64) * 2
    weight = torch.randn(3, 6, generator=generator, dtype=torch.float64).requires_grad_()
    bias = torch.randn(3, generator=generator, dtype=torch.float64).requires_grad_()
    return features, weight, bias


def tensors(neurons):
    return {label: torch.tensor(own) for label, own in neurons.items()}


def naive_ratio(feature, weight, bias, neurons, label):
    """p_c(f) / (p_c(f ⊙ m) + eps) of one image, number by number."""

    def probability(values):
        logits = [
            sum(float(w) * v for w, v in zip(row, values, strict=True)) + float(b)
            for row, b in zip(weight, bias, strict=True)
        ]
        return math.exp(logits[label]) / sum(math.exp(logit) for logit in logits)

    cut = [0.0 if neuron in neurons else float(value) for neuron, value in enumerate(feature)]
    return probability([float(value) for value in feature]) / (probability(cut) + EPS)


def terms(features, weight, bias):
    logits = F.linear(features, weight, bias)
    union = torch.tensor(UNION)
    return {
        "retention": retention(features, weight, logits, tensors(NEURONS), TARGETS),
        "rms": retention(features, weight, logits, tensors(NEURONS), TARGETS, reduce="rms"),
        "retention_mean": retention_mean(features, weight, logits, union, 1.3),
        "log_ratio": log_ratio(features, weight, logits, union, 1.1),
    }


def test_every_term_is_what_a_loop_over_its_definition_gives(problem):
    features, weight, bias = problem
    found = {name: float(value.detach()) for name, value in terms(features, weight, bias).items()}

    def norm(label):
        apart = [naive_ratio(f, weight, bias, NEURONS[label], label) - TARGETS[label] for f in features]
        return math.sqrt(sum(value**2 for value in apart))

    every = [naive_ratio(f, weight, bias, UNION, label) for f in features for label in range(3)]
    assert found["retention"] == pytest.approx(norm(0) + norm(2), rel=1e-10)
    assert found["rms"] == pytest.approx((norm(0) + norm(2)) / math.sqrt(7), rel=1e-10)
    assert found["retention_mean"] == pytest.approx(abs(sum(every) / len(every) - 1.3), rel=1e-10)
    squares = [(math.log(value) - math.log(1.1)) ** 2 for value in every]
    assert found["log_ratio"] == pytest.approx(sum(squares) / len(squares), rel=1e-10)


@pytest.mark.parametrize("name", ["retention", "rms", "retention_mean", "log_ratio"])
def test_gradients_agree_with_finite_differences(problem, name):
    features, weight, bias = problem
    assert torch.autograd.gradcheck(lambda w, b: terms(features, w, b)[name], (weight, bias), eps=1e-6, atol=1e-6)


def test_focal_and_class_weights(problem):
    features, weight, bias = problem
    labels = torch.tensor([0, 1, 2, 2, 1, 0, 0])
    weights = class_weights(3, [2]).double()
    assert weights.tolist() == pytest.approx([0.9, 0.9, 1.0], abs=1e-7)
    logits = F.linear(features, weight, bias)
    chances = logits.softmax(dim=1)
    each = [
        -float(weights[label]) * (1 - float(chances[row, label])) ** 2 * math.log(float(chances[row, label]))
        for row, label in enumerate(labels.tolist())
    ]
    assert float(focal(logits, labels, weights).detach()) == pytest.approx(sum(each) / 7, rel=1e-10)
    assert torch.autograd.gradcheck(lambda w, b: focal(F.linear(features, w, b), labels, weights), (weight, bias))
    plain = F.cross_entropy(logits, labels)
    torch.testing.assert_close(focal(logits, labels, torch.ones(3).double(), focusing=0.0), plain)


def test_without_neurons_is_the_head_of_cut_features(problem):
    features, weight, bias = problem
    cut = features.clone()
    cut[:, UNION] = 0
    found = without(features, weight, F.linear(features, weight, bias), torch.tensor(UNION))
    torch.testing.assert_close(found, F.linear(cut, weight, bias), rtol=1e-12, atol=1e-12)


def test_no_neurons_no_term_and_a_finite_gradient(problem):
    features, weight, bias = problem
    logits, none = F.linear(features, weight, bias), torch.tensor([], dtype=torch.long)
    found = [
        retention(features, weight, logits, {0: none}, {0: 1.0}),
        retention_mean(features, weight, logits, none, 1.0),
        log_ratio(features, weight, logits, none, 1.0),
    ]
    assert max(float(value.detach()) for value in found) < 1e-5  # what eps leaves of it
    exact = retention(features, weight, logits, {0: none}, {0: 1.0}, eps=1e-300)
    assert float(exact.detach()) == 0.0
    gradients = torch.autograd.grad(exact, [weight, bias])
    assert all(bool((part == 0).all()) for part in gradients)


def test_columns_that_are_the_same_for_all_classes_leave_every_ratio_at_one(problem):
    features, weight, bias = problem
    projected = weight.detach().clone()
    projected[:, UNION] = projected[:, UNION].mean(dim=0)
    wild = torch.cat([features, 30 * torch.randn(200, 6, dtype=torch.float64)])  # any input, not only likely ones
    logits = F.linear(wild, projected, bias)
    ratios = log_ratios(logits, without(wild, projected, logits, torch.tensor(UNION)), eps=1e-300).exp()
    assert float((ratios - 1).abs().max()) < 1e-6
    before = F.linear(wild, weight, bias)
    assert float((log_ratios(before, without(wild, weight, before, torch.tensor(UNION))).exp() - 1).abs().max()) > 0.5


def test_ratios_stay_finite_where_probabilities_vanish():
    logits = torch.tensor([[200.0, -200.0]])
    ratios = log_ratios(logits, -logits)
    assert torch.isfinite(ratios).all()
    assert float(ratios[0, 0].exp()) == pytest.approx(1 / EPS, rel=1e-4)  # eps in the denominator, as in the paper


def test_the_mean_form_is_blind_where_the_cut_prediction_is_uniform():
    features, weight = torch.tensor([[1.0], [3.0]]), torch.tensor([[2.0], [-2.0]])
    logits = features @ weight.T
    assert float(retention_mean(features, weight, logits, torch.tensor([0]), 1.0)) < 1e-6
    assert float(retention(features, weight, logits, {0: torch.tensor([0])}, {0: 1.0})) > 1
    assert float(log_ratio(features, weight, logits, torch.tensor([0]), 1.0)) > 1
