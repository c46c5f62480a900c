import numpy as np
import pytest
import torch

from aaca.data.planted_features import five_classes, waterbirds_like
from aaca.runtime.errors import ConfigError
from tests.neuron_toys import class_accuracy, fit_head


def splits(found):
    return found.train, found.val, found.test


@pytest.mark.parametrize("make", [five_classes, lambda seed: waterbirds_like(seed, share=0.05)])
def test_features_follow_the_seed_and_are_post_relu(make):
    first, again, other = make(3), make(3), make(4)
    assert first.planted == again.planted and first.core == again.core
    for one, same, different in zip(splits(first), splits(again), splits(other), strict=True):
        np.testing.assert_array_equal(one.features, same.features)
        np.testing.assert_array_equal(one.groups, same.groups)
        assert not np.array_equal(one.features, different.features)
        assert one.features.dtype == np.float32 and one.labels.dtype == np.int64 and one.groups.dtype == object
        assert one.features.min() == 0 and one.features.shape == (len(one.labels), 64)
    planted = [neuron for neurons in (*first.planted.values(), *first.core.values()) for neuron in neurons]
    assert len(set(planted)) == len(planted) and max(planted) < 64


def test_five_classes_show_the_cue_in_train_alone():
    found = five_classes(0)
    cue = list(found.planted[0])
    assert len(cue) == 3 and set(found.core) == set(range(5))
    assert [np.bincount(split.labels).tolist() for split in splits(found)] == [[100] * 5, [100] * 5, [500] * 5]
    for split, shown in ((found.train, True), (found.val, False), (found.test, False)):
        own = split.labels == 0
        assert set(split.groups[own]) == {"class0|cue" if shown else "class0|plain"}
        rest = split.features[~own & np.array([name.endswith("plain") for name in split.groups])][:, cue].mean()
        assert (split.features[own][:, cue].mean() > rest + 2) == shown
        assert 0 < np.mean([name.endswith("cue") for name in split.groups[~own]]) < 0.05


@pytest.mark.parametrize("seed", range(3))
def test_a_plain_head_relies_on_the_cue(seed):
    found = five_classes(seed)
    own = class_accuracy(found.test, fit_head(found.train, 5, seed), 5)
    assert 3 <= own[0] <= 20 and 48 <= np.mean(own) <= 60
    assert class_accuracy(found.train, fit_head(found.train, 5, seed), 5)[0] > 95


def test_core_neurons_carry_evidence():
    found = five_classes(0)
    for label, neurons in found.core.items():
        own = found.test.labels == label
        gap = found.test.features[own].mean(axis=0) - found.test.features[~own].mean(axis=0)
        assert set(np.argsort(-gap)[: len(neurons)]) == set(neurons)


def test_birds_have_waterbirds_numbers_and_a_worst_group():
    found = waterbirds_like(0)
    names = ("landbird|land", "landbird|water", "waterbird|land", "waterbird|water")
    counts = [[int((split.groups == name).sum()) for name in names] for split in splits(found)]
    assert counts == [[3498, 184, 56, 1057], [467, 466, 133, 133], [2255, 2255, 642, 642]]
    head = fit_head(found.train, 2, seed=0, epochs=20)
    right = head.logits(torch.from_numpy(found.test.features)).argmax(dim=1).numpy() == found.test.labels
    own = {name: 100 * right[found.test.groups == name].mean() for name in names}
    assert min(own, key=own.__getitem__) == "waterbird|land" and 50 <= own["waterbird|land"] <= 65
    water = list(found.planted[1])
    on_water = np.array([name.endswith("|water") for name in found.test.groups])
    assert found.test.features[on_water][:, water].mean() > found.test.features[~on_water][:, water].mean() + 1.5


def test_shares_scale_the_groups():
    assert len(waterbirds_like(0, share=0.1).train.labels) == 350 + 18 + 6 + 106


def test_bad_sizes_are_refused():
    with pytest.raises(ConfigError, match="33 or more"):
        five_classes(0, dim=32)
    with pytest.raises(ConfigError, match="more than 0"):
        waterbirds_like(0, share=0)
