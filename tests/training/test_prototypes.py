"""Prototypes: class means and K-means, the slow mix, checkpoints."""

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from aaca.runtime.errors import ConfigError, DataError
from aaca.training.prototypes import PrototypeBank


def draw(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(40, 5, generator=generator), torch.arange(40) % 2


def test_one_prototype_is_the_class_s_mean():
    values, labels = draw()
    bank = PrototypeBank(2, 5, k=1)
    bank.refresh(values, labels)
    for label in (0, 1):
        torch.testing.assert_close(bank.prototypes[label, 0], values[labels == label].mean(dim=0))


def test_centres_are_those_of_k_means():
    values, labels = draw()
    bank = PrototypeBank(2, 5, k=3)
    bank.refresh(values, labels)
    expected = KMeans(3, n_init=1, random_state=0).fit(values[labels == 1].double().numpy()).cluster_centers_
    np.testing.assert_allclose(bank.prototypes[1], expected, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_a_refresh_mixes(alpha):
    (first, labels), (second, _) = draw(), draw(1)
    bank, fresh = PrototypeBank(2, 5, k=2, alpha=alpha), PrototypeBank(2, 5, k=2)
    bank.refresh(first, labels)
    old = bank.prototypes.clone()
    bank.refresh(second, labels)
    fresh.refresh(second, labels)
    torch.testing.assert_close(bank.prototypes, (1 - alpha) * old + alpha * fresh.prototypes)


def test_a_checkpoint_carries_them():
    values, labels = draw()
    bank, other = PrototypeBank(2, 5, k=2), PrototypeBank(2, 5, k=2)
    bank.refresh(values, labels)
    other.load_state_dict(bank.state_dict())
    torch.testing.assert_close(other.prototypes, bank.prototypes)
    other.refresh(*draw(1))  # filled is carried, too: this mixes and does not replace
    assert bool(other.filled) and not torch.allclose(other.prototypes, bank.prototypes)
    fresh = PrototypeBank(2, 5, k=2)
    fresh.refresh(*draw(1))
    assert not torch.allclose(other.prototypes, fresh.prototypes)


def test_what_makes_no_sense_is_one_line():
    with pytest.raises(ConfigError, match=r"repair\.prototypes: 0"):
        PrototypeBank(2, 5, k=0)
    with pytest.raises(ConfigError, match=r"repair\.alpha: 1\.5"):
        PrototypeBank(2, 5, alpha=1.5)
    with pytest.raises(DataError, match=r"repair\.prototypes: 21, but class 0 has 20 images"):
        PrototypeBank(2, 5, k=21).refresh(*draw())
