"""Grad-CAM, integrated gradients, SmoothGrad and occlusion: against captum, closed forms and planted truth."""

import pytest
import torch
from captum.attr import IntegratedGradients as CaptumIntegrated
from captum.attr import LayerGradCam, Saliency
from captum.attr import Occlusion as CaptumOcclusion

from aaca.discover.attribution.auto import Auto
from aaca.discover.attribution.base import pooled
from aaca.discover.attribution.grad_attn import GradAttention
from aaca.discover.attribution.gradcam import GradCam
from aaca.discover.attribution.gradients import IntegratedGradients, SmoothGrad
from aaca.discover.attribution.occlusion import Occlusion
from aaca.models.timm_model import TimmModel
from aaca.runtime.errors import ConfigError

SIZE = 32
TARGETS = torch.tensor([[0, 1], [1, 2], [2, 0]])


def network(name="resnet18", size=SIZE, **kwargs):
    torch.manual_seed(0)
    kwargs = kwargs or {"layers": [1, 1, 1, 1], "channels": [4, 8, 8, 16]}
    return TimmModel(name, size, kwargs=kwargs).build(3).eval()


@pytest.fixture
def model():
    return network()


@pytest.fixture
def images():
    return torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def test_gradcam_is_captum_s(model, images):
    maps = GradCam(least=4).relevance(model, images, TARGETS)
    layer = model.backbone.layer2  # 4 × 4 at 32 pixels
    for t in range(2):
        theirs = LayerGradCam(model, layer).attribute(images, target=TARGETS[:, t])
        torch.testing.assert_close(maps[:, t], theirs[:, 0].detach(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("least", "side"), [(1, 1), (2, 2), (3, 4), (8, 8), (64, 16)])
def test_gradcam_takes_the_deepest_map_that_is_fine_enough(model, images, least, side):
    method = GradCam(least)
    assert method.cells(model) == (side, side)
    assert method.maps(model, images, TARGETS).shape == (3, 2, side, side)


def test_gradcam_of_a_transformer_reads_the_last_attention_s_input(images):
    vit = network("vit_tiny_patch16_224", patch_size=8, embed_dim=24, depth=2, num_heads=2)
    maps = GradCam().relevance(vit, images, TARGETS)
    assert maps.shape == (3, 2, 4, 4)
    seen = {}
    handle = vit.backbone.blocks[-1].norm1.register_forward_hook(lambda _, __, out: seen.update(act=out))
    for t in range(2):
        logits = vit(images)
        (slope,) = torch.autograd.grad(logits[torch.arange(3), TARGETS[:, t]].sum(), seen["act"])
        act, slope = seen["act"][:, 1:], slope[:, 1:]
        wanted = torch.einsum("npc,nc->np", act, slope.mean(dim=1)).detach()
        torch.testing.assert_close(maps[:, t].flatten(1), wanted, rtol=1e-4, atol=1e-7)
    handle.remove()


def test_gradcam_of_channels_last_features():
    swin = network(
        "swin_tiny_patch4_window7_224", 64, img_size=64, window_size=4, embed_dim=12, depths=(1, 1), num_heads=(1, 2)
    )
    method = GradCam(least=4)
    assert method.cells(swin) == (8, 8)
    pictures, seen = torch.randn(2, 3, 64, 64), {}
    handle = swin.backbone.layers[1].register_forward_hook(lambda _, __, out: seen.update(act=out))
    logits = swin(pictures)
    handle.remove()
    (slope,) = torch.autograd.grad(logits[:, 1].sum(), seen["act"])
    wanted = torch.einsum("nhwc,nc->nhw", seen["act"], slope.mean(dim=(1, 2))).detach()
    maps = method.relevance(swin, pictures, torch.ones(2, 1, dtype=torch.long))
    torch.testing.assert_close(maps[:, 0], wanted, rtol=1e-4, atol=1e-7)


def test_integrated_gradients_are_captum_s_and_complete(model, images):
    method = IntegratedGradients(steps=20, cells=8)
    pixels = method.pixels(model, images, TARGETS)
    for t in range(2):
        theirs = CaptumIntegrated(model).attribute(images, target=TARGETS[:, t], n_steps=20, method="gausslegendre")
        torch.testing.assert_close(pixels[:, t], theirs.sum(dim=1).float(), rtol=1e-3, atol=1e-6)
    with torch.no_grad():
        gap = (model(images) - model(torch.zeros_like(images))).gather(1, TARGETS)
    fine = IntegratedGradients(steps=200).pixels(model, images, TARGETS).sum(dim=(2, 3))
    torch.testing.assert_close(fine, gap, rtol=0.05, atol=0.01)
    torch.testing.assert_close(method.relevance(model, images, TARGETS), pooled(pixels, 8))


def test_smoothgrad_without_noise_is_the_gradient(model, images):
    maps = SmoothGrad(samples=3, noise=1e-6, cells=8).relevance(model, images, TARGETS)
    for t in range(2):
        saliency = Saliency(model).attribute(images, target=TARGETS[:, t]).sum(dim=1)
        torch.testing.assert_close(maps[:, t], pooled(saliency, 8), rtol=1e-2, atol=1e-5)


def test_smoothgrad_averages_noisy_gradients_before_it_takes_their_size(model, images):
    method, noise = SmoothGrad(samples=2, noise=0.3, cells=8, seed=4), torch.Generator().manual_seed(4)
    total = torch.zeros_like(images)
    spread = 0.3 * (images.amax(dim=(1, 2, 3)) - images.amin(dim=(1, 2, 3))).view(-1, 1, 1, 1)
    for _ in range(2):
        point = (images + spread * torch.randn(1, 3, SIZE, SIZE, generator=noise)).requires_grad_()
        total += torch.autograd.grad(model(point)[torch.arange(3), TARGETS[:, 0]].sum(), point)[0] / 2
    torch.testing.assert_close(method.relevance(model, images, TARGETS)[:, 0], pooled(total.abs().sum(dim=1), 8))


def test_occlusion_is_captum_s(model, images):
    maps = Occlusion(cells=8).relevance(model, images, TARGETS)
    for t in range(2):
        theirs = CaptumOcclusion(model).attribute(
            images, target=TARGETS[:, t], sliding_window_shapes=(3, 4, 4), strides=(3, 4, 4), baselines=0
        )
        torch.testing.assert_close(maps[:, t], theirs[:, 0, ::4, ::4], rtol=1e-4, atol=1e-6)


def test_occlusion_cells_cover_the_image_where_they_do_not_divide_it(model, images):
    maps = Occlusion(cells=5).relevance(model, images, TARGETS)
    edges = [0, 6, 13, 19, 26, 32]
    covered = images.clone()
    covered[:, :, edges[4] :, edges[3] : edges[4]] = 0
    with torch.no_grad():
        wanted = (model(images) - model(covered)).gather(1, TARGETS)
    torch.testing.assert_close(maps[:, :, 4, 3], wanted)


@pytest.mark.parametrize(
    "method", [GradCam(4), IntegratedGradients(4), SmoothGrad(2), Occlusion(4)], ids=lambda m: type(m).__name__
)
def test_a_map_depends_on_its_image_alone(model, images, method):
    together = method.maps(model, images, TARGETS)
    alone = torch.cat([method.maps(model, images[i : i + 1], TARGETS[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-5)
    assert together.shape[-2:] == method.cells(model)


def test_auto_takes_attention_where_there_is_some(model):
    vit = network("vit_tiny_patch16_224", patch_size=8, embed_dim=24, depth=1, num_heads=2)
    assert isinstance(Auto().chosen(vit), GradAttention) and isinstance(Auto().chosen(model), GradCam)


@pytest.mark.parametrize(
    ("build", "key"),
    [
        (lambda: Occlusion(1), "attribution.cells: 1"),
        (lambda: IntegratedGradients(steps=1), "attribution.steps: 1"),
        (lambda: SmoothGrad(samples=0), "attribution.samples: 0"),
        (lambda: SmoothGrad(noise=2), "attribution.noise: 2"),
        (lambda: GradCam(0), "attribution.least: 0"),
    ],
)
def test_settings_that_make_no_sense(build, key):
    with pytest.raises(ConfigError, match=key):
        build()
