"""JumpReLU, gated, Matryoshka and archetypal autoencoders: formulas, gradients, bounds, and planted atoms are found."""

import warnings
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from aaca.models.sae.archetypal import Archetypal, centroids, mixtures
from aaca.models.sae.base import Known, SaeSpec
from aaca.models.sae.batchtopk import BatchTopK
from aaca.models.sae.gated import Gated
from aaca.models.sae.jumprelu import JumpRelu
from aaca.models.sae.matryoshka import Matryoshka
from aaca.runtime.config import parse
from aaca.runtime.errors import ConfigError

D, H, B = 8, 32, 40
VARIANTS = [
    JumpRelu(latents=H, l0=0.02, threshold=0.3, bandwidth=0.4, init="kaiming"),
    Gated(latents=H, l1=0.01, init="kaiming"),
    Matryoshka(latents=H, k=3, prefixes=[0.25, 0.5, 1.0]),
    Archetypal(latents=H, k=3, anchors=20, delta=0.5),
]


def vectors(seed=0, count=B):
    return torch.randn(count, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.3


def built(spec, dtype=torch.float64):
    generator, sample = torch.Generator().manual_seed(1), vectors(9, 60).float()
    sae = spec.build(Known(D, sample.mean(dim=0), sample.median(dim=0).values, sample), generator).to(dtype)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    sae.renormalise()
    return sae


def same(found, wanted, most=1e-9):
    for one, other in zip(found, wanted, strict=True):
        assert other.abs().max() > 1e-6
        assert (one - other).abs().max() / other.abs().max() < most


@pytest.mark.parametrize("spec", VARIANTS, ids=lambda spec: spec.name)
def test_what_belongs_to_a_latent_is_all_but_the_bias_and_all_of_it_learns(spec):
    sae = built(spec)
    own = sae.per_latent()
    assert all(len(parameter) == sae.latents == H for parameter in own)
    assert {id(parameter) for parameter in sae.parameters()} == {id(sae.bias), *map(id, own)}
    losses = sae.losses(vectors())
    losses.total.backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in sae.parameters())
    assert losses.fired.shape == (H,) and losses.fired.dtype == torch.bool and 0 < losses.fired.sum() < H + 1
    codes = sae.encode(vectors())
    assert codes.shape == (B, H) and codes.min() == 0 and sae.atoms.shape == (H, D)
    torch.testing.assert_close(sae(vectors()), codes @ sae.atoms + sae.bias)


@pytest.mark.parametrize("spec", VARIANTS, ids=lambda spec: spec.name)
def test_losses_in_bfloat16_are_near_those_in_float32(spec):
    sae, x = built(spec, torch.float32), vectors(count=400).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = sae.losses(x).total
    assert rough.dtype == torch.float32 and rough.item() == pytest.approx(sae.losses(x).total.item(), rel=2e-2)


def test_jumprelu_is_its_formula_with_its_pseudo_derivatives():
    sae, x = built(VARIANTS[0]), vectors()
    losses = sae.losses(x)
    names = ("encoder", "encoder_bias", "dictionary", "bias", "log_threshold")
    found = torch.autograd.grad(losses.total, [getattr(sae, name) for name in names])
    encoder, encoder_bias, dictionary, bias = (
        getattr(sae, name).detach().clone().requires_grad_() for name in names[:-1]
    )
    theta = sae.threshold.detach()
    pre = (x - bias) @ encoder.T + encoder_bias
    on = (pre > theta).double()
    codes = pre * on
    total = (codes @ dictionary + bias - x).square().sum() / B + 0.02 * on.sum() / B
    assert losses.total.item() == pytest.approx(total.item(), rel=1e-12)
    assert losses.parts["l0"].item() == pytest.approx(on.sum().item() / B)
    torch.testing.assert_close(sae.encode(x), codes)
    wanted = torch.autograd.grad(total, [encoder, encoder_bias, dictionary, bias], retain_graph=True)
    (by_codes,) = torch.autograd.grad(total, [codes])
    by_theta = torch.zeros(H, dtype=torch.float64)
    for row in range(B):
        for latent in range(H):
            if abs(pre[row, latent] - theta[latent]) < 0.2:
                by_theta[latent] -= (theta[latent] * by_codes[row, latent] + 0.02 / B) / 0.4
    same(found, [*wanted, by_theta * theta])


