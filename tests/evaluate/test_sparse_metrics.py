"""Metrics of sparse codes: streamed sums equal whole-array formulas; dictionary recovery against brute force."""

from itertools import permutations

import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score

from aaca.evaluate.sparse import DENSITY_EDGES, SparseMetrics, mcc, mmcs, recovered_share, uniqueness
from aaca.runtime.errors import DataError

N, D, H = 157, 12, 30


def rows(seed=0, offset=3.0):
    """(x, x_hat, codes): embeddings off centre, biased reconstructions, latents 0-4 dead."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(N, D, generator=generator) + offset
    x_hat = 0.8 * x + 0.3 * torch.randn(N, D, generator=generator) + 0.1
    codes = torch.relu(torch.randn(N, H, generator=generator) - 1)
    codes[:, :5] = 0
    return x, x_hat, codes


def streamed(parts, batch=20):
    x, x_hat, codes = parts
    metric = SparseMetrics(x.shape[1], codes.shape[1])
    for start in range(0, len(x), batch):
        metric.update(*(part[start : start + batch] for part in (x, x_hat, codes)))
    return metric.compute()


@pytest.mark.parametrize("batch", [1, 20, 1000])
@pytest.mark.parametrize("offset", [0.0, 3.0, 1000.0])
def test_streamed_sums_equal_the_whole_array(batch, offset):
    parts = rows(offset=offset)
    found = streamed(parts, batch)
    x, x_hat, codes = (part.numpy().astype(np.float64) for part in parts)
    error, fires = ((x - x_hat) ** 2).sum(), codes > 0
    fvu = error / ((x - x.mean(axis=0)) ** 2).sum()
    lengths, rebuilt = np.linalg.norm(x, axis=1), np.linalg.norm(x_hat, axis=1)
    expected = {
        "n": N,
        "l0_mean": fires.sum(axis=1).mean(),
        "l0_median": np.median(fires.sum(axis=1)),
        "fvu": fvu,
        "explained_variance": r2_score(x, x_hat, multioutput="variance_weighted"),
        "normalised_mse": error / (x**2).sum(),
        "cosine": ((x * x_hat).sum(axis=1) / lengths / rebuilt).mean(),
        "shrinkage": (rebuilt / lengths).mean(),
        "dead_share": 5 / H,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-8)
    np.testing.assert_array_equal(found["density"], fires.mean(axis=0))
    assert found["density_counts"].sum() == H - 5
    live = np.log10(fires.mean(axis=0)[5:])
    np.testing.assert_array_equal(found["density_counts"], np.histogram(live, DENSITY_EDGES)[0])


def test_fvu_is_not_the_mean_of_batch_ratios():
    x, x_hat, codes = rows()
    x[:20] *= 10  # one batch varies far more than the others
    whole = streamed((x, x_hat, codes))["fvu"]
    ratios = [streamed((x[s : s + 20], x_hat[s : s + 20], codes[s : s + 20]))["fvu"] for s in range(0, N, 20)]
    assert whole == pytest.approx(1 - r2_score(x.numpy(), x_hat.numpy(), multioutput="variance_weighted"), rel=1e-5)
    assert abs(np.mean(ratios) - whole) > 0.1


def test_perfect_mean_and_zero_reconstructions():
    x, _, codes = rows()
    perfect, mean = streamed((x, x, codes)), streamed((x, x.mean(dim=0).expand_as(x), codes))
    assert (perfect["fvu"], perfect["explained_variance"], perfect["normalised_mse"]) == (0, 1, 0)
    assert (perfect["cosine"], perfect["shrinkage"]) == pytest.approx((1, 1))
    assert mean["fvu"] == pytest.approx(1, rel=1e-6)
    zero = streamed((x, torch.zeros_like(x), codes))
    assert (zero["cosine"], zero["shrinkage"]) == (0, 0) and zero["normalised_mse"] == pytest.approx(1)


@pytest.mark.parametrize("value", [0.0, 0.1, 0.3, 1e-3, 777.7])
def test_embeddings_that_do_not_vary_have_no_fvu(value):
    _, x_hat, codes = rows()
    for n in (3, 7, 100, N):  # what rounding leaves of the variance has either sign
        found = streamed((torch.full((n, D), value, dtype=torch.float64), x_hat[:n], codes[:n]), batch=3)
        assert np.isnan(found["fvu"]) and np.isnan(found["explained_variance"])


def test_rows_of_zero_have_no_direction():
    x, x_hat, codes = rows()
    padded = (torch.cat([x, torch.zeros(3, D)]), torch.cat([x_hat, x_hat[:3]]), torch.cat([codes, codes[:3]]))
    plain, more = streamed((x, x_hat, codes)), streamed(padded)
    assert (more["cosine"], more["shrinkage"]) == pytest.approx((plain["cosine"], plain["shrinkage"]))


@pytest.mark.parametrize("n", [1, 4, 5])
def test_the_median_is_numpys(n):
    codes = torch.zeros(n, 9)
    for row in range(n):
        codes[row, : (row * row) % 9] = 1
    assert streamed((torch.ones(n, 2), torch.ones(n, 2), codes))["l0_median"] == np.median((codes > 0).sum(1).numpy())


def test_half_precision_is_summed_in_float64():
    x, x_hat, codes = (part.half() for part in rows(offset=60.0))
    found = streamed((x, x_hat, codes))
    exact = streamed((x.double(), x_hat.double(), codes))
    assert {name: found[name] for name in ("fvu", "cosine")} == pytest.approx(
        {name: exact[name] for name in ("fvu", "cosine")}, rel=1e-12
    )


def test_two_halves_add_up_to_the_whole():
    # what a gathering of two processes does: every state is a sum
    parts = rows()
    halves = [SparseMetrics(D, H), SparseMetrics(D, H)]
    for metric, part in zip(halves, (slice(0, 60), slice(60, N)), strict=True):
        metric.update(*(value[part] for value in parts))
    both = SparseMetrics(D, H)
    both.update(*(value[:0] for value in parts))
    for name in both._reductions:
        assert both._reductions[name] is torch.sum or both._reductions[name].__name__ == "dim_zero_sum"
        setattr(both, name, sum(getattr(metric, name) for metric in halves))
    found, expected = both.compute(), streamed(parts)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-12)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_nothing_seen_and_wrong_shapes_are_one_line():
    with pytest.raises(DataError, match="no embedding was seen"):
        SparseMetrics(D, H).compute()
    x, x_hat, codes = rows()
    for wrong in ((x, x_hat[:5], codes), (x, x_hat, codes[:, 1:]), (x[:, 1:], x_hat[:, 1:], codes)):
        with pytest.raises(DataError, match=r"expected \[B, 12\] twice and \[B, 30\]"):
            SparseMetrics(D, H).update(*wrong)


def dictionary(m, d=16, seed=0):
    columns = np.random.default_rng(seed).standard_normal((d, m))
    return columns / np.linalg.norm(columns, axis=0)


def test_a_permuted_noised_dictionary_is_recovered():
    true, rng = dictionary(40, d=64), np.random.default_rng(1)
    learned = true[:, rng.permutation(40)] * rng.uniform(0.2, 3, 40)
    assert (mmcs(true, learned), mcc(true, learned)) == pytest.approx((1, 1))
    assert recovered_share(true, learned) == 1 and uniqueness(learned) == 1
    noise = dictionary(40, d=64, seed=2)
    noisy = true[:, rng.permutation(40)] + 0.3 * noise  # cosine with its atom near 1 / sqrt(1 + 0.09)
    assert mcc(true, noisy) == pytest.approx(1 / np.sqrt(1.09), abs=0.01)
    assert mmcs(true, dictionary(40, d=64, seed=3)) < 0.5
    assert mcc(true, -true) < 0.5


def test_mcc_equals_the_best_of_all_permutations():
    true, learned = dictionary(5, d=3), dictionary(5, d=3, seed=1)
    cosines = true.T @ learned
    best = max(np.mean([cosines[row, column] for row, column in enumerate(order)]) for order in permutations(range(5)))
    assert mcc(true, learned) == pytest.approx(best)
    assert mmcs(true, learned) == pytest.approx(cosines.max(axis=1).mean()) and mmcs(true, learned) > best


def test_copies_of_one_atom_fool_neither_mcc_nor_uniqueness():
    true = np.eye(6)
    learned = true[:, [0, 0, 0, 1, 2, 3]]
    assert mmcs(true, learned) == pytest.approx(4 / 6) == mcc(true, learned) == recovered_share(true, learned)
    assert uniqueness(learned) == 0.5 == uniqueness(learned, chunk=2)
    assert mcc(true, true[:, :3]) == 0.5  # atoms without a partner count 0
    assert mcc(true[:, :3], true) == 1
    assert recovered_share(true, true * 0.1, threshold=0.999) == 1


def test_dictionaries_that_do_not_fit_are_one_line():
    with pytest.raises(DataError, match="dictionaries are"):
        mcc(np.eye(3), np.eye(4))
    with pytest.raises(DataError, match="column 1 is zero"):
        uniqueness(np.array([[1.0, 0.0]]))
