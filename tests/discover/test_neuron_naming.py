"""Names of neurons, and neurons of names."""

import numpy as np
import pytest

from aaca.discover.neurons.naming import COLUMNS, by_clip, by_masks, neurons_for
from aaca.discover.neurons.responses import Responses
from aaca.runtime.errors import ConfigError, DataError

KINDS = {"ball": "object", "grass": "background", "sand": "background"}


def responses():
    contrast = np.array(
        [[0.1, 0.9, 0.4], [0.0, -0.2, 0.15], [0.6, 0.0, 0.6], [-0.5, -0.1, -0.3], [0.2, 0.95, 0.0]], dtype=np.float32
    )
    unknown = np.full_like(contrast, np.nan)
    return Responses(list(KINDS), unknown, unknown, contrast, np.array([5, 5, 5]))


def test_by_masks_takes_the_best_and_says_what_comes_next():
    names = by_masks(responses(), KINDS, least_score=0.3)
    assert list(names.columns) == list(COLUMNS)
    assert names["concept"].tolist() == ["grass", "", "ball", "", "grass"]
    assert names["kind"].tolist() == ["background", "", "object", "", "background"]
    assert names["second"].tolist() == ["sand", "", "sand", "", "ball"]
    np.testing.assert_allclose(names["score"], [0.9, 0.15, 0.6, 0, 0.95], atol=1e-6)
    np.testing.assert_allclose(names["second_score"], [0.4, 0, 0.6, 0, 0.2], atol=1e-6)
    np.testing.assert_allclose(names["contrast"], [0.9, 0.15, 0.6, -0.5, 0.95], atol=1e-6)
    assert by_masks(responses(), KINDS, 0.0)["concept"].tolist() == ["grass", "sand", "ball", "", "grass"]


def test_neurons_for_concepts_best_first_none_twice():
    found = responses()
    assert neurons_for(found, ["grass"], top=5, least_score=0.3) == [4, 0]
    assert neurons_for(found, ["sand", "A grass", "ball"], top=2, least_score=0.3) == [4, 0, 2]
    assert neurons_for(found, ["sand"], top=1, least_score=0.0) == [2]
    assert neurons_for(found, ["sand"], top=5, least_score=0.7) == [] == neurons_for(found, [], 5, 0.0)
    with pytest.raises(DataError, match="'gras'; nearest valid: grass"):
        neurons_for(found, ["gras"], 5, 0.0)


@pytest.mark.parametrize("judge", ["soft_wpmi", "correlation"])
def test_by_clip_finds_planted_words(judge):
    rng = np.random.default_rng(0)
    images, shown = 400, rng.random((400, 3)) < 0.4
    similarities = 0.2 + 0.1 * shown + rng.normal(0, 0.01, (images, 3))
    features = np.zeros((images, 5), dtype=np.float32)
    features[:, :3] = shown[:, [2, 0, 1]] + rng.normal(0, 0.2, (images, 3))
    features[:, 3] = features[:, 0] - 5  # negative everywhere, and the same neuron else
    names = by_clip(features, similarities, list(KINDS), list(KINDS.values()), judge, least_score=0.05)
    assert list(names.columns) == list(COLUMNS) and names["neuron"].tolist() == list(range(5))
    assert names["concept"].tolist() == ["sand", "ball", "grass", "sand", ""]  # the last one is dead
    assert names["kind"].tolist() == ["background", "object", "background", "background", ""]
    high = names["score"].max() + 1
    none = by_clip(features, similarities, list(KINDS), list(KINDS.values()), judge, least_score=high)
    assert set(none["concept"]) == {""} and np.isfinite(none["score"][:4]).all()
    with pytest.raises(ConfigError, match=r"neuron_names\.judge"):
        by_clip(features, similarities, list(KINDS), list(KINDS.values()), "wpmi")
