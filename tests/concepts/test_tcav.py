"""TCAV by hand on a linear head, against captum, and its significance; activations and gradients of named modules."""

import numpy as np
import pytest
import torch
from torch import nn

from aaca.concepts.activations import activations_of, captured, logit_gradients, pooled
from aaca.concepts.cav import fit_cav
from aaca.concepts.tcav import p_value, tcav
from aaca.runtime.errors import ConfigError


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5), nn.Dropout(0.5), nn.Linear(5, 2)
    )


def images(n=12, seed=0):
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_a_linear_head_s_score_is_the_sign_of_its_row():
    weights = np.array([[1.0, 2.0, 0.0], [0.0, -1.0, 3.0]])
    v = np.array([0.0, 1.0, 0.0])
    for label, expected in ((0, 1.0), (1, 0.0)):
        gradients = np.repeat(weights[label][None], 7, axis=0)  # the logit of a linear head has its row as gradient
        assert tcav(gradients, v[None])[0].sign_count == expected
    beta = 1.0  # adding more than β = 1 times v to the second row turns its score
    for extra, expected in ((beta - 1e-6, 0.0), (beta + 1e-6, 1.0)):
        assert tcav((weights[1] + extra * v)[None], v[None])[0].sign_count == expected


def test_counts_and_magnitudes_by_hand():
    gradients = np.array([[2.0, 0.0], [-1.0, 0.0], [1.0, 1.0]])
    first, second, none = tcav(gradients, np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]))
    assert (first.sign_count, first.magnitude) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert (second.sign_count, second.magnitude) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert (none.sign_count, none.magnitude) == (0.0, 0.0)


def test_gradients_are_those_of_finite_differences():
    model, batch, targets = network().double(), images(4).double(), torch.tensor([0, 1, 1, 0])
    (found,) = logit_gradients(model, batch, targets, ["0"], batch_size=3).values()
    with captured(model, ["0"]) as seen:
        model.eval()(batch)
    activation, tail = seen["0"].detach(), model[1:].eval()
    rng = np.random.default_rng(0)
    for place in rng.integers(0, activation[0].numel(), 10):
        step = torch.zeros_like(activation)
        step.flatten(1)[:, place] = 1e-6
        change = (tail(activation + step) - tail(activation - step)).gather(1, targets[:, None])[:, 0] / 2e-6
        np.testing.assert_allclose(found[:, place], change.detach(), atol=1e-5)


def test_nothing_of_the_model_is_changed():
    model = network().train()
    model[4].eval()
    seen = activations_of(model, images(), ["0", "3"], batch_size=5)
    assert seen["0"].shape == (12, 144) and seen["3"].shape == (12, 5)
    assert model.training and not model[4].training and not model[0]._forward_hooks
    with pytest.raises(RuntimeError), captured(model, ["0"]):
        raise RuntimeError
    assert not model[0]._forward_hooks and all(p.grad is None for p in model.parameters())
    torch.testing.assert_close(seen["3"], activations_of(model.eval(), images(), ["3"])["3"])


def test_pools_and_names():
    activation = torch.arange(24.0).reshape(1, 2, 3, 4)
    assert pooled(activation).shape == (1, 24)
    assert pooled(activation, "gap").tolist() == [[5.5, 17.5]] and pooled(activation, "max").tolist() == [[11.0, 23.0]]
    tokens = torch.arange(6.0).reshape(1, 3, 2)
    assert pooled(tokens, "gap").tolist() == [[2.0, 3.0]]
    with pytest.raises(ConfigError, match="layer: no module '33'"):
        activations_of(network(), images(), ["33"])
    with pytest.raises(ConfigError, match="pool: 'mean'"):
        pooled(activation, "mean")


def test_random_sets_are_not_significant_and_a_planted_concept_is():
    rng = np.random.default_rng(0)
    u = np.eye(20)[0]
    gradients = rng.standard_normal((200, 20)) * 0.3 + u  # the class's logit rises along u

    def scores(gap, seeds):
        found = []
        for seed in seeds:
            own = np.random.default_rng(seed)
            positive, negative = own.standard_normal((2, 40, 20))
            found.append(tcav(gradients, fit_cav(positive + gap * u, negative).direction[None])[0].sign_count)
        return found

    random = scores(0.0, range(100, 115))
    assert p_value(scores(4.0, range(15)), random, hypotheses=10) < 0.01
    assert p_value(scores(0.0, range(15)), random) > 0.05
    assert p_value([1.0, 1.0], [1.0, 1.0]) == 1.0 and p_value([1.0, 1.0], [0.0, 0.0]) == 0.0


def test_captum_counts_the_same(tmp_path):
    concept = pytest.importorskip("captum.concept", reason="captum is not installed (extra `test`)")
    attr = pytest.importorskip("captum.attr")
    model, batch = network().eval(), images(30)
    with_it, without = images(20, 1), images(20, 2)
    acts = activations_of(model, torch.cat([with_it, without]), ["0"])["0"].numpy()
    cav = fit_cav(acts[:20], acts[20:], folds=2)

    class Given(concept.Classifier):
        def __init__(self):
            pass

        def train_and_eval(self, dataloader, test_split_ratio=0.33, **kwargs):
            return {"accs": 1.0}

        def weights(self):
            v = torch.from_numpy(cav.direction)
            return torch.stack([v, -v])  # of the concept, and of what is without it

        def classes(self):
            return [0, 1]

    sets = [
        concept.Concept(at, name, [part[None] for part in data])
        for at, (name, data) in enumerate((("with", with_it), ("without", without)))
    ]
    layer = attr.LayerGradientXActivation(model, None, multiply_by_inputs=False)
    theirs = concept.TCAV(model, ["0"], classifier=Given(), layer_attr_method=layer, save_path=str(tmp_path)).interpret(
        batch, [sets], target=1
    )
    (ours,) = tcav(
        logit_gradients(model, batch, torch.ones(30, dtype=torch.int64), ["0"])["0"].numpy(), cav.direction[None]
    )
    (scores,) = theirs.values()
    assert float(scores["0"]["sign_count"][0]) == pytest.approx(ours.sign_count, abs=1e-6)
    assert float(scores["0"]["magnitude"][0]) == pytest.approx(ours.magnitude, abs=1e-5)