def test_only_near_pre_activations_move_a_threshold_and_the_scale_of_l0_counts():
    spec = replace(VARIANTS[0], bandwidth=1e-9)
    sae = built(spec)
    sae.losses(vectors()).total.backward()
    assert not sae.log_threshold.grad.any()
    sae = built(VARIANTS[0])
    whole = sae.losses(vectors())
    sae.sparsity_scale = 0.0
    assert sae.losses(vectors()).total.item() == pytest.approx(whole.parts["reconstruction"].item(), rel=1e-12)
    sae = built(VARIANTS[1])
    whole, sae.sparsity_scale = sae.losses(vectors()), 0.0
    left = whole.parts["reconstruction"] + whole.parts["gate"]
    assert sae.losses(vectors()).total.item() == pytest.approx(left.item(), rel=1e-12)


def test_gated_is_its_formula_and_the_gates_do_not_train_the_dictionary():
    sae, x = built(VARIANTS[1]), vectors()
    names = ("encoder", "encoder_bias", "dictionary", "bias", "r_mag", "mag_bias")
    losses = sae.losses(x)
    found = torch.autograd.grad(losses.total, [getattr(sae, name) for name in names])
    weights = [getattr(sae, name).detach().clone().requires_grad_() for name in names]
    encoder, gate_bias, dictionary, bias, r_mag, mag_bias = weights
    gate = (x - bias) @ encoder.T + gate_bias
    magnitude = (x - bias) @ (r_mag.exp()[:, None] * encoder).T + mag_bias
    codes = (gate > 0) * magnitude.relu()
    frozen_dictionary, frozen_bias = dictionary.detach(), bias.detach()
    total = (
        (codes @ dictionary + bias - x).square().mean()
        + 0.01 * gate.relu().sum(dim=1).mean()
        + (gate.relu() @ frozen_dictionary + frozen_bias - x).square().mean()
    )
    assert losses.total.item() == pytest.approx(total.item(), rel=1e-12)
    same(found, torch.autograd.grad(total, weights, retain_graph=True))
    torch.testing.assert_close(sae.encode(x), codes)
    (alone,) = torch.autograd.grad((codes @ dictionary + bias - x).square().mean(), [dictionary])
    same([found[2]], [alone])


@pytest.mark.parametrize("auxk", [0.0, 0.5])
def test_matryoshka_is_its_formula_and_gradients_by_hand_are_those_of_autograd(auxk):
    sae, x = built(replace(VARIANTS[2], auxk=auxk, dead_after=10)), vectors()
    sae.since_fired[::3] = 11
    names = ("encoder", "encoder_bias", "dictionary", "bias")
    losses = sae.losses(x)
    found = torch.autograd.grad(losses.total, [getattr(sae, name) for name in names])
    weights = [getattr(sae, name).detach().clone().requires_grad_() for name in names]
    encoder, encoder_bias, dictionary, bias = weights
    pre = (x - bias) @ encoder.T + encoder_bias
    codes = pre * (pre >= pre.detach().flatten().topk(3 * B).values.min())
    total = sum((codes[:, :n] @ dictionary[:n] + bias - x).square().sum() / B for n in (8, 16, 32)) / 3
    assert losses.parts["reconstruction"].item() == pytest.approx(total.item(), rel=1e-12)
    if auxk:
        left = (x - codes @ dictionary - bias).detach()
        dead = pre[:, ::3].relu()
        dead = dead * (dead >= dead.detach().topk(4).values[:, -1:])
        error = (dead @ dictionary[::3] - left).square().sum()
        total = total + auxk * error / (left - left.mean(dim=0)).square().sum()
    assert losses.total.item() == pytest.approx(total.item(), rel=1e-12)
    same(found, torch.autograd.grad(total, weights))


