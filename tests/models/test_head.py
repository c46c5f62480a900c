"""A head apart from its network: the same logits, put back to the bit; a bank refuses features of another model."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from aaca.data.features import Scored
from aaca.data.table import ImageTable
from aaca.models.classifier import Classifier
from aaca.models.head import FeatureBank, Head
from aaca.models.timm_model import TimmModel
from aaca.runtime.errors import AacaError, DataError

MODELS = (
    ("resnet18", 32, {}),
    ("vit_tiny_patch16_224", 32, {"depth": 2}),
    ("mobilenetv3_small_050", 32, {}),
    ("efficientnet_b0", 32, {}),
    ("convnext_atto", 32, {}),
)


def built(name: str = "resnet18", size: int = 16, classes: int = 5, seed: int = 0, **kwargs: object) -> Classifier:
    torch.manual_seed(seed)
    small = {"layers": [1, 1, 1, 1], "channels": [4, 4, 8, 8]} if name == "resnet18" and not kwargs else {}
    return TimmModel(name, size, kwargs={**small, **kwargs}).build(classes).eval()


def head_of(classes: int = 3, neurons: int = 7, seed: int = 0) -> Head:
    drawn = torch.Generator().manual_seed(seed)
    return Head(torch.randn(classes, neurons, generator=drawn), torch.randn(classes, generator=drawn))


def table_of(n: int = 12, classes: int = 3) -> ImageTable:
    frame = pd.DataFrame(
        {
            "id": [f"audit/{row}" for row in range(n)],
            "label": np.arange(n) % classes,
            "split": "audit",
            "group": [f"group {row % 2}" for row in range(n)],
            "source": [str(row) for row in range(n)],
            "path": "audit.npy",
            "row": np.arange(n),
        }
    )
    return ImageTable.build(frame, [f"class{label}" for label in range(classes)], ".")


def scored_of(table: ImageTable, head: Head, logits: torch.Tensor | None = None) -> Scored:
    features = torch.randn(len(table), head.neurons, generator=torch.Generator().manual_seed(1))
    logits = head.logits(features) if logits is None else logits
    return Scored.of(table.ids, table.labels, features.numpy(), logits.numpy())


@pytest.mark.parametrize(("name", "size", "kwargs"), MODELS)
def test_the_head_on_the_features_is_the_model(name, size, kwargs):
    classifier = built(name, size, **kwargs)
    images = torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(2))
    head = Head.of(classifier)
    with torch.no_grad():
        features, whole = classifier.embed(images)[0], classifier(images)
    assert features.shape[1] == head.neurons == classifier.head.in_features
    torch.testing.assert_close(head.logits(features), whole, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(head.logits(features.flip(1)), whole, rtol=1e-4, atol=1e-6)  # it can tell


def test_what_a_neuron_is_may_differ_from_what_pooling_gives():
    backbone = built("mobilenetv3_small_050", 32).backbone
    assert backbone.num_features != backbone.head_hidden_size == Head.of(built("mobilenetv3_small_050", 32)).neurons


def test_a_head_is_a_copy_and_put_back_to_the_bit():
    classifier = built()
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    head = Head.of(classifier)
    head.weight.add_(1), head.bias.sub_(1)
    assert torch.equal(classifier.head.weight, before["backbone.fc.weight"])  # its own memory
    head.put(classifier)
    assert torch.equal(classifier.head.weight, head.weight) and torch.equal(classifier.head.bias, head.bias)
    changed = {name for name, value in classifier.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"backbone.fc.weight", "backbone.fc.bias"}
    assert classifier.head.weight.requires_grad and not head.weight.requires_grad


def test_a_head_of_half_precision_is_taken_as_float32():
    classifier = built()
    classifier.head.to(torch.bfloat16)
    head = Head.of(classifier)
    assert head.weight.dtype == head.bias.dtype == torch.float32
    head.put(classifier)
    assert classifier.head.weight.dtype == torch.bfloat16


def test_a_head_without_bias_has_a_bias_of_zero_and_takes_no_other():
    classifier = built()
    classifier.backbone.fc = torch.nn.Linear(8, 5, bias=False)
    head = Head.of(classifier)
    assert head.bias.tolist() == [0.0] * 5
    replace(head, weight=head.weight * 2).put(classifier)
    assert torch.equal(classifier.head.weight, 2 * head.weight)
    with pytest.raises(AacaError, match="head without bias"):
        replace(head, bias=torch.ones(5)).put(classifier)
    assert torch.equal(classifier.head.weight, 2 * head.weight)  # nothing half done


def test_a_head_that_is_not_one_linear_layer_is_refused():
    classifier = built()
    classifier.backbone.fc = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 5))
    with pytest.raises(AacaError, match="inputs of a linear head, and this model has a Sequential"):
        Head.of(classifier)
    with pytest.raises(AacaError, match="Sequential"):
        head_of(5, 8).put(classifier)
    classifier.backbone.fc = torch.nn.Identity()
    with pytest.raises(AacaError, match="Identity"):
        Head.of(classifier)


def test_importance_by_hand():
    head = Head(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(2))
    mean = torch.tensor([math.log(3.0), 0.0])  # logits (log 3, 0): p = (3/4, 1/4); without neuron 0: 1/2 each
    assert head.importance(mean, 0).tolist() == pytest.approx([1.5, 1.0])
    assert head.importance(mean, 1).tolist() == pytest.approx([0.5, 1.0])


def test_a_bank_is_what_the_store_and_the_table_say():
    table, head = table_of(), head_of()
    scored = scored_of(table, head)
    bank = FeatureBank.of(scored, table, head)
    assert len(bank) == 12 and bank.classes == table.classes and bank.groups.tolist() == ["group 0", "group 1"] * 6
    assert torch.equal(bank.features, torch.from_numpy(scored.embeddings)) and bank.labels.dtype == torch.int64
    said = scored.logits.argmax(axis=1)
    assert bank.predictions.tolist() == said.tolist()
    for label in range(3):
        wrong = [row for row in range(12) if row % 3 == label and said[row] != label]
        assert bank.mistakes(label).tolist() == wrong
    part = bank.take(torch.tensor([5, 2]))
    assert part.ids.tolist() == ["audit/5", "audit/2"] and part.labels.tolist() == [2, 2]
    assert part.groups.tolist() == ["group 1", "group 0"] and torch.equal(part.features, bank.features[[5, 2]])
    other = bank.with_head(Head(torch.zeros(3, 7), torch.tensor([0.0, 1.0, 0.0])))
    assert other.predictions.tolist() == [1] * 12 and bank.predictions.tolist() == said.tolist()


def test_a_bank_refuses_what_does_not_fit():
    table, head = table_of(), head_of()
    scored = scored_of(table, head)
    with pytest.raises(DataError, match="of other images than the table's"):
        FeatureBank.of(scored, table.take(np.arange(12)[::-1].copy()), head)
    with pytest.raises(DataError, match="of other images than the table's"):
        FeatureBank.of(scored, table.take(np.arange(11)), head)
    with pytest.raises(DataError, match="7 features an image, the head takes 8"):
        FeatureBank.of(scored, table, head_of(3, 8))
    with pytest.raises(DataError, match="of another model"):
        FeatureBank.of(scored, table, head_of(seed=1))
    with pytest.raises(DataError, match="of another model"):
        FeatureBank.of(scored, table, replace(head, bias=head.bias.flip(0)))


def test_logits_of_half_precision_are_accepted():
    table, head = table_of(), head_of()
    exact = scored_of(table, head)
    features = torch.from_numpy(exact.embeddings).bfloat16()
    logits = (features @ head.weight.bfloat16().T + head.bias.bfloat16()).float()  # as a backbone in bf16 would
    assert float((logits - torch.from_numpy(exact.logits)).abs().max()) > 1e-3  # not the same
    bank = FeatureBank.of(scored_of(table, head, logits), table, head)
    torch.testing.assert_close(bank.logits, torch.from_numpy(exact.logits))


def test_a_bank_of_no_images():
    table, head = table_of(), head_of()
    empty = table.take(np.zeros(0, dtype=np.int64))
    bank = FeatureBank.of(scored_of(empty, head), empty, head)
    assert len(bank) == 0 and bank.mistakes(0).tolist() == []
