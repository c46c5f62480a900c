"""The image-text model: what is wrong with it is said in one line; its vectors are open_clip's own."""

import json

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.tokenizer import SimpleTokenizer
from torchvision.transforms.functional import InterpolationMode, resize

from aaca.models.zero_shot import ClipModel, ImageText, ZeroShot
from aaca.runtime.errors import AacaError, ConfigError
from aaca.world.shipped import MODELS
from tests.captioned_toys import CONTEXT, toy_clip
from tests.toys import SIZE

NAMES = ["a bird", "a red flower", "produce"]
TEMPLATES = ["a photo of {}", "{} on sand"]
needs_weights = pytest.mark.skipif(not (MODELS / "clip").is_dir(), reason="aaca/world/models/clip is not there")


def test_an_architecture_that_open_clip_lacks():
    with pytest.raises(ConfigError, match=r"^clip\.model: no folder or model 'ViT-B-33'; nearest valid: .*ViT-B-32"):
        ClipModel("ViT-B-33", pretrained="openai")
    with pytest.raises(ConfigError, match=r"^clip\.model: no embedded model 'embedded:clop'"):
        ClipModel("embedded:clop")


@pytest.mark.parametrize("name", ["RN50", "ViT-B-16", "ViT-L-14"])
def test_an_activation_that_the_weights_were_not_trained_with_is_refused(name):
    with pytest.raises(ConfigError, match=rf"clip.model: {name} has GELU.*nearest valid: {name}-quickgelu"):
        ClipModel(name, "openai")
    assert ClipModel(f"{name}-quickgelu", "openai").model == f"{name}-quickgelu"


def test_an_architecture_needs_weights_and_a_folder_has_its_own(tmp_path):
    with pytest.raises(ConfigError, match=r"^clip\.pretrained: missing for RN50; valid: openai, .*or a file$"):
        ClipModel("RN50")
    with pytest.raises(ConfigError, match=r"^clip\.pretrained: a folder has its own weights; expected null"):
        ClipModel(str(tmp_path), pretrained="openai")


@pytest.mark.parametrize("template", ["a photo", "{} and {}", "{0}", "a {} in {place}"])
def test_a_template_has_its_slot_once(template, tmp_path):
    with pytest.raises(ConfigError, match=r"^clip\.templates\[1\]: .*; expected {} once, for the name"):
        ClipModel(str(tmp_path), templates=["a {}", template])
    assert ClipModel(str(tmp_path)).templates == ["a photo of {}"]


def test_the_fingerprint_follows_files_tag_size_and_templates(tmp_path):
    folder, file = tmp_path / "clip", tmp_path / "weights.pt"
    folder.mkdir()
    (folder / "open_clip_model.safetensors").write_bytes(b"1")
    file.write_bytes(b"1")
    found = [ClipModel(str(folder)), ClipModel(str(folder), image_size=64), ClipModel(str(folder), templates=["{}"])]
    found += [ClipModel("RN50-quickgelu", pretrained=tag) for tag in ("openai", "yfcc15m")]
    found += [ClipModel("RN50", pretrained=str(file))]
    prints = [json.dumps(model.fingerprint()) for model in found]
    (folder / "open_clip_model.safetensors").write_bytes(b"2")
    file.write_bytes(b"2")
    prints += [json.dumps(model.fingerprint()) for model in (ClipModel(str(folder)), ClipModel("RN50", str(file)))]
    assert len(set(prints)) == 8


def test_a_folder_without_its_files_is_one_line(tmp_path):
    with pytest.raises(
        AacaError, match=r"^clip\.model: .* could not be loaded \(.*expected a complete folder"
    ) as caught:
        ClipModel(str(tmp_path)).load()
    assert "\n" not in str(caught.value)


@needs_weights
@pytest.mark.parametrize("keep", [0, 1000])
def test_missing_or_damaged_weights_are_one_line(tmp_path, keep):
    (tmp_path / "open_clip_config.json").write_bytes((MODELS / "clip" / "open_clip_config.json").read_bytes())
    if keep:
        data = (MODELS / "clip" / "open_clip_model.safetensors").read_bytes()
        (tmp_path / "open_clip_model.safetensors").write_bytes(data[: len(data) - keep])
    with pytest.raises(AacaError, match=r"^clip\.model: .* could not be loaded \(") as caught:
        ClipModel(str(tmp_path)).load()
    assert "\n" not in str(caught.value)


def toy_image_text(image_size=SIZE) -> ImageText:
    torch.manual_seed(0)
    clip = toy_clip().eval()
    clip.visual.preprocess_cfg = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)}
    return ImageText(clip, SimpleTokenizer(context_length=CONTEXT), TEMPLATES, image_size)


@torch.no_grad()
def test_a_name_s_vector_is_the_mean_over_the_templates():
    clip = toy_image_text()
    found = clip.text_vectors(NAMES)
    tokenizer = SimpleTokenizer(context_length=CONTEXT)
    for row, name in enumerate(NAMES):
        said = clip.model.encode_text(tokenizer([f"a photo of {name}", f"{name} on sand"])).double().numpy()
        mean = (said / np.linalg.norm(said, axis=1, keepdims=True)).mean(axis=0)
        np.testing.assert_allclose(found[row], mean / np.linalg.norm(mean), rtol=1e-3, atol=1e-5)
    assert not np.allclose(found[0], found[1], atol=1e-2)


@torch.no_grad()
def test_as_a_classifier_it_says_the_scaled_cosines_with_the_names():
    model = ZeroShot(toy_image_text(), NAMES).eval()
    assert (model.image_size, model.mean, model.std) == (SIZE, [0.4, 0.5, 0.6], [0.2, 0.3, 0.4])
    images = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    vectors, logits = model.embed(images)
    seen = model.backbone.model.encode_image(images).double()
    cosines = F.normalize(seen, dim=1) @ torch.from_numpy(model.backbone.text_vectors(NAMES)).double().T
    scale = float(model.backbone.model.logit_scale.exp())
    np.testing.assert_allclose(logits, scale * cosines, rtol=1e-4, atol=1e-4)
    assert torch.equal(model(images), logits)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))
    assert model.backbone.head_hidden_size == vectors.shape[1]


@needs_weights
@torch.no_grad()
def test_the_embedded_model_sees_what_open_clip_sees_on_the_resized_pixels():
    found = ClipModel("embedded:clip", image_size=64, templates=TEMPLATES)
    model = ZeroShot(found.load(), NAMES).eval()
    own = open_clip.create_model(f"local-dir:{MODELS / 'clip'}").eval()
    side = own.visual.image_size if isinstance(own.visual.image_size, int) else own.visual.image_size[0]
    assert model.image_size == 64 and side == 96
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    large = resize(images, [side, side], InterpolationMode.BICUBIC, antialias=True)
    expected = F.normalize(own.encode_image(large), dim=1)
    vectors, logits = model.embed(images)
    torch.testing.assert_close(vectors, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(vectors[0], vectors[1], atol=1e-3)
    torch.testing.assert_close(model.embed(large)[0], expected, rtol=1e-4, atol=1e-5)  # the right size: as it is
    names = torch.from_numpy(model.backbone.text_vectors(NAMES))
    torch.testing.assert_close(logits, own.logit_scale.exp() * expected @ names.T, rtol=1e-3, atol=1e-3)
    assert not any(module.training for module in model.backbone.model.modules())
