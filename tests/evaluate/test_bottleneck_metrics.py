"""Classes and metrics of sparse probes against loops over images, classes and concepts."""

from fractions import Fraction

import numpy as np
import pytest
from scipy.sparse import csr_array

from aaca.evaluate import bottleneck
from aaca.evaluate.bottleneck import (
    accuracy_at_nec,
    anec,
    coverage,
    folded,
    group_outcome,
    logits_of,
    ncc,
    nec,
    truncated,
    zero_counts,
)
from aaca.runtime.errors import ConfigError, DataError

N, H, C = 60, 40, 5


@pytest.fixture
def toy():
    rng = np.random.default_rng(0)
    codes = (rng.random((N, H)) * (rng.random((N, H)) < 0.2)).astype(np.float32)
    codes[3] = 0  # an image without any concept
    weight = (rng.normal(size=(C, H)) * (rng.random((C, H)) < 0.5)).astype(np.float32)
    return codes, weight


def count(parts, share):
    """Concepts one by one, the largest first, until the share is reached, in exact fractions."""
    parts = sorted((Fraction(float(part)) for part in parts), reverse=True)
    total, sum_, number = sum(parts), Fraction(0), 0
    for part in parts:
        if sum_ >= Fraction(str(share)) * total:
            break
        sum_, number = sum_ + part, number + 1
    return number


@pytest.mark.parametrize("share", [0.5, 0.9, 0.95, 1.0])
@pytest.mark.parametrize("entries", [1 << 22, 300])
def test_ncc_equals_a_loop(toy, share, entries, monkeypatch):
    monkeypatch.setattr(bottleneck, "ENTRIES", entries)  # one chunk; many, the last one shorter
    codes, weight = toy
    loop = np.mean([[count(np.abs(row.astype(np.float64) * own), share) for own in weight] for row in codes])
    assert ncc(codes, weight, share) == pytest.approx(loop, abs=1e-12)
    assert ncc(csr_array(codes), weight, share) == pytest.approx(loop, abs=1e-12)


@pytest.mark.parametrize("kind", ["positive", "absolute"])
@pytest.mark.parametrize("share", [0.9, 0.95, 0.99])
@pytest.mark.parametrize("entries", [1 << 22, 100])
def test_coverage_equals_a_loop(toy, kind, share, entries, monkeypatch):
    monkeypatch.setattr(bottleneck, "ENTRIES", entries)
    codes, weight = toy
    bias = np.linspace(-1, 1, C).astype(np.float32)
    shape = np.abs if kind == "absolute" else (lambda parts: np.maximum(parts, 0))
    for own_bias in (None, bias):
        classes = (codes @ weight.T + (0 if own_bias is None else own_bias)).argmax(axis=1)
        loop = np.mean([count(shape(row * weight[own]), share) for row, own in zip(codes, classes, strict=True)])
        assert coverage(codes, weight, share, kind, bias=own_bias) == pytest.approx(loop, abs=1e-12)
        assert coverage(csr_array(codes), weight, share, kind, bias=own_bias) == pytest.approx(loop, abs=1e-12)
    labels = np.arange(N) % C
    loop = np.mean([count(shape(row * weight[own]), share) for row, own in zip(codes, labels, strict=True)])
    assert coverage(csr_array(codes), weight, share, kind, by=labels) == pytest.approx(loop, abs=1e-12)


def test_one_concept_counts_one_and_equal_ones_count_exactly():
    one = np.eye(3, dtype=np.float32)
    assert coverage(csr_array(one), np.ones((2, 3), np.float32), 0.9) == 1
    assert ncc(one, np.ones((2, 3), np.float32)) == 1
    equal = np.full((1, 20), 0.1, np.float32)
    assert ncc(equal, np.ones((1, 20), np.float32), 0.95) == 19
    assert ncc(csr_array(equal), np.ones((1, 20), np.float32), 1.0) == 20
    assert ncc(csr_array((4, 20), dtype=np.float32), np.ones((1, 20), np.float32)) == 0


