"""The masked autoencoder against loops and timm's own forward pass."""

import numpy as np
import pytest
import timm
import torch
from torch import nn

from aaca.training import masked_autoencoder
from aaca.training.masked_autoencoder import MaskedAutoencoder, normalised_patches
from aaca.training.pretrain import Schedule

SIZE, PATCH = 16, 4
SCHEDULE = Schedule(updates=5, batch_size=4, lr=1e-3)


def toy(mask=0.75, seed=0):
    torch.manual_seed(seed)
    kwargs = {"patch_size": PATCH, "embed_dim": 16, "depth": 2, "num_heads": 2}
    encoder = timm.create_model("vit_tiny_patch16_224", img_size=SIZE, num_classes=0, **kwargs)
    return MaskedAutoencoder(encoder, SCHEDULE, mask, width=16, depth=1)


def pictures(n, seed=0):
    return torch.rand(n, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_patches_row_by_row_each_normalised():
    images = pictures(2).numpy().astype(np.float64)
    found = normalised_patches(torch.from_numpy(images), PATCH)
    assert found.shape == (2, (SIZE // PATCH) ** 2, 3 * PATCH**2)
    for image in range(2):
        for row in range(SIZE // PATCH):
            for column in range(SIZE // PATCH):
                block = images[image, :, row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH]
                values = block.reshape(-1)  # channel, row, column
                variance = ((values - values.mean()) ** 2).sum() / (len(values) - 1)
                expected = (values - values.mean()) / np.sqrt(variance + 1e-6)
                np.testing.assert_allclose(found[image, row * (SIZE // PATCH) + column], expected, atol=1e-9)


@torch.no_grad()
def test_seeing_everything_in_order_is_timm_s_forward_pass():
    module = toy().eval()
    encoder, images = module.encoder, pictures(3)
    everything = torch.arange(16).expand(3, -1)
    expected = encoder.forward_features(images)
    torch.testing.assert_close(module.encode(images, everything), expected, rtol=1e-5, atol=1e-5)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(1)).expand(3, -1)
    shuffled = module.encode(images, order)  # places come with their patches: only the rows are in another order
    torch.testing.assert_close(shuffled[:, 1:], expected[:, 1:][:, order[0]], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(shuffled[:, 0], expected[:, 0], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_only_seen_patches_are_looked_at():
    module, images = toy().eval(), pictures(2)
    assert module.kept == 4
    order = torch.stack([torch.randperm(16) for _ in range(2)])
    painted = module.fill_in(images, order)
    assert painted.shape == (2, 16, 3 * PATCH**2)
    for places, same in ((order[:, 4:], True), (order[:, :4], False)):
        changed = images.clone()
        for image in range(2):
            for place in places[image].tolist():
                top, left = place // 4 * PATCH, place % 4 * PATCH
                changed[image, :, top : top + PATCH, left : left + PATCH] = 0.5
        assert torch.equal(module.fill_in(changed, order), painted) == same


@torch.no_grad()
def test_the_decoder_gets_what_was_seen_in_its_place_and_the_hidden_token_elsewhere():
    module, images = toy().eval(), pictures(2)
    module.decoder = module.leave = nn.Identity()
    order = torch.stack([torch.randperm(16) for _ in range(2)])
    given = module.fill_in(images, order) - module.places[:, 1:]
    made = module.enter(module.encode(images, order[:, :4]))[:, 1:]
    for image in range(2):
        for rank, place in enumerate(order[image].tolist()):
            expected = made[image, rank] if rank < 4 else module.hidden[0, 0]
            torch.testing.assert_close(given[image, place], expected)


@torch.no_grad()
def test_the_loss_is_the_mean_over_hidden_patches_alone(monkeypatch):
    module, images = toy().eval(), pictures(3)

    def loss():
        torch.manual_seed(7)
        return float(module.losses((images, None, None))["loss"])

    honest = loss()
    torch.manual_seed(7)
    order = torch.rand(3, 16).argsort(dim=1)
    error = (module.fill_in(images, order) - normalised_patches(images, PATCH)).double().numpy() ** 2
    by_hand = np.mean([error[image, place].mean() for image in range(3) for place in order[image, 4:].tolist()])
    assert honest == pytest.approx(by_hand, rel=1e-5)

    def garbage(rows):
        def patches(given, size):
            target = normalised_patches(given, size)
            for image in range(3):
                target[image, rows[image]] = 1e6
            return target

        return patches

    monkeypatch.setattr(masked_autoencoder, "normalised_patches", garbage(order[:, :4]))
    assert loss() == honest
    monkeypatch.setattr(masked_autoencoder, "normalised_patches", garbage(order[:, 4:5]))
    assert loss() > 1e6


def test_every_image_hides_other_patches_and_every_batch_too(monkeypatch):
    module, images, orders = toy(), pictures(4), []
    fill_in = MaskedAutoencoder.fill_in
    monkeypatch.setattr(
        MaskedAutoencoder, "fill_in", lambda self, given, order: orders.append(order) or fill_in(self, given, order)
    )
    torch.manual_seed(0)
    for _ in range(2):
        module.losses((images, None, None))
    seen = {tuple(sorted(order[image, :4].tolist())) for order in orders for image in range(4)}
    assert len(seen) > 6


@pytest.mark.parametrize(("mask", "kept"), [(0.75, 4), (0.5, 8), (0.99, 1)])
def test_the_share_of_hidden_patches(mask, kept):
    assert toy(mask).kept == kept


def test_it_learns_to_fill_in():
    """Stripes as wide as a patch: what is hidden follows from what is seen. Every part gets a gradient."""
    module = toy(mask=0.5)
    phase = torch.arange(8)[:, None, None, None] / 8
    images = torch.sin((torch.arange(SIZE) / PATCH + phase) * 2 * torch.pi).expand(8, 3, SIZE, SIZE)
    optimizer = torch.optim.AdamW(module.trained(), lr=2e-3)
    losses = []
    for step in range(60):
        torch.manual_seed(step)
        loss = module.losses((images, None, None))["loss"]
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            silent = [name for name, weight in module.named_parameters() if weight.grad is None]
            assert silent == []
        optimizer.step()
        losses.append(float(loss.detach()))
    assert 0.8 < losses[0] < 1.6  # about the variance of what is to be guessed
    assert np.mean(losses[-5:]) < 0.1
