"""What every rank of a test of head edits does; apart from the tests, so that a started process imports little."""

from pathlib import Path
from typing import Any

import torch

from aaca.data.module import ImageDataModule
from aaca.data.planted_features import five_classes
from aaca.data.table import ImageTable
from aaca.models.classifier import Classifier
from aaca.models.head import FeatureBank, Head
from aaca.models.timm_model import TimmModel
from aaca.runtime.ranks import current
from aaca.training.edit_head import EditRecipe, LiveImages, edit_head
from aaca.training.trainer import TrainerSpec
from tests.neuron_toys import bank_of
from tests.toys import SIZE, plain_recipe, square_table

NEURONS = {0: (1, 3), 1: (0,)}


def both(argument: dict[str, Any]) -> dict[str, Any]:
    """An edit on stored features, and one on images."""
    return {"stored": stored(), "live": live(Path(argument["data"]))}


def stored() -> dict[str, Any]:
    """All ranks take the same batches."""
    data = five_classes(0, images=40)
    head = Head(torch.randn(5, 64, generator=torch.Generator().manual_seed(0)) / 8, torch.zeros(5))
    train, val = (bank_of(split, head, data.classes) for split in (data.train, data.val))
    recipe = EditRecipe(epochs=3, batch_size=64, monitor="last", strength=0.1)
    return said(edit_head(train, val, {0: data.planted[0]}, recipe, spec(), 0))


def live(folder: Path) -> dict[str, Any]:
    """Images are shared out over ranks."""
    table = square_table(folder, 32)
    images = LiveImages(network(), table, plain_recipe().augment)
    bank = bank_under(images.classifier, table)
    recipe = EditRecipe(method="ce", epochs=3, batch_size=16 // current().world, monitor="last", features="live")
    return said(edit_head(bank, bank, NEURONS, recipe, spec(), 0, live=images))


def spec() -> TrainerSpec:
    return TrainerSpec(accelerator="cpu", devices=current().world)


def said(edited: Any) -> dict[str, Any]:
    parts = {"weight": edited.head.weight.tolist(), "bias": edited.head.bias.tolist()}
    return {**parts, "history": edited.history, "updates": edited.updates}


def network() -> Classifier:
    """A tiny ResNet; its batch norm would drift in training mode."""
    torch.manual_seed(0)
    return TimmModel("resnet18", SIZE, kwargs={"layers": [1, 1, 1, 1], "channels": [4, 4, 8, 8]}).build(2)


def bank_under(classifier: Classifier, table: ImageTable) -> FeatureBank:
    """The table's features as the classifier makes them."""
    data = ImageDataModule(SIZE, classifier.mean, classifier.std, len(table), predict=table)
    (batch,) = data.predict_dataloader()
    images, labels, _ = data.on_after_batch_transfer(batch, 0)
    training = classifier.training
    with torch.no_grad():
        features = classifier.eval().embed(images)[0]
    classifier.train(training)
    groups = table.frame["group"].to_numpy(dtype=object)
    return FeatureBank(Head.of(classifier), features, labels, table.ids, groups, table.classes)
