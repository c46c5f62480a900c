"""A classifier that is there already: ours or timm's names, every tensor accounted for, never unpickled code."""

import re

import pytest
import timm
import torch
from safetensors.torch import save_file

from aaca.models.given import check_given, load_given
from aaca.models.timm_model import TimmModel
from aaca.runtime.errors import AacaError, ConfigError

SOURCE = TimmModel("resnet18", 16, kwargs={"layers": [1, 1, 1, 1], "channels": [4, 4, 8, 8]})
CLASSES = 5


class Code:
    """Would print if it was unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return print, ("this is run",)


@pytest.fixture
def classifier():
    torch.manual_seed(3)
    return SOURCE.build(CLASSES)


@pytest.fixture
def state(classifier):
    return {name: value.contiguous() for name, value in classifier.backbone.state_dict().items()}


def same(one, other) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_our_own_weights_come_back_to_the_bit(classifier, tmp_path):
    classifier.save(tmp_path / "model.safetensors")
    torch.manual_seed(9)  # whatever the fresh layers would be
    assert same(load_given(SOURCE, CLASSES, tmp_path / "model.safetensors"), classifier)


@pytest.mark.parametrize("layout", ["safetensors", "pth", "wrapped"])
def test_timms_names_are_known(classifier, state, tmp_path, layout):
    if layout == "safetensors":
        save_file(state, file := tmp_path / "timm.safetensors")
    else:
        torch.save({"state_dict": state} if layout == "wrapped" else state, file := tmp_path / "timm.pth")
    assert same(load_given(SOURCE, CLASSES, file), classifier)


def test_a_hub_is_not_asked_for_start_weights(classifier, state, tmp_path, monkeypatch):
    save_file(state, tmp_path / "timm.safetensors")
    asked, create = [], timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *a, pretrained, **k: asked.append(pretrained) or create(*a, **k))
    hub = TimmModel("resnet18", 16, pretrained=True, kwargs=SOURCE.kwargs)
    assert same(load_given(hub, CLASSES, tmp_path / "timm.safetensors"), classifier) and asked == [False]


def test_a_missing_an_additional_and_a_misshapen_tensor_are_named(state, tmp_path):
    def refused(changed) -> str:
        save_file(changed, tmp_path / "x.safetensors")
        with pytest.raises(AacaError) as caught:
            load_given(SOURCE, CLASSES, tmp_path / "x.safetensors")
        assert "\n" not in str(caught.value) and str(tmp_path / "x.safetensors") in str(caught.value)
        return str(caught.value)

    assert "lacks fc.bias" in refused({name: value for name, value in state.items() if name != "fc.bias"})
    assert "has zebra" in refused({**state, "zebra": torch.zeros(2)})
    wide = {**state, "fc.weight": torch.zeros(7, 8), "fc.bias": torch.zeros(7)}
    assert re.search(r"fc\.bias is \(7,\); expected \(5,\) \(5 classes\)|fc\.weight is \(7, 8\)", refused(wide))


def test_files_that_are_no_weights_are_refused(state, tmp_path, capsys):
    torch.save({"state_dict": state, "more": Code()}, tmp_path / "code.pth")
    (tmp_path / "broken.safetensors").write_bytes(b"no header")
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    for name, reason in (("code.pth", "plain tensors"), ("broken.safetensors", "plain"), ("empty.pth", "no tensors")):
        with pytest.raises(AacaError, match=f"weights: .*{name}.*{reason}") as caught:
            load_given(SOURCE, CLASSES, tmp_path / name)
        assert "\n" not in str(caught.value)
    assert "this is run" not in capsys.readouterr().out


def test_a_pickle_that_is_no_mapping_is_refused(tmp_path):
    torch.save([torch.zeros(3)], tmp_path / "list.pth")
    with pytest.raises(AacaError, match=r"weights: .*list\.pth"):
        load_given(SOURCE, CLASSES, tmp_path / "list.pth")


def test_a_file_that_is_not_there_is_a_wrong_value(tmp_path):
    check_given(None)
    (tmp_path / "here").write_text("")
    check_given(str(tmp_path / "here"))
    for missing in (tmp_path / "gone", tmp_path):
        with pytest.raises(ConfigError, match=f"weights: no file {missing}; expected"):
            check_given(str(missing))
