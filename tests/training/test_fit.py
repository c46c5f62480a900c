"""Training runs: they learn, repeat bit by bit, choose the weights asked for, and stop at a loss that is not finite."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from aaca.models.classifier import Classifier
from aaca.repair.base import start_classifier
from aaca.runtime.errors import AacaError, ConfigError
from aaca.training.fit import WEIGHTS, FitJob, fit_classifier
from aaca.training.trainer import TrainerSpec
from tests.toys import plain_recipe, square_table, tiny_vit

CPU = TrainerSpec(accelerator="cpu")


@pytest.fixture
def job(tmp_path):
    train, audit = square_table(tmp_path / "data", 48), square_table(tmp_path / "data", 15, "audit", seed=1)
    recipe = plain_recipe(epochs=6)
    return FitJob(train, audit, recipe, CPU, rule="last", epoch_size=48, seed=3, label="test")


def fit(job: FitJob, folder: Path, seed: int = 0) -> tuple[Classifier, dict[str, Any]]:
    folder.mkdir()
    classifier = start_classifier(tiny_vit(), 2, job.recipe, seed)
    return classifier, fit_classifier(classifier, job, folder)


def test_it_learns_and_writes_weights_and_a_summary(job, tmp_path):
    classifier, summary = fit(job, tmp_path / "a")
    assert summary["metrics"]["val/accuracy"] >= 14 / 15
    assert summary["updates"] == 6 * 6
    assert json.loads((tmp_path / "a" / "fit.json").read_text()) == summary
    saved = load_file(tmp_path / "a" / WEIGHTS)
    for name, value in classifier.state_dict().items():
        torch.testing.assert_close(saved[name], value, rtol=0, atol=0)


def test_the_same_seed_gives_the_same_bits_and_another_does_not(job, tmp_path):
    weights = [load_file(_fitted(job, tmp_path / name, seed)) for name, seed in (("a", 0), ("b", 0), ("c", 1))]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not all(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


def _fitted(job: FitJob, folder: Path, seed: int) -> Path:
    fit(job, folder, seed)
    return folder / WEIGHTS


def test_best_keeps_the_weights_of_the_best_epoch(job, tmp_path, monkeypatch):
    """Validation accuracy is made to peak at epoch 2: the weights must be those after epoch 2, not the last."""
    snapshots: list[dict[str, torch.Tensor]] = []
    accuracies = iter([0.3, 0.5, 0.9, 0.9, 0.4, 0.1])

    def pretend(self) -> None:
        snapshots.append({name: value.clone() for name, value in self.classifier.state_dict().items()})
        self.metric.reset()
        self.log("val/accuracy", next(accuracies))

    monkeypatch.setattr("aaca.training.finetune.FineTune.on_validation_epoch_end", pretend)
    classifier, _ = fit(replace(job, rule="best"), tmp_path / "a")
    state = classifier.state_dict()
    assert all(torch.equal(state[name], snapshots[2][name]) for name in state)
    assert not all(torch.equal(state[name], snapshots[5][name]) for name in state)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_images(job, tmp_path):
    classifier = start_classifier(tiny_vit(), 2, job.recipe, 0)
    with torch.no_grad():
        classifier.head.bias[0] = float("nan")
    with pytest.raises(AacaError, match=r"loss is nan at epoch 0, batch 0 \(training rows \[\d+, .*nothing was saved"):
        fit_classifier(classifier, job, tmp_path)
    assert not (tmp_path / WEIGHTS).exists()


def test_more_than_one_batch_a_device_is_needed(job, tmp_path):
    with pytest.raises(
        ConfigError, match=r"recipe\.batch_size: 64 .* exceed the 48 training images; expected at most 48"
    ):
        fit(replace(job, recipe=plain_recipe(batch_size=64)), tmp_path / "a")


@pytest.mark.parametrize("strict", [True, False])
def test_accumulation_leaves_out_or_keeps_the_last_micro_batches(job, tmp_path, strict):
    recipe = plain_recipe(epochs=2, accumulate=4, strict_accumulation=strict)
    _, summary = fit(replace(job, recipe=recipe), tmp_path / "a")
    assert summary["updates"] == (2 * 1 if strict else 2 * 2)  # 6 micro-batches an epoch


def test_mixing_smoothing_erasing_and_clipping_train_too(job, tmp_path):
    from aaca.data.transforms import TimmAugment

    recipe = plain_recipe(
        augment=TimmAugment(), epochs=1, warmup_epochs=0, mixup=0.8, cutmix=1.0, smoothing=0.1, clip_grad=1.0
    )
    _, summary = fit(replace(job, recipe=recipe), tmp_path / "a")
    assert 0 < summary["metrics"]["loss"] < 2


def test_mixed_targets_sum_to_one_and_carry_the_smoothing():
    from timm.data import Mixup

    images, labels = torch.rand(8, 3, 16, 16), torch.arange(8) % 4
    _, targets = Mixup(0.8, 1.0, label_smoothing=0.1, num_classes=4)(images, labels)
    torch.testing.assert_close(targets.sum(1), torch.ones(8))
    assert targets.min() >= 0.1 / 4 - 1e-6
