"""The denoiser's targets against diffusers, its weights in closed form, its moving average by hand."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from aaca.data.captioned import Captions
from aaca.models.tiny_diffusion import build_unet, noise_schedule
from aaca.models.tokenizer import clip_tokenizer
from aaca.training.autoencoder import AutoencoderPretraining, DecoderPretraining, build_autoencoder
from aaca.training.diffusion import LatentDiffusion
from tests.captioned_toys import CONTEXT, WIDTH, captioned_squares, toy_job, toy_text_encoder, weights_after

LATENTS = np.random.default_rng(0).normal(size=(12, 4, 4, 4)).astype(np.float16)


class Guess(nn.Module):
    """A denoiser that always answers the same and remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = nn.Parameter(torch.randn(4, 4, 4))
        self.shown: list[tuple[torch.Tensor, ...]] = []

    def forward(self, noisy, times, states):
        self.shown.append((noisy, times, states))
        return SimpleNamespace(sample=self.answer.expand_as(noisy))


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return captioned_squares(tmp_path_factory.mktemp("squares"), 12)


def module_of(table, unet=None, updates=3, lr=1e-2, **options):
    torch.manual_seed(0)
    unet = unet or build_unet([16, 16], heads=2, latent_channels=4, latent_size=4, width=WIDTH)
    schedule = toy_job(table, updates, lr=lr).schedule
    captions = Captions(table)
    arguments = (unet, toy_text_encoder(), clip_tokenizer(CONTEXT), noise_schedule(), LATENTS, captions, schedule, 1)
    return LatentDiffusion(*arguments, **options)


@pytest.mark.parametrize("snr", [5.0, 1.0])
@torch.no_grad()
def test_noise_velocity_and_weights_are_diffusers_and_the_paper_s(table, snr, monkeypatch):
    noises = []
    draw = torch.randn_like
    monkeypatch.setattr(torch, "randn_like", lambda *given, **more: noises.append(draw(*given, **more)) or noises[-1])
    unet = Guess()
    module = module_of(table, unet, snr=snr)
    noises.clear()
    rows = torch.tensor([3, 0, 11, 3, 5, 6, 7, 8])
    found = module.losses((None, None, rows))
    (noisy, times, _), noise = unet.shown[0], noises[0]
    scheduler = noise_schedule()
    clean = torch.from_numpy(LATENTS[rows.numpy()].astype(np.float32))
    torch.testing.assert_close(noisy, scheduler.add_noise(clean, noise, times))
    velocity = scheduler.get_velocity(clean, noise, times)
    error = (unet.answer - velocity).square().mean(dim=(1, 2, 3))
    assert float(found["mse"]) == pytest.approx(float(error.mean()), rel=1e-5)
    alpha = scheduler.alphas_cumprod[times].double()
    weight = torch.minimum(alpha, snr * (1 - alpha))  # min(SNR, γ) / (SNR + 1), with SNR = α / (1 − α)
    assert float(found["loss"]) == pytest.approx(float((weight * error).mean()), rel=1e-4)
    assert len(set(times.tolist())) > 4 and int(times.min()) >= 0 and int(times.max()) < 1000


@torch.no_grad()
def test_captions_are_left_out_at_the_asked_for_rate_and_reach_the_denoiser_as_the_text_encoder_s_states(table):
    for share, expected in ((0.0, 0), (0.5, 6)):
        unet, texts = Guess(), []
        module = module_of(table, unet, drop_caption=share)
        module.text_encoder.eval()
        tokenizer = module.tokenizer
        module.tokenizer = lambda given, tokenizer=tokenizer, texts=texts, **more: (
            texts.extend(given) or tokenizer(given, **more)
        )
        torch.manual_seed(4)
        module.losses((None, None, torch.arange(12)))
        without = [row for row, text in enumerate(texts) if text == ""]
        assert abs(len(without) - expected) <= 3 and (share > 0 or not without)
        states = unet.shown[0][2]
        assert states.shape == (12, CONTEXT, WIDTH)
        for row in range(12):
            ids = tokenizer(texts[row]).input_ids
            ids += [49407] * (CONTEXT - len(ids))
            expected_states = module.text_encoder(torch.tensor([ids])).last_hidden_state[0]
            torch.testing.assert_close(states[row], expected_states, rtol=1e-4, atol=1e-5)
            if texts[row]:
                content = module.captions.contents[row]
                assert content.cls in texts[row] or content.scene in texts[row]


def averages(weights):
    return [weights[f"average.{index}"] for index in range(sum(name.startswith("average.") for name in weights))]


def current(weights, module):
    names = [f"unet.{name}" for name, _ in module.unet.named_parameters()]
    names += [f"text_encoder.{name}" for name, _ in module.text_encoder.named_parameters()]
    return [weights[name] for name in names]


def test_the_average_follows_by_hand_and_takes_the_weights_place(table, tmp_path):
    """Its first steps are short-sighted: after update k it keeps (1 + k) / (10 + k) of itself, at most `ema`."""
    module, states = module_of(table, updates=4, ema=0.2), []

    def note(*_):
        states.append({name: value.detach().clone() for name, value in module.state_dict().items()})

    module.on_train_batch_start = note
    weights_after(lambda: (module, toy_job(table, 4)), tmp_path / "run", [])
    note()
    assert len(states) == 5
    for mine, wanted in zip(averages(states[0]), current(states[0], module), strict=True):
        assert torch.equal(mine, wanted)
    for update, (before, after) in enumerate(pairwise(states), start=1):
        keep = (2 / 11, 0.2, 0.2, 0.2)[update - 1]
        was, now = current(before, module), current(after, module)
        assert max(float((new - old).abs().max()) for old, new in zip(was, now, strict=True)) > 1e-3
        for old, new, mine in zip(averages(before), now, averages(after), strict=True):
            torch.testing.assert_close(mine, keep * old + (1 - keep) * new, rtol=1e-5, atol=1e-7)
    module.use_average()
    for mine, wanted in zip(module._weights(), averages(states[-1]), strict=True):
        assert torch.equal(mine, wanted)


