"""The judge: probabilities of class, ground and co-object, the same after a round trip in half precision."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from aaca.models.judge import ASPECTS, NOTHING, Judge
from aaca.world.pack import load_pack


@pytest.fixture(scope="module")
def judge():
    torch.manual_seed(0)
    return Judge().eval()


def pictures(n, size):
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def test_its_choices_are_the_pack_s_labels_and_nothing():
    assert ASPECTS["class"] == load_pack().classes and ASPECTS["scene"] == load_pack().labels("scene")
    assert set(ASPECTS["concept"]) == {*load_pack().labels("concept"), NOTHING}


@pytest.mark.parametrize("size", [64, 96])
@torch.no_grad()
def test_verdicts_are_the_softmax_of_what_it_sees(judge, size):
    images = pictures(5, size)
    verdicts = judge.verdicts(images, batch_size=2)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).double() / 255 * 2 - 1
    large = F.interpolate(pixels, size=96, mode="bicubic", antialias=True) if size != 96 else pixels
    logits = judge(large.float())
    for name, choices in ASPECTS.items():
        assert verdicts[name].shape == (5, len(choices))
        np.testing.assert_allclose(verdicts[name].sum(axis=1), 1, rtol=1e-5)
        odds = np.exp(logits[name].double().numpy())
        np.testing.assert_allclose(verdicts[name], odds / odds.sum(axis=1, keepdims=True), rtol=1e-3, atol=1e-5)
    assert np.abs(verdicts["class"] - verdicts["class"][:1]).max() > 1e-4  # it does look


def test_a_judge_in_half_precision_says_the_same(judge, tmp_path):
    for module in judge.modules():  # as after training: statistics that are not where they began
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            module.running_mean.add_(0.01 * torch.randn_like(module.running_mean))
    halves = {name: value.half() if value.is_floating_point() else value for name, value in judge.state_dict().items()}
    save_file(halves, tmp_path / "judge.safetensors")
    loaded = Judge.load(tmp_path)
    assert not loaded.training and {weight.dtype for weight in loaded.parameters()} == {torch.float32}
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, halves[name].float() if value.is_floating_point() else halves[name]), name
    images = pictures(4, 64)
    for name, probabilities in judge.verdicts(images).items():
        np.testing.assert_allclose(loaded.verdicts(images)[name], probabilities, atol=0.01)
