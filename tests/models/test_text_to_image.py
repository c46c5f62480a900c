"""The pipeline as a config group: what is wrong with it is said in one line; its fingerprint follows its files."""

import json
import logging
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from aaca.models.text_to_image import Diffusion
from aaca.runtime.errors import AacaError, ConfigError
from aaca.world import shipped
from tests.diffusion_toys import toy_diffusion

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def copied(pipeline_folder, tmp_path) -> Path:
    return shutil.copytree(pipeline_folder, tmp_path / "copy")


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("asked the network"))


def line_of(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert "\n" not in text and len(text) < 700, text
    return text


@pytest.mark.parametrize("model", ["/nowhere/at/all", "./here", "~/models/sd", "sd15", "a/b/c"])
def test_no_folder_and_no_hub_s_id(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^diffusion\.model: no folder .*; expected one, or a hub's id owner/name$"):
        Diffusion(model)


def test_a_folder_that_is_no_pipeline(tmp_path):
    with pytest.raises(
        ConfigError, match=r"^diffusion\.model: .* is no pipeline of diffusers \(model_index\.json is mis"
    ):
        Diffusion(str(tmp_path))


def test_a_scheduler_that_diffusers_lacks(pipeline_folder):
    with pytest.raises(ConfigError, match=r"^diffusion\.scheduler: no 'DDIMSchedular'; nearest valid: .*DDIMScheduler"):
        toy_diffusion(pipeline_folder, scheduler="DDIMSchedular")
    with pytest.raises(ConfigError, match=r"^diffusion\.scheduler: no 'AutoencoderKL'"):
        toy_diffusion(pipeline_folder, scheduler="AutoencoderKL")


def test_an_embedded_model_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "MODELS", tmp_path)
    for name in ("diffusion", "_half", ".hidden"):
        (tmp_path / name).mkdir()
    with pytest.raises(
        ConfigError, match=r"^diffusion\.model: no embedded model 'embedded:difusion'; nearest valid: emb"
    ):
        Diffusion("embedded:difusion")
    with pytest.raises(ConfigError) as caught:
        Diffusion("embedded:x")
    assert "_half" not in line_of(caught) and "hidden" not in line_of(caught)
    (tmp_path / "diffusion" / "model_index.json").write_text("{}")
    assert Diffusion("embedded:diffusion").model == str(tmp_path / "diffusion")


def test_a_safety_checker_is_neither_pretended_nor_left_out_silently(pipeline_folder, caplog):
    with pytest.raises(ConfigError, match=r"^diffusion\.safety_checker: true, but .* has none; diffusion\.safety_ch"):
        toy_diffusion(pipeline_folder, safety_checker=True).load()
    with caplog.at_level(logging.INFO, "aaca"):
        toy_diffusion(pipeline_folder).load()
    assert "not looked at by a safety checker" in caplog.text


@pytest.mark.parametrize(
    "file", [UNET, "vae/config.json", "text_encoder/model.safetensors", "tokenizer/tokenizer.json"]
)
def test_a_missing_file_is_one_line_that_names_the_folder(copied, file, offline):
    (copied / file).unlink()
    with pytest.raises(AacaError) as caught:
        toy_diffusion(copied).load()
    said = line_of(caught)
    assert said.startswith(f"diffusion.model: {copied} could not be loaded (") and "expected a complete folder" in said


@pytest.mark.parametrize("file", [UNET, "text_encoder/model.safetensors", "unet/config.json"])
def test_a_damaged_file_is_one_line(copied, file, offline):
    data = (copied / file).read_bytes()
    (copied / file).write_bytes(data[: len(data) // 2])
    with pytest.raises(AacaError, match=r"^diffusion\.model: .* could not be loaded \(") as caught:
        toy_diffusion(copied).load()
    line_of(caught)


def test_an_index_that_is_damaged_or_of_another_kind_of_model(copied, offline):
    index = json.loads((copied / "model_index.json").read_text())
    (copied / "model_index.json").write_text(json.dumps({**index, "_class_name": "DDPMPipeline"}))
    settings = toy_diffusion(copied)
    settings.check()
    with pytest.raises(AacaError, match=r"^diffusion\.model: .* could not be loaded \(") as caught:
        settings.load()
    line_of(caught)
    (copied / "model_index.json").write_text("{ no json")
    with pytest.raises(AacaError, match=r"^diffusion\.model: .* could not be loaded \(") as caught:
        settings.check()
    line_of(caught)


@pytest.mark.parametrize("how", ["check", "load"])
def test_a_hub_s_model_without_a_network_is_one_line(how, offline, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(AacaError) as caught:
        getattr(Diffusion("some-owner/some-model", safety_checker=False), how)()
    said = line_of(caught)
    assert said.startswith("diffusion.model: 'some-owner/some-model' is no folder here and could not be fetched (")
    assert said.endswith("give a local folder instead, or check the network (HF_HUB_OFFLINE, proxies)")


def test_the_fingerprint_follows_the_files_and_every_setting(copied, pipeline_folder):
    first = toy_diffusion(copied).fingerprint()
    assert first == toy_diffusion(pipeline_folder).fingerprint()  # by content, not by place
    json.dumps(first)
    changes = {"steps": 3, "guidance": 2.0, "scheduler": "DDIMScheduler", "dtype": "float16", "size": 24}
    changes |= {"variant": "fp16", "revision": "x", "safety_checker": True, "batch_size": 3}
    for name, value in changes.items():
        other = toy_diffusion(copied, **{name: value}).fingerprint()
        assert {key for key in first if first[key] != other[key]} == {name}
    for file in (UNET, "tokenizer/tokenizer.json", "scheduler/scheduler_config.json"):
        data = (copied / file).read_bytes()
        (copied / file).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        assert toy_diffusion(copied).fingerprint()["model"] != first["model"], file
        (copied / file).write_bytes(data)
    settings = toy_diffusion(copied)
    before = settings.fingerprint()
    assert settings.fingerprint() == before == first
    hub = Diffusion("some-owner/some-model", revision="main").fingerprint()
    assert hub["model"] == {"id": "some-owner/some-model", "revision": "main"}


def test_what_is_loaded_is_what_was_asked_for(pipeline_folder, offline):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FutureWarning)
        pipeline = toy_diffusion(pipeline_folder, scheduler="DDIMScheduler", dtype="bfloat16").load("cpu")
    for name in ("vae", "unet", "text_encoder"):
        assert {weight.dtype for weight in getattr(pipeline, name).parameters()} == {torch.bfloat16}
    assert type(pipeline.scheduler).__name__ == "DDIMScheduler"
    config = pipeline.scheduler.config
    assert (config.prediction_type, config.beta_schedule) == ("v_prediction", "squaredcos_cap_v2")
    said = [str(warning.message).split("\n")[0][:100] for warning in caught if warning.category is FutureWarning]
    assert not [text for text in said if "torch_dtype" in text]
    assert type(toy_diffusion(pipeline_folder).load().scheduler).__name__ == "DPMSolverMultistepScheduler"
