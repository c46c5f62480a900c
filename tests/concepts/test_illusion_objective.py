"""The objective against its formula sample by sample, and the signs of its gradients."""

import math

import pytest
import torch

from aaca.concepts.illusion.mask import neuron_maps, soft_mask
from aaca.concepts.illusion.objective import Objective
from aaca.concepts.illusion.templates import TEMPLATES
from aaca.models.template import check_template
from aaca.runtime.errors import ConfigError


def numbers(n=7, seed=0, low=-2.0):
    generator = torch.Generator().manual_seed(seed)
    return (low + 4 * torch.rand(n, generator=generator) for _ in range(2)), torch.rand(n, generator=generator) - 0.3


def leaves(a, z, s):
    return [torch.tensor([float(value)], requires_grad=True) for value in (a, z, s)]


@pytest.mark.parametrize("combine", ["product", "additive", "product_softplus"])
def test_each_sample_is_the_formula(combine):
    (a, z), s = numbers()
    units = torch.linspace(0.5, 2, 7)
    found = Objective(gamma=0.4, epsilon=0.05, combine=combine)(a, z, s, units)
    for row in range(7):
        v = float(a[row]) / float(units[row]) + 0.4 * float(z[row])
        text = float(s[row])
        expected = {
            "product": text * max(v, 0) + 0.05 * v,
            "additive": text + 0.05 * v,
            "product_softplus": (text + 0.05) * math.log1p(math.exp(v)),
        }[combine]
        assert float(found[row]) == pytest.approx(expected, abs=1e-5)
    assert float((a / units + 0.4 * z).min()) < 0 < float((a / units + 0.4 * z).max())


def test_where_all_is_positive_it_is_the_plain_product():
    (a, z), s = numbers(low=0.1)
    found = Objective(gamma=0.4, epsilon=0.05)(a, z, s.abs())
    torch.testing.assert_close(found, (s.abs() + 0.05) * (a + 0.4 * z))


@pytest.mark.parametrize("combine", ["product", "additive", "product_softplus"])
@pytest.mark.parametrize("value", [-3.0, 2.0])
@pytest.mark.parametrize("text", [-0.4, 0.3])
def test_no_factor_turns_the_sign_of_the_other(combine, value, text):
    a, z, s = leaves(value, 0.1, text)
    Objective(gamma=0.5, epsilon=0.05, combine=combine)(a, z, s).sum().backward()
    assert float(a.grad) > 0 and float(z.grad) == pytest.approx(0.5 * float(a.grad)) and float(s.grad) >= 0
    assert (float(s.grad) > 0) == (combine != "product" or value > 0)


def test_the_batch_mean_is_the_mean_over_all_pairs_signs_as_they_come():
    (a, z), s = numbers()
    found = Objective(gamma=0.4, epsilon=0.05, coupling="batch_mean")(a, z, s)
    v = a + 0.4 * z
    pairs = torch.stack([(s[i] + 0.05) * v[j] for i in range(7) for j in range(7)]).mean()
    torch.testing.assert_close(found.mean(), pairs)
    torch.testing.assert_close(found.mean(), (s + 0.05).mean() * v.mean())
    with pytest.raises(ConfigError, match=r"^combine: 'additive' with coupling batch_mean; expected 'product'"):
        Objective(gamma=0.4, epsilon=0.05, combine="additive", coupling="batch_mean")


def test_samples_are_coupled_by_the_batch_mean_alone():
    for coupling in ("per_sample", "batch_mean"):
        (a, z), s = numbers(low=0.1)
        s = s.abs().requires_grad_()
        Objective(gamma=0.4, epsilon=0.05, coupling=coupling)(a, z, s)[2].backward()
        assert bool((s.grad[[0, 1, 3]] != 0).all()) == (coupling == "batch_mean") and float(s.grad[2]) > 0


def test_without_a_text_it_is_the_activation_and_the_class():
    (a, z), _ = numbers()
    for combine in ("product", "additive", "product_softplus"):
        torch.testing.assert_close(Objective(gamma=0.4, epsilon=9.0, combine=combine)(a, z, None), a + 0.4 * z)


def test_the_mask_is_the_floor_below_the_threshold_of_each_image_s_own_spread():
    maps = torch.tensor([[[0.0, 1.0], [2.0, 3.0]], [[0.0, 10.0], [20.0, 30.0]], [[5.0, 5.0], [5.0, 5.0]]])
    found = soft_mask(maps, 4, 0.25, 0.5)
    grid = torch.linspace(0, 1, 4)
    large = 2 * grid[:, None] + grid[None]  # corners on corners
    expected = torch.where((large - large.mean()) / large.std(unbiased=False) < 0.25, 0.5, 1.0)
    assert torch.equal(found[0], expected) and torch.equal(found[1], expected)
    assert bool((found[2] == 0.5).all()) and 0 < float((expected == 1).float().mean()) < 1


def test_a_neuron_s_map_is_its_channel_in_every_layout():
    maps = torch.randn(2, 5, 3, 3)
    tokens = torch.cat([torch.zeros(2, 1, 5), maps.flatten(2).transpose(1, 2)], dim=1)
    for features, prefix in ((maps, 0), (maps.permute(0, 2, 3, 1), 0), (tokens, 1)):
        torch.testing.assert_close(neuron_maps(features, 5, prefix), maps)
    assert neuron_maps(maps, 6, 0) is None and neuron_maps(tokens, 5, 2) is None


def test_the_templates_are_32_different_ones():
    assert len(set(TEMPLATES)) == 32 and sum("photo" in one or "picture" in one for one in TEMPLATES[:20]) == 20
    for template in TEMPLATES:
        check_template(template, "templates")