def test_truncation_keeps_exactly_the_largest(toy):
    _, weight = toy
    for target in (1, 2.2, 7):
        cut = truncated(weight, target)
        assert nec(cut) == target
        assert (cut[cut != 0] == weight[cut != 0]).all()
        assert np.abs(weight[(cut == 0) & (weight != 0)]).max() <= np.abs(cut[cut != 0]).min()
    ties = np.ones((2, 6), np.float32)
    assert np.count_nonzero(truncated(ties, 2)) == 4
    assert nec(truncated(weight, nec(weight))) == nec(weight)
    with pytest.raises(DataError, match="NEC 39"):
        truncated(weight, 39)


def test_accuracy_at_nec_takes_the_first_probe_dense_enough(toy):
    codes, weight = toy
    rng = np.random.default_rng(1)
    path = [truncated(weight, target) for target in (1, 4, 9)]
    path[2] = -path[2]  # tells which one was taken
    biases = [rng.normal(size=C).astype(np.float32) for _ in path]
    labels = rng.integers(0, C, N)
    mean, scale = codes.mean(axis=0), codes.std(axis=0) + 0.1
    for sparse in (codes, csr_array(codes)):
        found = accuracy_at_nec(path, biases, sparse, labels, (3, 4, 5), mean, scale)
        for target, place in ((3, 1), (4, 1), (5, 2)):
            logits = (codes - mean) / scale @ truncated(path[place], target).T + biases[place]
            assert found[target] == (logits.argmax(axis=1) == labels).mean()
    assert anec(found) == pytest.approx(sum(found.values()) / 3)
    with pytest.raises(DataError, match="NEC 10: the densest of 3 probes has 9"):
        accuracy_at_nec(path, biases, codes, labels, (10,))


def test_folded_weights_give_the_same_logits(toy):
    codes, weight = toy
    mean, scale = codes.mean(axis=0), codes.std(axis=0) + 0.1
    for bias in (None, np.arange(C, dtype=np.float32)):
        expected = (codes - mean) / scale @ weight.T + (0 if bias is None else bias)
        np.testing.assert_allclose(logits_of(csr_array(codes), *folded(weight, bias, mean, scale)), expected, atol=1e-4)


def test_group_outcome_is_that_of_a_loop(toy, monkeypatch):
    monkeypatch.setattr(bottleneck, "CHUNK", 7)  # many chunks, the last not full
    dense, weight = (part.astype(np.float64) for part in toy)
    labels = np.random.default_rng(4).integers(0, C, N)
    groups = np.random.default_rng(5).choice([0, 1, 3], N)
    bias = np.array([0.3, 0, 0, -9, 0])
    right = [int((dense[i] @ weight.T + bias).argmax() == labels[i]) for i in range(N)]
    found = group_outcome(csr_array(toy[0]), weight, bias, labels, groups)
    own = {group: [right[i] for i in range(N) if groups[i] == group] for group in (0, 1, 3)}
    shares = {group: sum(values) / len(values) for group, values in own.items()}
    assert found["accuracy"] == pytest.approx(sum(right) / N)
    assert found["worst_group_accuracy"] == pytest.approx(min(shares.values()))
    assert found["worst_group"] == min(shares, key=shares.get)
    assert found["balanced_accuracy"] == pytest.approx(sum(shares.values()) / 3)
    assert found["per_group_n"] == [len(own.get(group, ())) for group in range(4)] and np.isnan(found["per_group"][2])


def test_zeros_are_counted_by_threshold():
    weight = np.array([[0.0, 1e-10, -1e-7, 1e-4], [0.01, -0.5, 0, 2]])
    assert zero_counts(weight) == {0: 2, 1e-9: 3, 1e-6: 4, 1e-3: 5, 1e-1: 6}


def test_wrong_values_are_named(toy):
    codes, weight = toy
    with pytest.raises(ConfigError, match="share: 0"):
        ncc(codes, weight, 0)
    with pytest.raises(ConfigError, match=r"coverage\.kind"):
        coverage(codes, weight, 0.9, "negative")
    with pytest.raises(DataError, match="40 concepts"):
        ncc(codes[:, 1:], weight)
    with pytest.raises(DataError, match="39 concepts"):
        logits_of(codes[:, 1:], weight, None)
