"""Teachers: what is where in an image is there in its map, in evaluation, normalised; what is wrong is one line."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from open_clip.model import CLIP
from safetensors.torch import save_file

from aaca.models.teacher import BATCH, ClipTeacher, Teacher, TeacherSource, TimmTeacher
from aaca.runtime.cli import options
from aaca.runtime.config import identity, parse
from aaca.runtime.errors import AacaError, ConfigError
from aaca.runtime.files import canonical_json
from aaca.world.shipped import MODELS

CONF = Path(__file__).parents[2] / "conf" / "teacher"
VIT = {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
needs_weights = pytest.mark.skipif(not (MODELS / "backbone").is_dir(), reason="aaca/world/models/backbone is missing")


def pictures(n, size=32, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def clip_folder(folder: Path) -> Path:
    """A folder of open_clip's own vision transformer, 32 px in patches of 8."""
    torch.manual_seed(0)
    vision = {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8}
    text = {"context_length": 8, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1}
    config = {"model_cfg": {"embed_dim": 12, "vision_cfg": vision, "text_cfg": text}}
    config["preprocess_cfg"] = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(CLIP(12, vision, text).state_dict(), folder / "open_clip_model.safetensors")
    return folder


def without_attention(teacher: Teacher) -> Teacher:
    """Tokens that do not look at each other."""
    with torch.no_grad():
        for name, weight in teacher.network.named_parameters():
            if "attn.proj" in name or "attn.out_proj" in name:
                weight.zero_()
    return teacher


