"""The two-decoder network: shapes, range, size; its gradient at the penultimate layers has something to teach."""

import pytest
import torch

from aaca.concepts.activations import captured
from aaca.models.intrinsic_net import BRANCHES, IntrinsicNet, penultimate


def network(channels=(8, 12)):
    torch.manual_seed(0)
    return IntrinsicNet(channels)


def test_shapes_range_and_size():
    net = network((12, 24, 36, 48))
    assert 140_000 < sum(weight.numel() for weight in net.parameters()) < 165_000
    with torch.no_grad(), captured(net, [penultimate(branch) for branch in BRANCHES]) as seen:
        albedo, shading = net(torch.rand(2, 3, 48, 48))
    assert albedo.shape == (2, 3, 48, 48) and shading.shape == (2, 1, 48, 48)
    assert all(float(part.min()) > 0 and float(part.max()) < 1 for part in (albedo, shading))
    assert {name: value.shape for name, value in seen.items()} == {
        "albedo.penultimate": (2, net.width, 48, 48),
        "shading.penultimate": (2, net.width, 48, 48),
    }


def test_an_image_does_not_depend_on_its_batch():
    net, images = network(), torch.rand(3, 3, 16, 16)
    with torch.no_grad():
        for one, many in zip(net(images[1:2]), net(images), strict=True):
            torch.testing.assert_close(one[0], many[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("branch", BRANCHES)
def test_the_gradient_at_the_penultimate_layer_depends_on_the_image_and_teaches_what_lies_below(branch):
    net, layer = network(), penultimate(branch)
    images = torch.rand(2, 3, 16, 16)
    with captured(net, [layer]) as seen:
        output = net(images)[BRANCHES.index(branch)]
    (gradient,) = torch.autograd.grad(output.sum(), seen[layer], create_graph=True)
    assert float((gradient[0] - gradient[1]).detach().abs().max()) > 1e-4
    gradient.square().sum().backward()
    assert float(net.encoder[0].first.weight.grad.abs().max()) > 0  # through the activations, not through the head
    other = getattr(net, BRANCHES[1 - BRANCHES.index(branch)])
    assert all(weight.grad is None for weight in other.parameters())
