import math
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from aaca.data.scenegraph.batch import collate
from aaca.models.captioner.captioner import GraphCaptioner
from aaca.training.align_losses import attention, attribution, leak, named_nodes
from aaca.training.captioning import teach
from tests.training.caption_toys import Shapes, tiny_spec


def test_named_nodes_are_padded_and_cut():
    named = named_nodes([("Dog",), ("a", "cat")], ["a dog runs", "a cat"], 2, 3)
    expected = torch.zeros(2, 2, 3, dtype=torch.bool)
    expected[0, 1, 0] = expected[1, 0, 0] = expected[1, 1, 1] = True
    assert torch.equal(named, expected)


def random_case(seed: int = 0, b: int = 3, t: int = 5, n: int = 4):
    g = torch.Generator().manual_seed(seed)
    mask = torch.ones(b, n, dtype=torch.bool)
    mask[1, 3:] = mask[2, 2:] = False
    scores = torch.randn(b, t, n, generator=g).masked_fill(~mask[:, None], -torch.inf)
    word_mask = torch.arange(t) < torch.tensor([[5], [3], [1]])
    named = (torch.rand(b, t, n, generator=g) < 0.3) & mask[:, None]
    rationale = torch.rand(b, n, generator=g) < 0.5
    return scores.softmax(2), named, rationale, mask, word_mask


def test_attention_and_leak_equal_loops():
    for seed in range(5):
        alpha, named, rationale, mask, word_mask = random_case(seed)
        pulled, leaked = [], []
        b, t, n = alpha.shape
        for i in range(b):
            for step in range(t):
                if not word_mask[i, step]:
                    continue
                right = [float(alpha[i, step, k]) for k in range(n) if named[i, step, k]]
                if right:
                    pulled.append(-math.log(sum(right)))
                leaked.append(sum(float(alpha[i, step, k]) for k in range(n) if mask[i, k] and not rationale[i, k]))
        total, count = attention(alpha, named, word_mask)
        assert int(count) == len(pulled) > 0
        assert total.item() == pytest.approx(sum(pulled), rel=1e-5)
        total, count = leak(alpha, rationale, mask, word_mask)
        assert int(count) == len(leaked) == 9
        assert total.item() == pytest.approx(sum(leaked), rel=1e-5)
    none = attention(alpha, torch.zeros_like(named), word_mask)
    assert [float(value) for value in none] == [0.0, 0.0]
    assert float(leak(alpha, torch.ones_like(rationale), mask, word_mask)[0]) == 0.0


def test_attention_that_underflowed_to_zero_is_finite():
    alpha = torch.tensor([[[1.0, 0.0]]], requires_grad=True)
    total, _ = attention(alpha, torch.tensor([[[False, True]]]), torch.ones(1, 1, dtype=torch.bool))
    total.backward()
    assert total.item() == pytest.approx(-math.log(1e-8))
    assert torch.isfinite(alpha.grad).all()


def test_gradients_of_attention_losses_touch_only_what_they_speak_of():
    alpha, named, rationale, mask, word_mask = random_case(1)
    for loss, touched in (
        (lambda a: attention(a, named, word_mask)[0], named & word_mask[..., None]),
        (lambda a: leak(a, rationale, mask, word_mask)[0], (mask & ~rationale)[:, None] & word_mask[..., None]),
    ):
        own = alpha.clone().requires_grad_()
        loss(own).backward()
        assert torch.equal(own.grad != 0, touched)


def quadratic(features, weight):
    # log p = Σ_b Σ_i sin(w·v_i) + (w·v_i)²/2: its slope is known by hand
    inner = features @ weight
    return (inner.sin() + inner**2 / 2).sum()


def attribution_by_hand(features, weight, rationale, mask):
    total, count = 0.0, 0
    for v, r, m in zip(features, rationale, mask, strict=True):
        inner = v @ weight
        a = np.abs(inner * (np.cos(inner) + inner)) * m
        if a.sum() > 0:
            total, count = total + 1 - a[r].sum() / a.sum(), count + 1
    return total, count


