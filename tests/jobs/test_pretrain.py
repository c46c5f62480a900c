"""The job `pretrain`: its command, one small model end to end, and the chain from scenes to a pipeline that loads."""

import importlib
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from hydra import compose, initialize_config_module
from safetensors.torch import load_file

import aaca.runtime.app  # noqa: F401  registers the resolver of run folders
from aaca.data.table import ImageTable
from aaca.models.judge import ASPECTS, NOTHING
from aaca.runtime import cli
from aaca.runtime.config import load_config, plain
from aaca.runtime.files import read_json
from aaca.world.pack import load_pack
from experiments.debug_config import without_size_presets
from experiments.pretrain_config import PretrainConfig
from experiments.pretrain_stages import PretrainStages, aspects, encode_all, load_weights

SMALL = ("images=20", "workers=1", "trainer=cpu")
BACKBONE = ("backbone.schedule.updates=3", "backbone.schedule.batch_size=4", "backbone.schedule.warmup=1")
PARTS = ("clip", "autoencoder", "colours", "decoder", "diffusion")
CHAIN = (
    "images=8",
    "clip.image_size=32",
    "clip.width=16",
    "clip.layers=1",
    "clip.embed_dim=16",
    "autoencoder.channels=[8,8,16]",
    "autoencoder.latent_channels=4",
    "diffusion.channels=[16,16]",
    "diffusion.heads=2",
    *(f"{part}.schedule.{key}" for part in PARTS for key in ("updates=2", "batch_size=4")),
)


@pytest.mark.parametrize(
    ("arguments", "passed"),
    [
        (["pretrain", "clip"], ["network=clip"]),
        (["pretrain", "model=clip"], ["network=clip"]),
        (["pretrain", "network=clip", "seed=1"], ["network=clip", "seed=1"]),
        (["pretrain", "judge", "seed=1"], ["network=judge", "seed=1"]),
        (["pretrain", "seed=1", "model=judge"], ["seed=1", "network=judge"]),
        (["pretrain", "-m", "model=clip,judge"], ["-m", "network=clip,judge"]),
        (["pretrain", "--help"], ["--help"]),
        (["debug", "model=small_vit"], ["model=small_vit"]),  # a group of its own there
        (["data", "verify"], ["action=verify"]),
    ],
)
def test_bare_words_and_model_stand_for_the_network(arguments, passed, monkeypatch):
    started = []
    monkeypatch.setattr(sys, "argv", ["aaca"])
    monkeypatch.setattr(
        cli,
        "importlib",
        SimpleNamespace(
            import_module=lambda name: SimpleNamespace(main=lambda: started.append((name, sys.argv[1:])) or 0)
        ),
    )
    assert cli.main(arguments) == 0
    assert started == [(f"aaca.experiments.{arguments[0]}", passed)]


def test_every_alias_is_a_job_of_its_own_key():
    for job, aliases in cli.ALIASES.items():
        assert job in cli.JOBS
        for alias, key in aliases.items():
            with initialize_config_module("aaca.conf", version_base="1.3"):
                config = compose(job, overrides=[f"{key}=clip"])
            assert config[key] == "clip" and alias not in config


@pytest.mark.parametrize("word", ["vae", "model=vae", "network=vae"])
def test_an_unknown_model_is_one_line(word, run, tmp_path):
    status, said = run("pretrain", word)
    assert status == 1
    assert said.count("\n") == 1 and "'vae'" in said, said
    for name in ("clip", "autoencoder", "diffusion", "backbone", "judge"):
        assert name in said
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_no_model_and_an_impossible_schedule_are_one_line(run):
    for arguments, key in (
        ((), "network"),
        (("backbone", "backbone.schedule.updates=0"), "backbone.schedule.updates"),
        (("backbone", "backbone.schedule.updats=3"), "backbone.schedule.updats"),
        (("backbone", "backbone.mask=1.5"), "backbone.mask"),
    ):
        status, said = run("pretrain", *arguments)
        assert (status, said.count("\n")) == (1, 1), said
        assert key in said


def test_a_model_end_to_end_and_again_without_training(run, tmp_path):
    status, said = run("pretrain", "model=backbone", *SMALL, *BACKBONE, f"paths.root={tmp_path}")
    assert status == 0, said
    (folder,) = (path.parent for path in tmp_path.glob("stages/backbone/*/manifest.json"))
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == {
        "manifest.json",
        "backbone.safetensors",
        "log/metrics.csv",
    }
    network = {"patch_size": 8, "embed_dim": 96, "depth": 4, "num_heads": 4}
    vit = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=0, **network)
    vit.load_state_dict(load_file(folder / "backbone.safetensors"))
    curve = pd.read_csv(folder / "log" / "metrics.csv")
    assert curve["updates"].tolist() == [3] and 0.3 < curve["loss"][0] < 3
    (scenes,) = (path.parent for path in tmp_path.glob("stages/captioned/*/manifest.json"))
    assert np.load(scenes / "images.npy", mmap_mode="r").shape == (80, 64, 64, 3)
    manifest = read_json(folder / "manifest.json")
    assert manifest["inputs"]["scenes"] == read_json(scenes / "manifest.json")["key"]
    assert manifest["inputs"]["settings"]["schedule"]["updates"] == 3
    before = (folder / "backbone.safetensors").read_bytes()
    status, said = run("pretrain", "backbone", *SMALL, *BACKBONE, "workers=2", f"paths.root={tmp_path}")
    assert status == 0 and "ready, made in" in said and "  …" not in said
    assert (folder / "backbone.safetensors").read_bytes() == before


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    root = tmp_path_factory.mktemp("chain")
    with initialize_config_module("aaca.conf", version_base="1.3"):
        config = compose("pretrain", overrides=["network=diffusion", *SMALL, *CHAIN, f"paths.root={root}"])
    runner = PretrainStages(load_config(without_size_presets(plain(config)), PretrainConfig))
    return runner, runner.diffusion()