def test_matryoshka_with_one_prefix_is_batchtopk_and_its_first_latents_do_better_alone():
    x = vectors()
    one = built(Matryoshka(latents=H, k=3, prefixes=[1.0])).losses(x).total
    assert one.item() == pytest.approx(built(BatchTopK(latents=H, k=3)).losses(x).total.item(), rel=1e-12)
    _, data = planted()
    nested = fitted(Matryoshka(latents=H, k=3, prefixes=[0.25, 1.0]), data)
    plain = fitted(BatchTopK(latents=H, k=3), data)
    alone = []
    for sae in (nested, plain):
        codes = sae.encode(data)
        codes[:, 8:] = 0
        alone.append((sae.decode(codes) - data).square().mean().item())
    assert alone[0] < 0.9 * alone[1]


@pytest.mark.parametrize("prefixes", [[], [0.5], [0.5, 0.25, 1.0], [0.5, 0.5, 1.0], [0.01, 1.0]])
def test_prefixes_that_are_not_nested_are_one_line(prefixes):
    with pytest.raises(ConfigError, match=r"sae\.model\.prefixes: .*; expected ascending shares of the 32 latents"):
        built(Matryoshka(latents=H, k=3, prefixes=prefixes))


def test_a_matryoshka_s_threshold_moves_in_training_alone():
    sae, x = built(Matryoshka(latents=H, k=3)).eval(), vectors()
    sae.losses(x)
    assert sae.threshold.item() == -1
    sae.train().losses(x)
    kept = sae.threshold.item()
    assert kept > 0
    sae.eval().losses(3 * x)
    assert sae.threshold.item() == kept


def test_prefixes_come_from_a_config():
    node = {"_target_": "aaca.models.sae.matryoshka.Matryoshka", "prefixes": [0.5, 1], "k": 4}
    assert parse(node, SaeSpec, "sae.model").prefixes == [0.5, 1.0]
    with pytest.raises(ConfigError, match=r"sae\.model\.prefixes"):
        parse(node | {"prefixes": [0.5, 2.0]}, SaeSpec, "sae.model")


def test_archetypal_is_its_formula_under_autograd():
    sae, x = built(VARIANTS[3]), vectors()
    names = ("encoder", "encoder_bias", "mixture", "relaxation", "bias")
    losses = sae.losses(x)
    found = torch.autograd.grad(losses.total, [getattr(sae, name) for name in names])
    weights = [getattr(sae, name).detach().clone().requires_grad_() for name in names]
    encoder, encoder_bias, mixture, relaxation, bias = weights
    pre = (x - bias) @ encoder.T + encoder_bias
    codes = torch.zeros_like(pre).scatter(1, pre.topk(3).indices, 1.0) * pre.relu()
    total = (codes @ (mixture @ sae.anchors + relaxation) + bias - x).square().sum() / B
    assert losses.total.item() == pytest.approx(total.item(), rel=1e-12)
    same(found, torch.autograd.grad(total, weights))


@pytest.mark.parametrize("delta", [0.0, 0.3])
def test_archetypal_atoms_stay_near_the_hull_of_the_anchors(delta):
    _, data = planted()
    sae = fitted(Archetypal(latents=H, k=3, anchors=20, delta=delta), data, epochs=1)
    assert not hasattr(sae, "dictionary")
    assert sae.mixture.min() >= 0 and (sae.mixture.sum(dim=1) - 1).abs().max() < 1e-5
    assert sae.mixture.amax(dim=1).min() < 0.99  # they did move
    lengths = sae.relaxation.norm(dim=1)
    assert lengths.max() <= delta + 1e-6 and (delta == 0 or lengths.max() > 0.01)
    off = (sae.atoms - sae.mixture @ sae.anchors).norm(dim=1)
    assert off.max() <= delta + 1e-6


def test_a_mixture_without_any_anchor_left_keeps_its_largest():
    sae = built(VARIANTS[3])
    with torch.no_grad():
        sae.mixture[0] = -torch.arange(1.0, 21.0)
        sae.mixture[1] = 0
        sae.mixture[2] = torch.linspace(-1, 1, 20)
    sae.renormalise()
    assert sae.mixture[0].argmax() == 0 and sae.mixture[0].max() == 1
    torch.testing.assert_close(sae.mixture.sum(dim=1), torch.ones(H, dtype=torch.float64))
    torch.testing.assert_close(sae.mixture[2], F.normalize(torch.linspace(-1, 1, 20).double().relu(), p=1, dim=0))


