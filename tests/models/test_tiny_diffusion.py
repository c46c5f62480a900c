"""What is saved is a Stable Diffusion pipeline like any other: it loads with a plain call, offline, and paints."""

import json
import logging
import warnings

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from huggingface_hub import constants

from aaca.models.tiny_diffusion import build_unet, noise_schedule, save_pipeline
from aaca.training.autoencoder import build_autoencoder
from tests.captioned_toys import CONTEXT, WIDTH, scrambled, toy_text_encoder

PARTS = ("vae", "unet", "text_encoder")
FACTOR = 0.7


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    vae = scrambled(build_autoencoder([8, 8], latent_channels=4, image_size=16))
    vae.register_to_config(scaling_factor=FACTOR)
    unet = scrambled(build_unet([16, 16], heads=2, latent_channels=4, latent_size=8, width=WIDTH))
    return {"vae": vae.eval(), "unet": unet.eval(), "text_encoder": toy_text_encoder()}


@pytest.fixture(scope="module")
def saved(networks, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "pipeline"
    states = {name: {key: value.clone() for key, value in networks[name].state_dict().items()} for name in PARTS}
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        save_pipeline(folder, **networks, context=CONTEXT)
    return folder, states, [str(warning.message) for warning in warned if warning.category is FutureWarning]


@pytest.fixture
def said(caplog, monkeypatch):
    """What diffusers and transformers have to say, as log lines. Any look at the network would fail."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("asked the network"))
    for name in ("diffusers", "transformers"):
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
    return caplog


def test_a_plain_call_loads_it_in_one_precision_and_it_paints(saved, said):
    folder, states, _ = saved
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    assert not [
        line for line in said.messages if "newly initialized" in line or "not used" in line or "MISSING" in line
    ]
    found = {name: {weight.dtype for weight in getattr(pipeline, name).parameters()} for name in PARTS}
    assert found == {name: {torch.float32} for name in PARTS}
    for name in PARTS:
        for key, value in getattr(pipeline, name).state_dict().items():
            assert torch.equal(value.half(), states[name][key].half()), f"{name}.{key}"
    pipeline.set_progress_bar_config(disable=True)

    def paint(seed):
        chance = torch.Generator().manual_seed(seed)
        return pipeline("a bird on sand", num_inference_steps=2, generator=chance, output_type="np").images

    first = paint(0)
    assert first.shape == (1, 16, 16, 3) and np.isfinite(first).all()  # the autoencoder's size, without being asked
    assert np.array_equal(first, paint(0)) and not np.array_equal(first, paint(1))


def test_a_call_with_a_precision_loads_it_in_that_one(saved, said):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # diffusers renames the argument
        pipeline = StableDiffusionPipeline.from_pretrained(saved[0], torch_dtype=torch.float32)
    assert {getattr(pipeline, name).dtype for name in PARTS} == {torch.float32}


def test_the_files_are_half_precision_and_the_configs_say_what_was_trained(saved):
    folder = saved[0]
    read = {name: json.loads((folder / name / "config.json").read_text()) for name in PARTS}
    assert read["vae"]["scaling_factor"] == FACTOR
    assert read["unet"]["cross_attention_dim"] == WIDTH == read["text_encoder"]["hidden_size"]
    scheduler = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    assert (scheduler["prediction_type"], scheduler["beta_schedule"]) == ("v_prediction", "squaredcos_cap_v2")
    for file in folder.rglob("*.safetensors"):
        size = int.from_bytes(file.read_bytes()[:8], "little")
        header = json.loads(file.read_bytes()[8 : 8 + size])
        assert {entry["dtype"] for name, entry in header.items() if name != "__metadata__"} == {"F16"}, file
    tokenizer = json.loads((folder / "tokenizer" / "tokenizer_config.json").read_text())
    assert tokenizer["model_max_length"] == CONTEXT


def test_saving_draws_no_warning_that_the_config_is_outdated(saved):
    assert [warning.splitlines()[0] for warning in saved[2]] == []


def test_the_autoencoder_halves_the_side_once_a_stage_but_for_the_last():
    vae = build_autoencoder([8, 8, 16], latent_channels=3, image_size=16)
    assert isinstance(vae, AutoencoderKL)
    latents = vae.encode(torch.zeros(1, 3, 16, 16)).latent_dist.mean
    assert latents.shape == (1, 3, 4, 4) and vae.decode(latents).sample.shape == (1, 3, 16, 16)


@torch.no_grad()
def test_the_denoiser_attends_to_the_text_with_as_many_heads_as_asked_for():
    torch.manual_seed(0)
    unet = build_unet([16, 32], heads=2, latent_channels=4, latent_size=8, width=12)
    assert isinstance(unet, UNet2DConditionModel)
    latents, states = torch.randn(1, 4, 8, 8), torch.randn(2, 5, 12)
    found = [unet(latents, 10, states[row : row + 1]).sample for row in range(2)]
    assert found[0].shape == latents.shape and not torch.allclose(found[0], found[1], atol=1e-6)
    to_text = [layer for name, layer in unet.named_modules() if name.endswith("attn2")]
    assert len(to_text) > 2 and {layer.heads for layer in to_text} == {2}


def test_the_noise_is_the_cosine_schedule():
    """Nichol & Dhariwal's closed form, equation 17, at a few times."""
    alphas = noise_schedule().alphas_cumprod

    def f(t):
        return np.cos((t / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2

    for time in (0, 10, 500, 900):
        assert float(alphas[time]) == pytest.approx(f(time + 1) / f(0), rel=1e-3)
    assert noise_schedule().config.prediction_type == "v_prediction"