def test_attribution_equals_its_closed_form_and_its_double_gradient_finite_differences():
    rng = np.random.default_rng(0)
    _, _, rationale, mask, _ = random_case(2)
    values, w = rng.normal(size=(3, 4, 6)), rng.normal(size=6)
    values[2] = 0.0  # nothing is attributed to any node: left out
    features = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    weight = torch.tensor(w, dtype=torch.float64, requires_grad=True)
    total, count = attribution(features, quadratic(features, weight), rationale, mask)
    expected, number = attribution_by_hand(values, w, rationale.numpy(), mask.numpy())
    assert int(count) == number == 2
    assert total.item() == pytest.approx(expected, rel=1e-5)
    total.backward()
    step = 1e-5
    for k in range(6):
        move = np.eye(6)[k] * step
        up, down = (attribution_by_hand(values, w + s * move, rationale.numpy(), mask.numpy())[0] for s in (1, -1))
        assert float(weight.grad[k]) == pytest.approx((up - down) / (2 * step), rel=1e-3, abs=1e-5)


def model_and_batch():
    shapes = Shapes(6)
    model = GraphCaptioner(tiny_spec(shapes.words), seed=0)
    return model, collate([shapes.item(i) for i in range(6)])


def test_attention_losses_of_the_model_pass_by_its_logits():
    model, batch = model_and_batch()
    batch.features.requires_grad_()
    forced = model.forced(batch)
    total, _ = leak(forced.padded(forced.attention), batch.types == 0, batch.mask, batch.word_mask)
    parts = [forced.logits, forced.attention, batch.features, model.decoder.score.weight]
    logits, *others = torch.autograd.grad(total, parts, allow_unused=True)
    assert logits is None
    assert all(float(part.abs().sum()) > 0 for part in others)


def test_attribution_of_the_model_reaches_the_encoder_and_the_attention():
    model, batch = model_and_batch()
    batch.features.requires_grad_()
    log_probs, _ = teach(model, batch)
    total, count = attribution(batch.features, log_probs.sum(), batch.types == 0, batch.mask)
    assert int(count) == 6 and 0 < total.item() < 6
    total.backward()
    for weight in (model.decoder.score.weight, model.encoder.whole.weight, model.words.weight):
        assert weight.grad.abs().sum() > 0


def test_attribution_of_the_model_is_gradient_times_input_one_graph_at_a_time():
    model, batch = model_and_batch()
    rationale = batch.types == 0
    features = batch.features.clone().requires_grad_()
    batch.features = features
    log_probs, _ = teach(model, batch)
    total, _ = attribution(features, log_probs.sum(), rationale, batch.mask)
    shapes, expected = Shapes(6), 0.0
    for row in range(6):
        alone = collate([shapes.item(row)])
        alone.features.requires_grad_()
        logits = model(alone)[0]
        log_prob = -F.cross_entropy(logits, alone.words[0, 1:], reduction="sum")
        log_prob.backward()
        shares = (alone.features * alone.features.grad).detach().sum(2)[0].abs()
        expected += 1 - float((shares * (alone.types[0] == 0)).sum() / shares.sum())
    assert total.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", ["attention", "leak", "attribution"])
def test_each_loss_falls_under_small_steps_along_its_gradient(kind):
    model, batch = model_and_batch()
    rationale = batch.types == 0
    named = torch.zeros(*batch.word_mask.shape, batch.mask.shape[1], dtype=torch.bool)
    named[:, 2, 0] = True
    # the |…| of attribution has kinks, over which even small steps jump
    optimiser = torch.optim.SGD(model.parameters(), lr=0.002 if kind == "attribution" else 0.02)
    seen = []
    for _ in range(15):
        batch.features = batch.features.detach().requires_grad_()
        log_probs, alpha = teach(model, batch)
        if kind == "attention":
            total, count = attention(alpha, named, batch.word_mask)
        elif kind == "leak":
            total, count = leak(alpha, rationale, batch.mask, batch.word_mask)
        else:
            total, count = attribution(batch.features, log_probs.sum(), rationale, batch.mask)
        loss = total / count
        seen.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    if kind == "attribution":
        assert seen[-1] < 0.9 * seen[0]
    else:
        assert all(after < before for before, after in pairwise(seen)), seen
