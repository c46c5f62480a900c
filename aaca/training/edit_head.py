"""`edit_head`: a bank of features, chosen neurons and a recipe in, an edited head out."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from pytorch_lightning.loggers import Logger

from aaca.data.module import ImageDataModule
from aaca.data.table import ImageTable
from aaca.data.transforms import Augment
from aaca.models.classifier import Classifier
from aaca.models.head import FeatureBank, Head
from aaca.runtime.errors import ConfigError, DataError
from aaca.training.edit_recipe import EditRecipe
from aaca.training.head_edit import Audit, HeadEdit
from aaca.training.trainer import TrainerSpec

__all__ = ["EditRecipe", "Edited", "LiveImages", "edit_head"]


@dataclass(frozen=True)
class LiveImages:
    """Images that are augmented anew each epoch, for `features: live`: rows of `table` are those of the train bank."""

    classifier: Classifier
    table: ImageTable
    augment: Augment


@dataclass(frozen=True)
class Edited:
    """The head that was kept, the epoch it is of (0: the un-edited one was best), and what every epoch came to.

    `history`: by epoch from 0 on, means over its batches (of epoch 0: over those of the train bank) of `loss` (without
    the regulariser) and `regulariser` (without its strength), and the audit figures, in [0, 1]: `accuracy`,
    `class_accuracy`, `min_class_accuracy`, and `worst_group` where groups are known. `updates`: those that were made.
    """

    head: Head
    epoch: int
    history: list[dict[str, float]]
    updates: int


def edit_head(
    train: FeatureBank,
    val: FeatureBank,
    neurons: Mapping[int, Sequence[int]],
    recipe: EditRecipe,
    trainer: TrainerSpec,
    seed: int,
    live: LiveImages | None = None,
    loggers: Sequence[Logger] = (),
) -> Edited:
    """Edit the head of `train` for the classes of `neurons` (class → its neurons), judged on `val`.

    All ranks call it. On cached features all of them take the same batches, so the result does not depend on how many
    there are; live images are shared out, `batch_size` a device, and regularisers are of a device's batch. Closed forms
    (`project`, `zero`) are epoch 1 of two and never weighed against the un-edited head. Half precision is for the
    passes of a live backbone only. Raises `ConfigError` on classes and neurons that do not exist or are missing,
    `DataError` on banks that do not fit together, `AacaError` on a loss that is not finite.
    """
    chosen = _checked(train, val, neurons, recipe)
    if not recipe.trains:
        return _closed_form(train, val, chosen, recipe)
    targets = _targets(val, chosen, recipe) if recipe.method == "retention" else {}
    loop = replace(trainer, precision="32-true").make(
        "edit", max_epochs=recipe.epochs, loggers=loggers, limit_val_batches=0
    )
    if recipe.features == "live":
        module, data = _on_images(train, val, chosen, targets, recipe, trainer, seed, live)
        with _as_it_was(live):
            loop.fit(module, datamodule=data)
    else:
        module = HeadEdit(train, val, chosen, targets, recipe, seed)
        loop.fit(module, train_dataloaders=range(1))
    return Edited(module.best, module.epoch, module.history, module.updates)


def _on_images(
    train: FeatureBank,
    val: FeatureBank,
    neurons: Mapping[int, list[int]],
    targets: Mapping[int, float],
    recipe: EditRecipe,
    trainer: TrainerSpec,
    seed: int,
    live: LiveImages | None,
) -> tuple[HeadEdit, ImageDataModule]:
    if live is None:
        raise ConfigError("repair.features: live; expected cached, as there are no images here")
    if live.table.ids.tolist() != train.ids.tolist():
        raise DataError("edit of the head: the live images are others than those of the train bank")
    classifier = live.classifier
    data = ImageDataModule(
        classifier.image_size,
        classifier.mean,
        classifier.std,
        recipe.batch_size,
        train=live.table,
        augment=live.augment,
        seed=seed,
        workers=trainer.loader_workers(live.table),
    )
    lower = {"bf16": torch.bfloat16, "16": torch.float16}.get(trainer.precision.split("-")[0])
    batches = data.batches_per_epoch(trainer.world)
    return HeadEdit(train, val, neurons, targets, recipe, seed, classifier, batches, lower), data


@contextmanager
def _as_it_was(live: LiveImages | None) -> Iterator[None]:
    # the classifier goes back to where it was, and to training if it was in training
    assert live is not None
    device, training = next(live.classifier.parameters()).device, live.classifier.training
    try:
        yield
    finally:
        live.classifier.to(device).train(training)


def _checked(
    train: FeatureBank, val: FeatureBank, neurons: Mapping[int, Sequence[int]], recipe: EditRecipe
) -> dict[int, list[int]]:
    """The neurons of each class, sorted and each once. Raises what `edit_head` does."""
    if not (torch.equal(train.head.weight, val.head.weight) and torch.equal(train.head.bias, val.head.bias)):
        raise DataError("edit of the head: the banks of train and audit images have different heads")
    if not neurons:
        raise ConfigError("repair.neurons: no class is named; expected the class whose reliance is edited")
    size, found = train.head.neurons, {}
    for label, own in neurons.items():
        if not 0 <= label < len(train.classes):
            raise ConfigError(f"repair.neurons: class {label}; expected 0…{len(train.classes) - 1}")
        if recipe.needs_neurons and not len(own):
            raise ConfigError(f"repair.neurons: none for class {train.classes[label]}; {recipe.method} expects some")
        for neuron in own:
            if not 0 <= neuron < size:
                raise ConfigError(f"repair.neurons: {neuron}; expected ids in 0…{size - 1}")
        if not bool((val.labels == label).any()):
            raise DataError(f"edit of the head: no audit image is of class {train.classes[label]}")
        found[label] = sorted({int(neuron) for neuron in own})
    if not len(train):
        raise DataError("edit of the head: the train bank is empty")
    if recipe.monitor == "worst_group" and not Audit(val, list(found)).knows_groups:
        raise DataError("repair.monitor: worst_group, but no audit image has a group; expected another monitor")
    return found


def _targets(val: FeatureBank, neurons: Mapping[int, list[int]], recipe: EditRecipe) -> dict[int, float]:
    if recipe.target != "auto":
        return {label: float(recipe.target) for label in neurons}
    mean = val.features.mean(dim=0)
    least = {label: float(val.head.importance(mean, label)[own].min()) for label, own in neurons.items()}
    return {label: 1 + (value - 1) / 3 for label, value in least.items()}


def _closed_form(train: FeatureBank, val: FeatureBank, neurons: Mapping[int, list[int]], recipe: EditRecipe) -> Edited:
    union = sorted(set().union(*neurons.values()))
    weight = train.head.weight.clone()
    weight[:, union] = weight[:, union].mean(dim=0, keepdim=True) if recipe.method == "project" else 0.0
    head, audit = Head(weight, train.head.bias.clone()), Audit(val, list(neurons))
    history = []
    for each in (train.head, head):
        loss = torch.nn.functional.cross_entropy(each.logits(train.features), train.labels)
        history.append({"loss": float(loss), "regulariser": 0.0, **audit.of(each.weight, each.bias)})
    return Edited(head, 1, history, 0)
