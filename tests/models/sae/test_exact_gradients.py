"""Losses and gradients by hand are those of plain autograd; the K largest are the K largest; lengths stay 1."""

import pytest
import torch
import torch.nn.functional as F

import aaca.models.sae.fused as fused
from aaca.models.sae.bags import Bags, group_size, largest
from aaca.models.sae.base import Known
from aaca.models.sae.batchtopk import BatchTopK
from aaca.models.sae.batchtopk import batch_largest as largest_of_all
from aaca.models.sae.relu import Relu
from aaca.models.sae.topk import TopK

D, H, B = 10, 64, 33
NAMES = ("encoder", "encoder_bias", "dictionary", "bias")


def vectors(seed=0, count=B):
    return torch.randn(count, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.3


def built(spec, shift=0.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    sae = spec.build(Known(D, torch.zeros(D), torch.zeros(D), torch.zeros(0, D)), generator).to(dtype)
    with torch.no_grad():  # no weight may be 0: a gradient that is wrong there alone would pass
        sae.bias += 0.2 * torch.randn(D, generator=generator)
        sae.encoder_bias += shift + 0.1 * torch.randn(sae.latents, generator=generator)
    return sae


def copies(sae):
    return [getattr(sae, name).detach().double().requires_grad_() for name in NAMES]


def errors(sae, x, naive):
    """Relative error of the loss and of each gradient against `naive(x, weights)` in float64."""
    weights = copies(sae)
    expected = naive(x.double(), *weights)
    wanted = torch.autograd.grad(expected, weights)
    total = sae.losses(x.to(sae.bias.dtype)).total
    found = torch.autograd.grad(total, [getattr(sae, name) for name in NAMES])
    assert all(float(gradient.abs().max()) > 1e-6 for gradient in wanted)
    worst = {"loss": abs(total.item() - expected.item()) / abs(expected.item())}
    for name, one, other in zip(NAMES, found, wanted, strict=True):
        worst[name] = ((one - other).abs().max() / other.abs().max()).item()
    return worst


def error(x, codes, dictionary, bias, reconstruction):
    squares = (codes @ dictionary + bias - x).square()
    if reconstruction == "mse_mean":
        return squares.mean()
    if reconstruction == "mse_sum":
        return squares.sum(dim=1).mean()
    return squares.sum() / (x - x.mean(dim=0)).square().sum()


def relu_loss(l1, reconstruction):
    def loss(x, encoder, encoder_bias, dictionary, bias):
        codes = ((x - bias) @ encoder.T + encoder_bias).relu()
        return error(x, codes, dictionary, bias, reconstruction) + l1 * codes.sum(dim=1).mean()

    return loss


def kept_loss(keep):
    def loss(x, encoder, encoder_bias, dictionary, bias):
        pre = (x - bias) @ encoder.T + encoder_bias
        return error(x, pre.relu() * keep(pre.detach()), dictionary, bias, "mse_sum")

    return loss


def row_largest(k):
    return lambda pre: torch.zeros_like(pre).scatter(1, pre.topk(k).indices, 1.0)


def batch_largest(k):
    return lambda pre: (pre >= pre.flatten().topk(k * len(pre)).values.min()).to(pre.dtype)


@pytest.mark.parametrize(("dtype", "most"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
@pytest.mark.parametrize("path", ["dense", "bags"])
@pytest.mark.parametrize("reconstruction", ["mse_mean", "mse_sum", "fvu"])
def test_relu(path, reconstruction, dtype, most, monkeypatch):
    monkeypatch.setattr(fused, "SPARSE", 2.0 if path == "bags" else 0.0)
    sae = built(Relu(latents=H, init="kaiming", l1=0.01, reconstruction=reconstruction), dtype=dtype)
    worst = errors(sae, vectors(), relu_loss(0.01, reconstruction))
    assert max(worst.values()) < most, worst


@pytest.mark.parametrize(("dtype", "most"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_sparse_relu_codes_are_bags_and_dense_ones_are_not(dtype, most, monkeypatch):
    made = []
    original = Bags.of.__func__
    monkeypatch.setattr(Bags, "of", classmethod(lambda cls, *args: made.append(args) or original(cls, *args)))
    sae = built(Relu(latents=H, init="kaiming", l1=0.01), shift=-3.0, dtype=dtype)
    share = (sae.encode(vectors().to(dtype)) > 0).double().mean()
    assert 0.005 < share < fused.SPARSE
    worst = errors(sae, vectors(), relu_loss(0.01, "mse_mean"))
    assert max(worst.values()) < most and len(made) == 1, worst
    errors(built(Relu(latents=H, init="kaiming")), vectors(), relu_loss(3e-5, "mse_mean"))
    assert len(made) == 1


@pytest.mark.parametrize(("dtype", "most"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
@pytest.mark.parametrize("k", [1, 5, H])
def test_topk(k, dtype, most):
    worst = errors(built(TopK(latents=H, k=k), dtype=dtype), vectors(), kept_loss(row_largest(k)))
    assert max(worst.values()) < most, worst


@pytest.mark.parametrize(("dtype", "most"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
@pytest.mark.parametrize("k", [1, 5, H])
def test_batchtopk(k, dtype, most):
    sae = built(BatchTopK(latents=H, k=k), dtype=dtype)
    worst = errors(sae, vectors(), kept_loss(batch_largest(k)))
    assert max(worst.values()) < most, worst


def test_auxk_has_the_gradient_of_its_formula():
    sae = built(TopK(latents=H, k=3, dead_after=10, auxk=0.5, auxk_latents=4))
    dead = torch.arange(H) % 3 == 0
    sae.since_fired[dead] = 11

    def loss(x, encoder, encoder_bias, dictionary, bias):
        main = kept_loss(row_largest(3))(x, encoder, encoder_bias, dictionary, bias)
        pre = (x - bias) @ encoder.T + encoder_bias
        left = (x - (pre.relu() * row_largest(3)(pre)) @ dictionary - bias).detach()
        codes = pre.masked_fill(~dead, -1.0).relu()
        codes = codes * row_largest(4)(codes.detach())
        return main + 0.5 * error(left, codes, dictionary, 0.0, "fvu")

    worst = errors(sae, vectors(), loss)
    assert max(worst.values()) < 1e-9, worst


def test_the_tied_bias_has_the_slope_of_finite_differences():
    sae, x = built(Relu(latents=H, init="kaiming", l1=0.01)), vectors()
    (found,) = torch.autograd.grad(sae.losses(x).total, [sae.bias])
    for place in range(D):
        step = torch.zeros(D, dtype=torch.float64)
        step[place] = 1e-6
        sides = []
        for sign in (1, -1):
            with torch.no_grad():
                sae.bias += sign * step
                sides.append(sae.losses(x).total.item())
                sae.bias -= sign * step
        assert found[place].item() == pytest.approx((sides[0] - sides[1]) / 2e-6, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("spec", [Relu(latents=H, init="kaiming"), TopK(latents=H, k=4), BatchTopK(latents=H, k=4)])
def test_no_code_at_all_is_no_error_and_moves_the_bias_alone(spec):
    sae = built(spec, shift=-1e3)
    losses = sae.losses(vectors())
    gradients = torch.autograd.grad(losses.total, [getattr(sae, name) for name in NAMES])
    assert not losses.fired.any()
    assert [bool(gradient.any()) for gradient in gradients] == [False, False, False, True]


@pytest.mark.parametrize("kind", ["dense", "bags", "topk", "batchtopk"])
def test_bfloat16_products_are_near_float32(kind, monkeypatch):
    monkeypatch.setattr(fused, "SPARSE", 2.0 if kind == "bags" else 0.0)
    specs = {"topk": TopK(latents=H, k=4, auxk=0), "batchtopk": BatchTopK(latents=H, k=4, auxk=0)}
    sae = built(specs.get(kind, Relu(latents=H, init="kaiming", l1=0.01)), dtype=torch.float32)
    weights = [getattr(sae, name) for name in NAMES]
    x = vectors(count=256).float()
    exact = sae.losses(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = sae.losses(x)
    assert rough.total.dtype == torch.float32 and rough.total.item() != exact.total.item()
    assert rough.total.item() == pytest.approx(exact.total.item(), rel=2e-2)
    for one, other in zip(
        torch.autograd.grad(rough.total, weights), torch.autograd.grad(exact.total, weights), strict=True
    ):
        # rounding changes which codes are the largest, and with it the gradients of a few latents
        assert one.dtype == torch.float32 and (one - other).norm() / other.norm() < (5e-2 if kind in specs else 2e-2)


@pytest.mark.parametrize(
    ("width", "k"), [(64, 1), (96, 3), (100, 7), (1000, 5), (2048, 2), (4096, 8), (4096, 32), (32, 32)]
)
@pytest.mark.parametrize("ties", [False, True])
def test_the_largest_are_those_of_torch(width, k, ties):
    generator = torch.Generator().manual_seed(width + k)
    values = torch.randn(50, width, generator=generator)
    if ties:
        values = values.round(decimals=0)
    found, columns = largest(values, k)
    assert torch.equal(found.sort(dim=1).values, values.topk(k).values.sort(dim=1).values)
    assert torch.equal(values.gather(1, columns), found)
    assert all(len(set(row.tolist())) == k for row in columns)


def test_wide_rows_are_grouped_and_narrow_ones_are_not():
    assert group_size(4096, 8) > 1 and group_size(4096, 32) > 1 and 4096 % group_size(4096, 32) == 0
    assert group_size(64, 32) == group_size(4095, 2) == 1


def test_products_with_bags_are_products_with_dense_codes():
    generator = torch.Generator().manual_seed(0)
    codes = torch.rand(9, 20, generator=generator, dtype=torch.float64)
    codes[torch.rand(9, 20, generator=generator) < 0.8] = 0
    codes[[0, 4, 8]] = 0  # empty bags: first, middle, last
    rows, latents = torch.nonzero(codes, as_tuple=True)
    values, bags = codes[rows, latents], Bags.of(rows, latents, 9)
    dictionary = torch.randn(20, 5, generator=generator, dtype=torch.float64)
    x = torch.randn(9, 5, generator=generator, dtype=torch.float64)
    close = {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(bags.decoded(values, dictionary), codes @ dictionary, **close)
    torch.testing.assert_close(bags.dots(x, dictionary), (x @ dictionary.T)[rows, latents], **close)
    torch.testing.assert_close(bags.gathered(values, x, 20), codes.T @ x, **close)
    torch.testing.assert_close(bags.summed(values, 20), codes.sum(dim=0), **close)
    assert torch.equal(bags.dense(values, 20), codes)
    regular = Bags.regular(torch.tensor([[3, 1], [0, 3]]))
    assert torch.equal(regular.dense(torch.ones(4), 4), torch.tensor([[0.0, 1, 0, 1], [1, 0, 0, 1]]))


@pytest.mark.parametrize("threshold", [-1.0, 0.5, 50.0])
def test_a_batch_keeps_its_largest_whatever_the_running_threshold(threshold):
    sae = built(BatchTopK(latents=H, k=3))
    sae.threshold.fill_(threshold)
    pre = torch.randn(B, H, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    rows, columns = sae.kept(pre)
    expected = pre.flatten().topk(3 * B).values
    assert torch.equal(pre[rows, columns].sort(descending=True).values, expected)
    for found, wanted in zip(largest_of_all(pre, 3 * B), (rows, columns), strict=True):  # as on other devices
        assert torch.equal(found, wanted)
    few = torch.where(pre > 2.5, pre, -pre.abs())
    assert all(map(torch.equal, largest_of_all(few, 3 * B), torch.nonzero(pre > 2.5, as_tuple=True)))
    assert bool((torch.diff(rows) >= 0).all()) and len(set(zip(rows.tolist(), columns.tolist(), strict=True))) == 3 * B


def test_the_threshold_follows_the_smallest_code_kept_and_is_in_the_state():
    sae, x = built(BatchTopK(latents=H, k=3, keep=0.75)), vectors()
    smallest = sae.pre(x).flatten().topk(3 * B).values.min().item()
    assert torch.equal(sae.encode(x), sae.pre(x).relu())
    sae.losses(x)
    assert sae.threshold.item() == pytest.approx(smallest, rel=1e-12)
    sae.losses(3 * x)
    then = sae.pre(3 * x).flatten().topk(3 * B).values.min().item()
    assert sae.state_dict()["threshold"].item() == pytest.approx(0.75 * smallest + 0.25 * then, rel=1e-12)
    codes = sae.encode(x)
    assert torch.equal(codes > 0, sae.pre(x) > sae.threshold)


def test_the_projected_gradient_is_at_right_angles_and_rows_have_length_one():
    sae = built(Relu(latents=H, init="kaiming", l1=0.01), dtype=torch.float32)
    sae.losses(vectors().float()).total.backward()
    before = sae.dictionary.grad.clone()
    sae.project_gradient()
    along = (sae.dictionary.grad * sae.dictionary).sum(dim=1)
    assert along.abs().max() < 1e-6 and (before * sae.dictionary).sum(dim=1).abs().max() > 1e-4
    removed = before - sae.dictionary.grad
    assert F.cosine_similarity(removed, sae.dictionary.detach(), dim=1).abs().min() > 0.99
    with torch.no_grad():
        sae.dictionary.mul_(torch.linspace(0.1, 9, H)[:, None])
    directions = F.normalize(sae.dictionary.detach(), dim=1)
    sae.renormalise()
    assert (sae.dictionary.norm(dim=1) - 1).abs().max() < 1e-6
    torch.testing.assert_close(sae.dictionary.detach(), directions)


def test_free_rows_keep_their_gradient_and_length():
    sae = built(Relu(latents=H, init="kaiming", l1=0.01, decoder="free"))
    with torch.no_grad():
        sae.dictionary.mul_(2.0)

    def loss(x, encoder, encoder_bias, dictionary, bias):
        codes = ((x - bias) @ encoder.T + encoder_bias).relu()
        sparsity = (codes * dictionary.norm(dim=1)).sum(dim=1).mean()
        return error(x, codes, dictionary, bias, "mse_mean") + 0.01 * sparsity

    assert max(errors(sae, vectors(), loss).values()) < 1e-9
    sae.losses(vectors()).total.backward()
    before = sae.dictionary.grad.clone()
    sae.project_gradient()
    sae.renormalise()
    assert torch.equal(sae.dictionary.grad, before)
    torch.testing.assert_close(sae.dictionary.norm(dim=1), torch.full((H,), 2.0, dtype=torch.float64))