def made(root, name):
    return [path.parent for path in root.glob(f"stages/{name}/*/manifest.json")]


def test_latents_are_those_of_the_autoencoder_at_deviation_one(chain):
    runner, _ = chain
    stages, table = runner.scenes()
    (folder,) = made(runner.cache.root, "latents")
    key = read_json(folder / "manifest.json")["inputs"]["autoencoder"]
    (autoencoder,) = runner.cache.root.glob(f"stages/*/{key[:16]}")
    latents, factor = np.load(folder / "latents.npy"), read_json(folder / "factor.json")
    assert latents.shape == (len(table), 4, 16, 16) == (32, 4, 16, 16) and latents.dtype == np.float16
    assert latents.std(dtype=np.float64) == pytest.approx(1, abs=1e-3)
    vae = runner.load_autoencoder(autoencoder / "autoencoder.safetensors").eval()
    images = np.load(stages.folder / "images.npy")
    with torch.no_grad():
        one = vae.encode(torch.from_numpy(images[7:8]).permute(0, 3, 1, 2) / 127.5 - 1).latent_dist.mean
    np.testing.assert_allclose(latents[7], one[0].numpy() * factor, atol=5e-3)
    np.testing.assert_allclose(encode_all(vae, images[5:9], batch_size=3)[2], one[0].numpy(), atol=1e-5)


def test_the_chain_is_a_pipeline_that_says_what_it_was_trained_with(chain, tmp_path):
    from diffusers import StableDiffusionPipeline

    runner, diffusion = chain
    for name in ("captioned", "clip", "autoencoder", "latents", "diffusion"):
        assert len(made(runner.cache.root, name)) == 1, name
    runner.save_pipeline(tmp_path / "pipeline")
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "pipeline")
    (latents,) = made(runner.cache.root, "latents")
    assert pipeline.vae.config.scaling_factor == pytest.approx(read_json(latents / "factor.json"))
    assert (pipeline.unet.config.sample_size, pipeline.tokenizer.model_max_length) == (16, 32)
    trained = load_file(diffusion.folder / "unet.safetensors")
    for name, value in pipeline.unet.state_dict().items():
        assert torch.equal(value.half(), trained[name].half()), name
    assert len({str(getattr(pipeline, name).dtype) for name in ("vae", "unet", "text_encoder")}) == 1
    image = pipeline("a bird on sand", num_inference_steps=1, output_type="np").images
    assert image.shape == (1, 64, 64, 3)


def test_a_stage_depends_on_what_went_into_it_and_on_nothing_else(chain):
    runner, diffusion = chain
    again = PretrainStages(runner.options)
    assert again.diffusion().key == diffusion.key
    assert all(stage.reused for stage in again.cache.history)


def test_the_text_tower_is_where_the_text_encoder_starts(chain):
    """Two small steps from CLIP's weights, and not from others."""
    from aaca.models.text_encoder import to_clip_text_model

    runner, diffusion = chain
    start = to_clip_text_model(runner.load_clip(runner.clip()))
    end = to_clip_text_model(runner.load_clip(runner.clip()))
    load_weights(end, diffusion.folder / "text_encoder.safetensors")
    pairs = list(zip(start.parameters(), end.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in pairs)
    assert max(float((a - b).abs().max()) for a, b in pairs) < 0.01


def test_what_the_judge_should_say_are_places_in_its_lists():
    frame = pd.DataFrame(
        {
            "id": ["a", "b", "c"],
            "label": [0, 1, 2],
            "cls": ["mammal", "bird", "produce"],
            "scene": ["wood", "brick", "sand"],
            "concept": ["tool", None, np.nan],
        }
    )
    found = aspects(ImageTable.build(frame, load_pack().classes)).tolist()
    names = [[choices[column] for choices, column in zip(ASPECTS.values(), row, strict=True)] for row in found]
    assert names == [["mammal", "wood", "tool"], ["bird", "brick", NOTHING], ["produce", "sand", NOTHING]]
    assert importlib.import_module("aaca.experiments.pretrain").main.__module__.endswith("pretrain")