def test_rows_of_tokens_that_never_occur_stay_as_they_were(table, tmp_path):
    module = module_of(table, updates=3)
    name = next(name for name, _ in module.text_encoder.named_parameters() if "token_embedding" in name)
    before = dict(module.text_encoder.named_parameters())[name].detach().clone()
    captions = {text for seed in range(200) for text in module.captions.draw(np.arange(12), seed)}
    said = {token for ids in module.tokenizer(sorted(captions)).input_ids for token in ids}
    weights = weights_after(lambda: (module, toy_job(table, 3)), tmp_path / "run", [])
    module.use_average()
    unseen = torch.ones(len(before), dtype=torch.bool)
    unseen[list(said)] = False
    assert 49000 < int(unseen.sum()) < 49408
    after, average = weights[f"text_encoder.{name}"], dict(module.text_encoder.named_parameters())[name]
    assert torch.equal(after[unseen], before[unseen]) and torch.equal(average[unseen], before[unseen])
    moved = (after != before).any(dim=1)
    assert 5 < int(moved.sum()) <= len(said)


def test_the_text_encoder_learns_at_its_own_rate_and_nothing_is_left_out(table):
    module = module_of(table, text_lr=0.3)
    groups = module.trained()
    assert groups[2]["lr"] == pytest.approx(0.3 * module.schedule.lr) and groups[2]["weight_decay"] == 0
    trained = {id(weight) for group in groups for weight in group["params"]}
    assert trained == {id(weight) for weight in module._weights()}
    assert not trained & {id(weight) for weight in module.average}
    assert not any(weight.requires_grad for weight in module.average)


def test_the_denoiser_learns(table):
    """A few updates on one batch with the same noise: the loss falls, and text and denoiser both get gradients."""
    module = module_of(table)
    optimizer = torch.optim.AdamW(module.trained(), lr=3e-3)
    losses = []
    for _ in range(12):
        torch.manual_seed(0)
        loss = module.losses((None, None, torch.arange(8)))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    heard = [weight.grad is not None and bool(weight.grad.any()) for weight in module.text_encoder.parameters()]
    assert sum(heard) > 0.9 * len(heard)


def errors_of(back, images):
    """Mean absolute errors of pixels and of their differences to the right and lower neighbour, squared error."""
    error = (back.double() - images.double()).numpy()
    right, down = np.abs(error[..., 1:] - error[..., :-1]).mean(), np.abs(error[:, :, 1:] - error[:, :, :-1]).mean()
    return {"pixels": np.abs(error).mean(), "edges": (right + down) / 2, "mse": (error**2).mean()}


@torch.no_grad()
def test_the_autoencoder_s_loss_term_by_term():
    torch.manual_seed(0)
    vae = build_autoencoder([8, 8], latent_channels=4, image_size=16).eval()
    schedule = toy_job(None, 3).schedule  # type: ignore[arg-type]
    module = AutoencoderPretraining(vae, schedule, edges=0.5, kl=0.1, colours=3.0)
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    torch.manual_seed(5)
    found = {name: float(value) for name, value in module.losses((images,)).items()}
    torch.manual_seed(5)
    posterior = vae.encode(images).latent_dist
    back = vae.decode(posterior.sample()).sample
    mean, logvar = posterior.mean.double().numpy(), posterior.logvar.double().numpy()
    blocks = (back - images).double().numpy().reshape(2, 3, 2, 8, 2, 8).mean(axis=(3, 5))
    expected = errors_of(back, images)
    expected |= {"kl": 0.5 * (mean**2 + np.exp(logvar) - 1 - logvar).mean(), "colours": (blocks**2).mean()}
    expected["loss"] = expected["pixels"] + 0.5 * expected["edges"] + 0.1 * expected["kl"] + 3 * expected["colours"]
    assert found == pytest.approx(expected, rel=1e-4)


def test_the_decoder_is_trained_on_alone():
    torch.manual_seed(0)
    vae = build_autoencoder([8, 8], latent_channels=4, image_size=16).eval()
    latents = np.random.default_rng(0).normal(size=(5, 4, 8, 8)).astype(np.float32)
    module = DecoderPretraining(vae, latents, toy_job(None, 3).schedule, edges=0.5)  # type: ignore[arg-type]
    images, rows = torch.rand(2, 3, 16, 16) * 2 - 1, torch.tensor([3, 1])
    found = module.losses((images, None, rows))
    with torch.no_grad():
        expected = errors_of(vae.decode(torch.from_numpy(latents[[3, 1]])).sample, images)
    assert float(found["loss"]) == pytest.approx(expected["pixels"] + 0.5 * expected["edges"], rel=1e-4)
    assert float(found["mse"]) == pytest.approx(expected["mse"], rel=1e-4)
    trained = {id(weight) for group in module.trained() for weight in group["params"]}
    fixed = [*vae.encoder.parameters(), *vae.quant_conv.parameters()]
    assert not trained & {id(weight) for weight in fixed}
    assert trained == {id(weight) for weight in [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]}
