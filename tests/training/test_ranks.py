"""Two ranks (gloo) do what one does: same weights, same features, same metric; every id exactly once."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from aaca.data.features import FeatureStore
from aaca.models.timm_model import TimmModel
from aaca.repair.base import start_classifier
from aaca.runtime.errors import ConfigError
from aaca.training.extract import check_stochastic, extract_features
from aaca.training.fit import WEIGHTS, FitJob, fit_classifier
from aaca.training.trainer import TrainerSpec
from tests.toys import plain_recipe, square_table, tiny_vit

ONE = TrainerSpec(accelerator="cpu")
TWO = TrainerSpec(accelerator="cpu", devices=2)


def test_fit_validation_and_features_are_the_same_on_one_and_two_ranks(tmp_path):
    train, audit = square_table(tmp_path / "data", 48), square_table(tmp_path / "data", 15, "audit", seed=1)
    results = {}
    for name, spec, batch in (("one", ONE, 8), ("two", TWO, 4)):
        folder = tmp_path / name
        folder.mkdir()
        recipe = plain_recipe(batch_size=batch)
        classifier = start_classifier(tiny_vit(), 2, recipe, 0)
        job = FitJob(train, audit, recipe, spec, rule="best", epoch_size=48, seed=3, label=name)
        summary = fit_classifier(classifier, job, folder)
        store = extract_features(classifier, audit, folder / "features", spec, batch_size=4)
        results[name] = (load_file(folder / WEIGHTS), summary, store)
    (weights, summary, store), (weights2, summary2, store2) = results["one"], results["two"]
    for key in weights:
        # Adam divides by the gradient's size, so rounding shows in weights whose gradient is nearly zero
        torch.testing.assert_close(weights2[key], weights[key], rtol=1e-3, atol=2e-4)
    assert summary2["updates"] == summary["updates"] == 12
    assert summary2["metrics"]["loss"] == pytest.approx(summary["metrics"]["loss"], rel=1e-4)
    for metric in ("val/accuracy", "val/worst_group_accuracy"):
        assert summary2["metrics"][metric] == pytest.approx(summary["metrics"][metric], abs=1e-6)
    np.testing.assert_allclose(store2.logits, store.logits, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(store2.written), np.ones(15))
    np.testing.assert_array_equal(store2.scored().ids, audit.ids)


def test_features_do_not_depend_on_the_batch_size_and_stochastic_passes_need_something_stochastic(tmp_path):
    table = square_table(tmp_path / "data", 11)
    classifier = start_classifier(tiny_vit(), 2, plain_recipe(), 0)
    small = extract_features(classifier, table, tmp_path / "a", ONE, batch_size=2)
    large = extract_features(classifier, table, tmp_path / "b", ONE, batch_size=64)
    np.testing.assert_allclose(small.embeddings, large.embeddings, rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError, match=r"selector\.mc_samples"):
        check_stochastic(classifier)
    functional = TimmModel("resnet18", 32, kwargs={"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8], "drop_rate": 0.5})
    check_stochastic(functional.build(2))  # timm's ResNet drops with a function, not a layer
    dropping = start_classifier(tiny_vit(), 2, replace(plain_recipe(), drop_path=0.5), 0)
    store = extract_features(dropping, table, tmp_path / "d", ONE, batch_size=4, passes=3, seed=5)
    again = extract_features(dropping, table, tmp_path / "e", ONE, batch_size=4, passes=3, seed=5)
    assert store.passes is not None
    assert again.passes is not None
    assert store.passes.shape == (11, 3, 2)
    assert not np.allclose(store.passes[:, 0], store.passes[:, 1])
    np.testing.assert_array_equal(store.passes, again.passes)
    plain = extract_features(dropping, table, tmp_path / "f", ONE, batch_size=4)
    np.testing.assert_allclose(store.logits, plain.logits, rtol=1e-5, atol=1e-6)
    assert isinstance(store, FeatureStore)


def test_impossible_devices_name_their_key():
    with pytest.raises(ConfigError, match=r"trainer\.devices: expected at least 1"):
        TrainerSpec(devices=0)
    with pytest.raises(ConfigError, match=r"trainer\.strategy"):
        TrainerSpec(accelerator="cpu", devices=2)
