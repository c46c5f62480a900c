"""Statistics of an embedding store beside those of numpy and scipy; geometric medians of known points."""

import numpy as np
import pytest
from scipy.optimize import minimize

from aaca.data import embedding_shards, embedding_statistics
from aaca.data.embedding_statistics import geometric_median
from aaca.data.embedding_writer import store_of_array
from tests.data.embedding_toys import vectors, written


def test_statistics_are_those_of_numpy(tmp_path, monkeypatch):
    monkeypatch.setattr(embedding_shards, "CHUNK_BYTES", 24 * 4)  # pieces of four rows
    store = written(tmp_path, vectors(), "float16")
    rows = vectors().astype(np.float16).astype(np.float64)
    norms = np.linalg.norm(rows, axis=1)
    np.testing.assert_allclose(store.mean, rows.mean(axis=0), rtol=1e-6)
    assert store.mean_norm == pytest.approx(norms.mean()) and store.rms_norm == pytest.approx(
        np.sqrt((norms**2).mean())
    )
    assert store.centred_norm == pytest.approx(np.linalg.norm(rows - rows.mean(axis=0), axis=1).mean())
    found = minimize(lambda at: np.linalg.norm(rows - at, axis=1).sum(), rows.mean(axis=0), tol=1e-12)
    np.testing.assert_allclose(store.geometric_median, found.x, atol=1e-5)


def test_a_median_sample_smaller_than_the_store_is_near_and_repeatable(tmp_path, monkeypatch):
    monkeypatch.setattr(embedding_statistics, "MEDIAN_SAMPLE", 400)
    rows = vectors(3000)
    first, again = (store_of_array(tmp_path / name, rows) for name in "ab")
    np.testing.assert_array_equal(first.geometric_median, again.geometric_median)
    away = np.linalg.norm(first.geometric_median - geometric_median(rows))
    assert 0 < away < 0.25  # a standard error of 400 rows is 1/20 an axis


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([[2.0, 1.0]], [2, 1]),
        ([[0.0, 0], [0, 0], [0, 0], [9, 9]], [0, 0]),  # more than half at one place
        ([[-1.0, 0], [1, 0], [0, 1], [0, -1], [0, 0]], [0, 0]),  # the mean is a row, and the median
        ([[0.0, 0], [2, 0], [0, 4], [2, 4]], [1, 2]),  # the crossing of the diagonals
        ([[-3.0, 0], [-1, 0], [0, 0], [1.0, 0], [3, 0], [30, 0]], None),  # on a line: anywhere in 0…1
    ],
)
def test_the_geometric_median_of_known_points(rows, expected):
    found = geometric_median(np.array(rows))
    if expected is None:
        assert -1e-6 <= found[0] <= 1 + 1e-6 and found[1] == 0
    else:
        np.testing.assert_allclose(found, expected, atol=1e-5)
