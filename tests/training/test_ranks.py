"""Two ranks (gloo) do what one does: same weights, same features, same metric; every id exactly once."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from aaca.data.features import FeatureStore
from aaca.models.timm_model import TimmModel
from aaca.repair.base import start_classifier
from aaca.runtime.errors import AacaError, ConfigError
from aaca.runtime.files import read_json
from aaca.runtime.launch import TreeFailed, launch
from aaca.runtime.stages import PROGRESS
from aaca.training.checkpoints import found
from aaca.training.extract import check_stochastic, extract_features
from aaca.training.fit import WEIGHTS
from aaca.training.trainer import TrainerSpec
from tests.toys import plain_recipe, square_table, tiny_vit

ONE = TrainerSpec(accelerator="cpu")


def test_fit_validation_and_features_are_the_same_on_one_and_two_ranks(tmp_path):
    audit = square_table(tmp_path / "data", 15, "audit", seed=1)
    results = {}
    for name, world in (("one", 1), ("two", 2)):
        folder = tmp_path / name
        folder.mkdir()
        argument = {"folder": str(folder), "data": str(tmp_path / "data")}
        summary = launch("tests.training.rank_tasks:fit_and_extract", argument, world)
        results[name] = (load_file(folder / WEIGHTS), summary, FeatureStore(folder / "features"))
    (weights, summary, store), (weights2, summary2, store2) = results["one"], results["two"]
    for key in weights:
        # Adam divides by the gradient's size, so rounding shows in weights whose gradient is nearly zero
        torch.testing.assert_close(weights2[key], weights[key], rtol=1e-3, atol=2e-4)
    assert len(set(summary2["parameters_sha256"])) == 1
    assert len(summary2["parameters_sha256"]) == 2
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
    with pytest.raises(ConfigError, match=r"trainer\.nodes: expected at least 1"):
        TrainerSpec(nodes=0)
    with pytest.raises(AacaError, match=r"trainer\.devices: 2 on 1 node\(s\) asked for, but 1 rank\(s\) run"):
        TrainerSpec(accelerator="cpu", devices=2).make("fit")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A fit on two ranks with batch norm, drop-path and mixing, uninterrupted."""
    root = tmp_path_factory.mktemp("whole")
    argument = {"folder": str(root), "data": str(root / "data"), "noisy": True}
    return launch("tests.training.rank_tasks:fit_and_extract", argument, 2), load_file(root / WEIGHTS)


@pytest.mark.slow
def test_a_rank_that_vanishes_ends_the_others_with_the_reason_and_the_next_start_goes_on_to_the_bit(tmp_path, whole):
    argument = {"folder": str(tmp_path), "data": str(tmp_path / "data"), "noisy": True, "every": 0}
    began = time.monotonic()
    with pytest.raises(TreeFailed, match=r"^rank 1 of 2 was ended by SIGKILL"):
        launch("tests.training.rank_tasks:fit_and_extract", {**argument, "die_at": 4}, 2)
    assert time.monotonic() - began < 60
    assert [int(file.stem) for file in found(tmp_path / PROGRESS)] == [3, 2]
    summary = launch("tests.training.rank_tasks:fit_and_extract", argument, 2)
    expected, weights = whole
    mine = load_file(tmp_path / WEIGHTS)
    for name in weights:
        assert torch.equal(mine[name], weights[name]), name
    assert summary["parameters_sha256"] == expected["parameters_sha256"]
    assert summary["metrics"] == pytest.approx(expected["metrics"], abs=0)


@pytest.mark.slow
def test_an_interrupted_feature_pass_goes_on_to_the_bit(tmp_path):
    world, rank = 2, 1
    argument = {"data": str(tmp_path / "data"), "folder": str(tmp_path / "cut")}
    with pytest.raises(TreeFailed, match="out of memory"):
        launch("tests.training.rank_tasks:passes", {**argument, "die_at": 5, "rank": rank}, world)
    note = read_json(tmp_path / "cut" / PROGRESS / f"rank-{rank}.json")
    assert note == {"batches": 4, "of": [rank, world, 2]}
    marked = np.load(tmp_path / "cut" / "logits.npy", mmap_mode="r+")
    marked[0] = 7.0  # written before the note: not computed again
    launch("tests.training.rank_tasks:passes", argument, world)
    launch("tests.training.rank_tasks:passes", {**argument, "folder": str(tmp_path / "whole")}, world)
    cut, whole = (FeatureStore(tmp_path / name).check() for name in ("cut", "whole"))
    assert (cut.logits[0] == 7.0).all()
    np.testing.assert_array_equal(cut.logits[1:], whole.logits[1:])
    np.testing.assert_array_equal(cut.embeddings, whole.embeddings)
