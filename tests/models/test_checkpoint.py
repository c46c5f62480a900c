"""Foreign checkpoints: MAE's layout loads, positions are interpolated, anything else is refused in one line."""

import logging
import math
import pickle

import pytest
import torch
from safetensors.torch import save_file

from aaca.models.checkpoint import interpolate_positions, load_checkpoint
from aaca.models.timm_model import TimmModel
from aaca.runtime.errors import AacaError

KWARGS = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}


def vit(size: int = 64, pool: str = "token", classes: int = 5):
    source = TimmModel("vit_tiny_patch16_224", image_size=size, global_pool=pool, kwargs=KWARGS)
    return source.build(classes).backbone


@pytest.fixture
def mae_file(tmp_path):
    """An MAE pre-training checkpoint's layout: {'model': encoder without head, with decoder}, 32-px grid."""
    state = {name: value + 1 for name, value in vit(size=32).state_dict().items() if not name.startswith("head.")}
    state["mask_token"] = torch.zeros(1, 1, 8)
    state["decoder_embed.weight"] = torch.zeros(8, 24)
    path = tmp_path / "mae.pth"
    torch.save({"model": state}, path)
    return path, state


def test_an_mae_checkpoint_fills_a_class_token_model(mae_file, caplog):
    path, state = mae_file
    model = vit()
    with caplog.at_level(logging.WARNING):
        report = load_checkpoint(model, path)
    assert report.missing == ["head.weight", "head.bias"]
    assert set(report.unexpected) == {"mask_token", "decoder_embed.weight"}
    assert report.interpolated == ["pos_embed"]
    assert "head.weight" in caplog.text
    torch.testing.assert_close(model.blocks[1].mlp.fc1.weight, state["blocks.1.mlp.fc1.weight"])
    torch.testing.assert_close(model.norm.weight, state["norm.weight"])
    torch.testing.assert_close(model.pos_embed[:, :1], state["pos_embed"][:, :1])
    assert model.pos_embed.shape[1] == 1 + 64
    assert 1e-5 < model.head.weight.std() < 4e-5  # truncated normal, std 2e-5
    assert (model.head.bias == 0).all()


def test_an_average_pooled_model_starts_its_own_norm(mae_file):
    model = vit(pool="avg")
    report = load_checkpoint(model, mae_file[0])
    assert set(report.missing) == {"fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias"}
    assert {"norm.weight", "norm.bias"} <= set(report.unexpected)
    assert (model.fc_norm.weight == 1).all()


def test_a_head_of_the_right_shape_is_kept_and_another_is_dropped(tmp_path):
    trained = vit(size=64)
    save_file({name: value.contiguous() for name, value in trained.state_dict().items()}, tmp_path / "a.safetensors")
    same, other = vit(size=64), vit(size=64, classes=3)
    assert load_checkpoint(same, tmp_path / "a.safetensors").missing == []
    torch.testing.assert_close(same.head.weight, trained.head.weight)
    assert load_checkpoint(other, tmp_path / "a.safetensors").missing == ["head.weight", "head.bias"]


def test_positions_are_interpolated_bicubically_with_extra_tokens_kept():
    ramp = torch.linspace(0, 1, 8).view(1, 8, 1).expand(8, 8, 1).reshape(1, 64, 1)  # rises along x
    extra = torch.full((1, 1, 1), 9.0)
    out = interpolate_positions(torch.cat([extra, ramp], dim=1), (16, 16), extra=1)
    assert out.shape == (1, 257, 1)
    assert out[0, 0, 0] == 9
    grid = out[0, 1:, 0].view(16, 16)
    torch.testing.assert_close(grid, grid[:1].expand(16, 16))  # constant along y
    for column in range(16):
        centre = (column + 0.5) / 2 - 0.5  # in old cells, half-pixel centres
        taps = range(math.floor(centre) - 1, math.floor(centre) + 3)
        expected = sum(cubic(centre - tap) * min(max(tap, 0), 7) / 7 for tap in taps)
        assert grid[0, column].item() == pytest.approx(expected, abs=1e-6)


def cubic(x: float, a: float = -0.75) -> float:
    """Keys' kernel with the a of OpenCV and torch."""
    x = abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def test_missing_blocks_wrong_shapes_and_odd_files_are_refused_in_one_line(tmp_path):
    state = vit().state_dict()
    torch.save({name: value for name, value in state.items() if "blocks.1" not in name}, tmp_path / "short.pth")
    torch.save({**state, "norm.weight": torch.ones(7)}, tmp_path / "shape.pth")
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "text.safetensors").write_text("hello")
    expected = {
        "short.pth": "lacks 12 of the model's tensors",
        "shape.pth": "norm.weight has shape (7,), expected (24,)",
        "empty.pth": "holds no tensors",
        "text.pth": "not a checkpoint",
        "text.safetensors": "not a checkpoint",
    }
    for name, said in expected.items():
        with pytest.raises(AacaError) as caught:
            load_checkpoint(vit(), tmp_path / name)
        message = str(caught.value)
        assert message.startswith("model.checkpoint: ")
        assert said in message
        assert "\n" not in message


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path):
    marker = tmp_path / "ran"

    class Bomb:
        def __reduce__(self):
            return (marker.touch, ())

    for name, payload in (("torch.pth", lambda path: torch.save({"model": Bomb()}, path)),):
        payload(tmp_path / name)
        with pytest.raises(AacaError, match="not a checkpoint of plain tensors"):
            load_checkpoint(vit(), tmp_path / name)
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(AacaError, match="not a checkpoint of plain tensors"):
        load_checkpoint(vit(), tmp_path / "raw.pth")
    assert not marker.exists()