@pytest.mark.parametrize("family", ["timm", "timm, registers", "open_clip"])
@pytest.mark.parametrize(("row", "column"), [(0, 3), (2, 1)])
def test_a_change_at_one_place_is_a_change_of_its_cell_alone(family, row, column, tmp_path):
    more = {"reg_tokens": 2} if "registers" in family else {}
    timm = TimmTeacher("vit_tiny_patch16_224", 32, kwargs=VIT | more)
    source = ClipTeacher(str(clip_folder(tmp_path / "clip"))) if family == "open_clip" else timm
    teacher = without_attention(source.load())
    image = pictures(1)
    other = image.copy()
    other[0, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 255
    maps = teacher.features(np.concatenate([image, other]))
    assert maps.shape == (2, 16, 4, 4) and maps.dtype == torch.float32
    expected = torch.zeros(4, 4, dtype=torch.bool)
    expected[row, column] = True
    assert torch.equal((maps[0] != maps[1]).any(dim=0), expected)


def test_the_last_map_of_a_convolutional_network_has_the_image_s_layout():
    teacher = TimmTeacher("convnext_atto", 128, kwargs={"depths": [1] * 4, "dims": [8] * 4}).load()
    image = np.full((1, 128, 128, 3), 100, np.uint8)
    other = image.copy()
    other[0, 8:24, 104:120] = 255  # in the middle of cell (0, 3)
    maps = teacher.features(np.concatenate([image, other]))
    assert maps.shape == (2, 8, 4, 4)
    assert divmod(int((maps[0] - maps[1]).square().sum(dim=0).argmax()), 4) == (0, 3)


def test_maps_are_the_patch_tokens_after_the_last_norm():
    teacher = TimmTeacher("vit_tiny_patch16_224", 32, kwargs=VIT | {"reg_tokens": 1}).load()
    images = pictures(2)
    seen = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5  # timm's numbers for this model
    with torch.no_grad():
        tokens = teacher.network.forward_features(seen)
    assert tokens.shape[1] == 2 + 16
    torch.testing.assert_close(teacher.features(images).flatten(2).transpose(1, 2), tokens[:, 2:], atol=1e-5, rtol=0)


def test_images_are_resized_to_the_teacher_s_size_and_normalised_with_its_numbers():
    teacher = Teacher(torch.nn.Identity(), lambda network, images: network(images), 64, [0.1, 0.2, 0.3], [0.5, 1, 2])
    grey = np.full((2, 28, 28, 3), 51, np.uint8)
    expected = (0.2 - torch.tensor([0.1, 0.2, 0.3])) / torch.tensor([0.5, 1.0, 2.0])
    torch.testing.assert_close(teacher.features(grey), expected[:, None, None].expand(2, 3, 64, 64), atol=1e-5, rtol=0)
    half = np.zeros((1, 28, 28, 3), np.uint8)
    half[:, :, 14:] = 255
    red = teacher.features(half)[0, 0] * 0.5 + 0.1
    assert red.min() > -1e-6 and red.max() < 1 + 1e-6  # bicubic overshoots at an edge; a picture has no such values
    assert red[:, :31].max() < 0.2 and red[:, 33:].min() > 0.8
    for wrong in (grey[0], grey / 255, grey[:0]):
        with pytest.raises(ValueError, match=r"expected uint8 \[N, S, S, 3\]"):
            teacher.features(wrong)


def test_a_teacher_never_trains_and_looks_at_images_one_by_one():
    teacher = TimmTeacher(
        "vit_tiny_patch16_224", 16, kwargs=VIT | {"drop_path_rate": 0.5, "proj_drop_rate": 0.5}
    ).load()
    holder = torch.nn.ModuleList([teacher]).train()
    assert not any(module.training for module in teacher.modules()) and holder.training
    assert not any(weight.requires_grad for weight in teacher.parameters())
    images = pictures(BATCH + 2, 16)
    maps = teacher.features(images)
    assert maps.shape == (BATCH + 2, 16, 2, 2) and not maps.requires_grad
    torch.testing.assert_close(maps[BATCH + 1], teacher.features(images[BATCH + 1 :])[0], atol=1e-5, rtol=0)


def test_random_weights_are_always_the_same_and_draw_from_nobody():
    state = torch.random.get_rng_state()
    sources = [TimmTeacher("vit_tiny_patch16_224", 16, kwargs=VIT) for _ in range(2)]
    first, second = (source.load().features(pictures(1)) for source in sources)
    assert torch.equal(first, second) and torch.equal(state, torch.random.get_rng_state())


def test_the_released_code_s_grid_and_numbers_are_one_option_away():
    source = TimmTeacher("vit_base_patch8_224.dino", 28, kwargs=VIT, mean=[0, 0, 0], std=[1, 1, 1])
    assert source.load().features(pictures(1, 28)).shape == (1, 16, 3, 3)
    assert TimmTeacher("vit_base_patch8_224.dino").mean == [0.485, 0.456, 0.406]


@pytest.mark.parametrize("option", sorted(options("teacher")))
def test_every_option_parses_without_a_network_and_is_plain(option):
    node = yaml.safe_load((CONF / f"{option}.yaml").read_text())
    source = parse(node, TeacherSource, "teacher")
    assert " object at 0x" not in canonical_json([identity(source), source.fingerprint()])
    with pytest.raises(ConfigError, match=r"^teacher\.wings: unknown key"):
        parse({**node, "wings": 2}, TeacherSource, "teacher")


@needs_weights
def test_the_embedded_teachers_load_and_are_no_random_ones():
    tiny = parse(yaml.safe_load((CONF / "tiny.yaml").read_text()), TeacherSource, "teacher").load()
    assert tiny.features(pictures(2, 28)).shape == (2, 96, 8, 8)
    assert ClipTeacher("embedded:clip").load().features(pictures(2, 28)).shape == (2, 320, 3, 3)
    source = TimmTeacher("vit_tiny_patch16_224", 64, kwargs=VIT | {"embed_dim": 96, "depth": 4, "num_heads": 4})
    assert not torch.allclose(source.load().network.norm.weight, tiny.network.norm.weight)


def test_the_fingerprint_follows_the_weights(tmp_path):
    teacher = TimmTeacher("vit_tiny_patch16_224", 16, kwargs=VIT).load()
    file = tmp_path / "weights.safetensors"
    prints = []
    for number in (1.0, 2.0):
        teacher.network.norm.bias.data[:] = number
        save_file({name: value.contiguous() for name, value in teacher.network.state_dict().items()}, file)
        source = TimmTeacher("vit_tiny_patch16_224", 16, str(file), kwargs=VIT)
        prints.append(canonical_json(source.fingerprint()))
        assert source.load().network.norm.bias[0] == number
    prints.append(canonical_json(TimmTeacher("vit_tiny_patch16_224", 24, str(file), kwargs=VIT).fingerprint()))
    assert len(set(prints)) == 3


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (
            lambda: TimmTeacher("vit_base_patch8_224.dina"),
            r"^teacher\.name: timm has no weights .*: vit_base_patch8_224\.dino",
        ),
        (lambda: TimmTeacher("vit_bass_patch8_224"), r"^teacher\.name: timm has no model .*nearest valid: vit_base"),
        (
            lambda: TimmTeacher("resnet18", checkpoint="/none/model.name"),
            r"^teacher\.checkpoint: no file /none/model\.n",
        ),
        (lambda: TimmTeacher("resnet18", checkpoint="embedded:bone"), r"^teacher\.checkpoint: no embedded model"),
        (lambda: TimmTeacher("resnet18", 4), r"^teacher\.image_size: expected 8"),
        (lambda: ClipTeacher("RN51", "openai"), r"^teacher\.model: no folder or model 'RN51'; nearest valid: .*RN50"),
        (lambda: ClipTeacher("RN50"), r"^teacher\.pretrained: missing for RN50; valid: openai"),
        (lambda: TimmTeacher("resnet18", 32, kwargs={"wings": 2}).load(), r"^teacher: timm cannot build 'resnet18'"),
        (
            lambda: TimmTeacher("resnet18", 32).load(),
            r"^teacher\.name: resnet18 gives a map \(512, 1, 1\) of images of",
        ),
        (lambda: TimmTeacher("crossvit_9_240", 240).load(), r"^teacher\.name: crossvit_9_240 gives no feature maps \("),
    ],
)
def test_what_is_wrong_is_one_line_with_the_teacher_s_own_keys(make, line):
    with pytest.raises(AacaError, match=line) as caught:
        make()
    assert "\n" not in str(caught.value)