def test_archetypal_starts_at_centroids_and_codes_of_an_atom_are_one():
    points = torch.eye(4).repeat_interleave(25, dim=0) + 0.01 * vectors(3, 100)[:, :4].float()
    found = centroids(points, 4, seed=0)
    assert torch.equal(found.round().sum(dim=0), torch.ones(4)) and torch.equal(found, centroids(points, 4, seed=0))
    assert torch.equal(centroids(points, 100, seed=0), points)
    start = mixtures(10, 4, torch.Generator().manual_seed(0))
    assert torch.equal(start[:4], torch.eye(4)) and bool((start.sum(dim=1) == 1).all())
    assert bool(((start[4:] > 0).sum(dim=1) == 2).all())
    known = Known(4, points.mean(dim=0), points.mean(dim=0), points)
    sae = Archetypal(latents=4, k=1, anchors=4, bias="mean").build(known, torch.Generator().manual_seed(0))
    torch.testing.assert_close(sae.anchors + points.mean(dim=0), sae.atoms.detach() + sae.bias.detach())
    codes = sae.encode(sae.atoms + sae.bias)
    torch.testing.assert_close(codes, torch.eye(4), atol=1e-5, rtol=0)


def test_wrong_numbers_of_anchors_and_codes_are_one_line():
    with pytest.raises(ConfigError, match=r"sae\.model\.anchors: 99; expected at most the sample's 60 vectors"):
        built(Archetypal(latents=H, anchors=99, k=3))
    with pytest.raises(ConfigError, match=r"sae\.model\.k: 33; expected at most the 32 latents"):
        built(Archetypal(latents=H, anchors=9, k=33))


def planted(atoms=16, dim=12, count=4000):
    """(unit atoms, vectors that are sums of 2 of them on average)."""
    generator = torch.Generator().manual_seed(0)
    dictionary = F.normalize(torch.randn(atoms, dim, generator=generator), dim=1)
    on = torch.rand(count, atoms, generator=generator) < 2 / atoms
    return dictionary, (on * (0.5 + torch.rand(count, atoms, generator=generator))) @ dictionary


def fitted(spec, data, epochs=12, lr=3e-3):
    generator = torch.Generator().manual_seed(1)
    mean = data.mean(dim=0)
    sae = spec.build(Known(data.shape[1], mean, mean, data[:500]), generator)
    optimizer = torch.optim.Adam(sae.parameters(), lr=lr)
    for _ in range(epochs):
        for rows in torch.randperm(len(data), generator=generator).split(64):
            losses = sae.losses(data[rows])
            optimizer.zero_grad()
            losses.total.backward()
            sae.project_gradient()
            optimizer.step()
            sae.renormalise()
            sae.saw(losses.fired, len(rows))
    return sae.requires_grad_(False)


@pytest.mark.parametrize(
    ("spec", "least"),
    [
        (JumpRelu(latents=32, l0=0.1, threshold=0.2, bandwidth=0.2), 0.88),
        (Gated(latents=32, l1=0.1), 0.92),
        (Matryoshka(latents=32, k=2, prefixes=[0.5, 1.0]), 0.88),
        (Archetypal(latents=32, k=2, anchors=64, delta=0.3), 0.96),
    ],
    ids=["jumprelu", "gated", "matryoshka", "archetypal"],
)
def test_planted_atoms_are_found(spec, least):
    atoms, data = planted()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sae = fitted(spec, data)
    mean, codes = data.mean(dim=0), sae.encode(data)
    start = spec.build(Known(12, mean, mean, data[:500]), torch.Generator().manual_seed(1))
    before, after = ((atoms @ F.normalize(one.atoms, dim=1).T).amax(dim=1).mean() for one in (start, sae))
    assert after > least and before < least - 0.09
    assert (codes > 0).sum(dim=1).double().mean() < 6
    assert torch.equal(codes, fitted(spec, data).encode(data))
