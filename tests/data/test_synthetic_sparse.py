"""Planted sparse sums: unit atoms, so many on, strengths within bounds, the same for a seed, in every block of rows."""

from dataclasses import replace

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from aaca.data.synthetic_sparse import SyntheticSparse

FEW = SyntheticSparse(n=25_000, dim=24, atoms=12, active=3.0, least=0.5, most=1.5, seed=4)  # codes can be solved for
BLOCK = 10_000  # rows that are made at a time


@pytest.fixture(scope="module")
def codes() -> np.ndarray:
    """What the vectors are made of, `[N, M]`, by least squares."""
    return np.linalg.lstsq(FEW.dictionary().T.astype(float), FEW.vectors().T.astype(float), rcond=None)[0].T


def test_atoms_have_length_one_and_point_everywhere():
    atoms = replace(FEW, atoms=500).dictionary()
    assert atoms.shape == (500, 24) and atoms.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(atoms, axis=1), 1, atol=1e-6)
    cosines = (atoms @ atoms.T)[np.triu_indices(500, 1)]
    assert abs(cosines.mean()) < 0.005 and cosines.std() == pytest.approx(24**-0.5, rel=0.03)


def test_vectors_are_sums_of_atoms_with_strengths_within_bounds(codes):
    vectors = FEW.vectors()
    assert vectors.shape == (25_000, 24) and vectors.dtype == np.float32
    np.testing.assert_allclose(codes @ FEW.dictionary(), vectors, atol=1e-5)  # nothing beside the atoms' plane
    on = codes > 0.1
    assert np.abs(codes[~on]).max() < 1e-5
    assert codes[on].min() == pytest.approx(0.5, abs=1e-3) and codes[on].max() == pytest.approx(1.5, abs=1e-3)
    assert codes[on].mean() == pytest.approx(1.0, abs=0.005) and codes[on].std() == pytest.approx(12**-0.5, rel=0.02)


def test_so_many_atoms_are_on_independently_in_every_block_of_rows(codes):
    on = codes > 0.1
    share = 3 / 12
    for start in range(0, FEW.n, BLOCK):
        block = on[start : start + BLOCK]
        error = np.sqrt(share * (1 - share) / len(block))
        assert np.abs(block.mean(axis=0) - share).max() < 5 * error
        assert block.sum(axis=1).mean() == pytest.approx(3, abs=5 * error * np.sqrt(12))
        assert block.sum(axis=1).var() == pytest.approx(12 * share * (1 - share), rel=0.1)
    together = np.corrcoef(on.T.astype(float)) - np.eye(12)
    assert np.abs(together).max() < 5 / np.sqrt(FEW.n)
    assert len(np.unique(codes[on].round(6))) > 0.9 * on.sum() > 0  # no block repeats another


def test_a_seed_says_all_and_atoms_do_not_depend_on_how_many_vectors():
    small = replace(FEW, n=200)
    np.testing.assert_array_equal(small.vectors(), replace(FEW, n=200).vectors())
    np.testing.assert_array_equal(small.dictionary(), FEW.dictionary())
    np.testing.assert_array_equal(replace(FEW, n=2 * BLOCK).vectors(), FEW.vectors()[: 2 * BLOCK])
    other = replace(small, seed=5)
    assert not np.allclose(other.dictionary(), small.dictionary()) and not np.allclose(other.vectors(), small.vectors())
    assert small.fingerprint() != other.fingerprint() != replace(other, active=2.0).fingerprint()
    assert small.fingerprint() == replace(FEW, n=200).fingerprint()


@pytest.mark.parametrize("wrong", [{"n": 9}, {"dim": 1}, {"atoms": 1}, {"active": 0}, {"least": 0.0}, {"most": -1}])
def test_impossible_sizes_are_refused(wrong):
    with pytest.raises(ValidationError):
        TypeAdapter(SyntheticSparse).validate_python(wrong)
