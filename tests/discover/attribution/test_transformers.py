"""Relevance through attention: against the published recursion over whole matrices, on any grid and pooling."""

import pytest
import torch

from aaca.discover.attribution.base import contrast, normalised
from aaca.discover.attribution.grad_attn import GradAttention
from aaca.discover.attribution.rollout import Rollout
from aaca.discover.attribution.scores import correlation
from aaca.discover.attribution.tokens import attention_of, is_transformer
from aaca.models.timm_model import TimmModel
from aaca.runtime.errors import ConfigError

SIZE = 32


def vit(pool="token", name="vit_tiny_patch16_224", patch=8, size=SIZE, classes=3, **kwargs):
    torch.manual_seed(0)
    shape = {"patch_size": patch, "embed_dim": 24, "depth": 3, "num_heads": 2, **kwargs}
    model = TimmModel(name, size, global_pool=pool, kwargs=shape).build(classes).eval()
    for parameter in model.parameters():  # a fresh ViT attends evenly
        parameter.data.mul_(1.0 if parameter.ndim < 2 else 4.0)
    return model


@pytest.fixture
def images():
    return torch.randn(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


TARGETS = torch.tensor([[0, 1], [1, 2], [2, 0], [0, 0]])


def matrices(model, images, target=None):
    """Attention matrices of each block and, for a target, their gradients, from a forward pass of our own."""
    with attention_of(model) as attentions:
        logits = model(images)
    if target is None:
        return attentions, None
    return attentions, torch.autograd.grad(logits[torch.arange(len(images)), target].sum(), attentions)


def reading(matrix, pool, prefix):
    rows = matrix[:, :1] if pool == "token" else matrix[:, prefix:]
    return rows.mean(dim=1)[:, prefix:]


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_grad_attn_is_the_recursion_over_whole_matrices(images, pool):
    model = vit(pool)
    maps = GradAttention().relevance(model, images, TARGETS)
    for t in range(2):
        attentions, gradients = matrices(model, images, TARGETS[:, t])
        tokens = attentions[0].shape[-1]
        relevance = torch.eye(tokens).expand(len(images), -1, -1)
        for attention, gradient in zip(attentions, gradients, strict=True):
            relevance = relevance + (attention * gradient).clamp(min=0).mean(dim=1) @ relevance
        relevance = relevance - torch.eye(tokens)
        wanted = reading(relevance, pool, prefix=1).detach()
        torch.testing.assert_close(maps[:, t].flatten(1), wanted, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_rollout_is_the_product_of_half_identity_matrices(images, pool):
    model = vit(pool)
    maps = Rollout().relevance(model, images, TARGETS)
    attentions, _ = matrices(model, images)
    product = torch.eye(attentions[0].shape[-1])
    for attention in attentions:
        product = (0.5 * attention.mean(dim=1) + 0.5 * torch.eye(attention.shape[-1])) @ product
    torch.testing.assert_close(maps[:, 0].flatten(1), reading(product, pool, prefix=1).detach())
    assert torch.equal(maps[:, 0], maps[:, 1])  # it knows no class


@pytest.mark.parametrize(
    ("name", "patch", "size", "grid"),
    [
        ("vit_tiny_patch16_224", 8, 40, (5, 5)),
        ("vit_small_patch14_reg4_dinov2", 14, 56, (4, 4)),  # four registers beside the class token
        ("vit_base_patch32_224", 32, 96, (3, 3)),
        ("deit3_small_patch16_224", 16, 64, (4, 4)),
    ],
)
def test_the_grid_is_the_model_s(name, patch, size, grid):
    model = vit(None, name, patch, size)
    pictures = torch.randn(2, 3, size, size)
    for method in (GradAttention(), Rollout()):
        assert method.cells(model) == grid
        maps = method.maps(model, pictures, torch.tensor([[0], [2]]))
        assert maps.shape == (2, 1, *grid)
        torch.testing.assert_close(maps.sum(dim=(2, 3)), torch.ones(2, 1))


def test_a_map_depends_on_its_image_alone(images):
    model = vit()
    together = GradAttention().maps(model, images, TARGETS)
    alone = torch.cat([GradAttention().maps(model, images[i : i + 1], TARGETS[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-6)


def test_another_head_gives_another_map():
    model, pictures = vit(classes=4), torch.randn(16, 3, SIZE, SIZE)
    targets = torch.zeros(16, 1, dtype=torch.long)
    before = GradAttention().maps(model, pictures, targets)[:, 0].numpy()
    again = GradAttention().maps(model, pictures, targets)[:, 0].numpy()
    assert correlation(before, again).min() > 0.999
    torch.nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(5))
    after = GradAttention().maps(model, pictures, targets)[:, 0].numpy()
    assert correlation(before, after).mean() < 0.6


def test_the_model_is_as_before_afterwards(images):
    model = vit()
    fused = [block.attn.fused_attn for block in model.backbone.blocks]
    gradients = [parameter.grad for parameter in model.parameters()]
    with torch.no_grad():
        before = model(images)
    GradAttention().maps(model, images, TARGETS)
    assert [block.attn.fused_attn for block in model.backbone.blocks] == fused
    assert [parameter.grad for parameter in model.parameters()] == gradients == [None] * len(gradients)
    assert not any(block.attn.attn_drop._forward_hooks for block in model.backbone.blocks)
    with torch.no_grad():
        assert torch.equal(model(images), before)


def test_it_works_where_lightning_predicts(images):
    model = vit()
    wanted = GradAttention().maps(model, images, TARGETS)
    with torch.inference_mode():
        torch.testing.assert_close(GradAttention().maps(model, images.clone(), TARGETS.clone()), wanted)


def test_a_network_without_attention_is_refused(images):
    model = TimmModel("resnet18", SIZE, kwargs={"layers": [1, 1, 1, 1], "channels": [4, 4, 8, 8]}).build(3).eval()
    assert not is_transformer(model)
    for method in (GradAttention(), Rollout()):
        with pytest.raises(ConfigError, match=r"attribution: .* ResNet .* attribution=gradcam"):
            method.maps(model, images, TARGETS)


def test_maps_are_shares_and_contrast_is_what_the_rival_has_more():
    relevance = torch.tensor([[[3.0, -1.0], [1.0, 0.0]], [[-1.0, -2.0], [0.0, -3.0]]])
    torch.testing.assert_close(normalised(relevance)[0], torch.tensor([[0.75, 0.0], [0.25, 0.0]]))
    assert normalised(relevance)[1].sum() == 0  # nothing speaks for the class: no relevance, not a flat map
    predicted, true = torch.tensor([[0.5, 0.5], [0.0, 0.0]]), torch.tensor([[0.2, 0.4], [0.4, 0.0]])
    torch.testing.assert_close(contrast(predicted, true), torch.tensor([[0.75, 0.25], [0.0, 0.0]]))
