"""The options of probe=: each is the fit it says, and what it promises of zeros and of the objective holds."""

import logging
import re

import numpy as np
import pytest

from aaca.evaluate.bottleneck import accuracy_at_nec, nec
from aaca.runtime.errors import ConfigError
from aaca.training import probes
from aaca.training.probe_adam import fit_adam
from aaca.training.probes import AdamL1, AtNec, Proximal
from aaca.training.sparse_probe import Probe, fit_prox, objective, path
from tests.toys import Killed
from tests.training.probe_toys import C, H, planted


@pytest.fixture(scope="module")
def toy():
    return planted()


def same(one: Probe, other: Probe) -> bool:
    arrays = [(getattr(one, name), getattr(other, name)) for name in ("weight", "bias", "mean", "scale")]
    return all(a is b if a is None or b is None else np.array_equal(a, b) for a, b in arrays)


def test_adam_is_the_fit_by_adam_and_goes_on_after_an_interruption(toy, tmp_path, monkeypatch):
    codes, labels = toy
    spec = AdamL1(lr=1e-2, strength=2.0, epochs=25, batch_size=64)
    plain = fit_adam(codes, labels, C, 1e-2, 2.0, 25, 64, 7)
    assert same(spec.fit(codes, labels, C, 7, tmp_path / "whole"), plain)
    assert not same(spec.fit(codes, labels, C, 8, tmp_path / "seed"), plain)
    calls, permutation = [], np.random.default_rng

    def dying(seed):
        calls.append(seed)
        if len(calls) == 14:
            raise Killed
        return permutation(seed)

    monkeypatch.setattr(np.random, "default_rng", dying)  # once an epoch
    with pytest.raises(Killed):
        spec.fit(codes, labels, C, 7, tmp_path / "cut")
    assert same(spec.fit(codes, labels, C, 7, tmp_path / "cut"), plain)
    assert [seed for _, seed in calls[14:]] == list(range(10, 25))  # saved every ten epochs


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("standardise", [False, True])
def test_proximal_is_the_fit_by_descent(bias, standardise, toy, tmp_path):
    codes, labels = toy
    found = Proximal(strength=3.0, bias=bias, standardise=standardise).fit(codes, labels, C, 0, tmp_path / "no")
    assert same(found, fit_prox(codes, labels, C, 3.0, bias=bias, standardise=standardise))
    assert (found.bias is not None) == bias and (found.mean is not None) == standardise
    assert not (tmp_path / "no").exists()


def test_both_have_one_objective_and_the_optimum_is_lower_and_has_zeros(toy, tmp_path):
    codes, labels = toy
    adam = AdamL1(lr=1e-2, strength=3.0, epochs=400).fit(codes, labels, C, 0, tmp_path)
    best = Proximal(strength=3.0, bias=False).fit(codes, labels, C, 0, tmp_path)
    costs = [objective(probe, codes, labels, 3.0, 1.0, "mean") for probe in (adam, best)]
    assert costs[1] < costs[0] < 1.03 * costs[1]
    assert nec(best.weight) < H - 1 and (adam.weight != 0).all()


@pytest.mark.parametrize("concepts", [1, 3, 8])
def test_a_number_of_concepts_a_class_is_met_and_scores_as_the_protocol_does(concepts, toy, tmp_path):
    codes, labels = toy
    found = AtNec(concepts=concepts).fit(codes, labels, C, 0, tmp_path)
    assert nec(found.weight) == concepts
    made = path(codes, labels, C, nec_limit=concepts)
    weights, biases = [probe.weight for probe in made], [probe.bias for probe in made]
    wanted = accuracy_at_nec(weights, biases, codes, labels, [concepts], made[0].mean, made[0].scale)
    accuracy = float((found.logits(codes).argmax(axis=1) == labels).mean())
    assert accuracy == pytest.approx(wanted[concepts]) and accuracy > 1.2 * np.bincount(labels).max() / len(labels)


def test_more_concepts_than_any_probe_uses_give_the_densest_as_it_is(toy, tmp_path, monkeypatch):
    codes, labels = toy  # concept 7 never fires
    made = []
    monkeypatch.setattr(
        probes, "path", lambda *given, **more: made.append(path(*given, n_lambdas=50, **more)) or made[0]
    )
    found = AtNec(concepts=H).fit(codes, labels, C, 0, tmp_path)
    assert len(made[0]) == 51 and same(found, made[0][-1])
    assert nec(made[0][-2].weight) <= nec(found.weight) < H


def test_the_share_of_l1_is_felt(toy, tmp_path):
    codes, labels = toy
    sparse, smooth = (AtNec(concepts=3, alpha=alpha).fit(codes, labels, C, 0, tmp_path) for alpha in (0.99, 0.3))
    assert nec(sparse.weight) == nec(smooth.weight) == 3
    assert np.abs(smooth.weight).max() < 0.8 * np.abs(sparse.weight).max()


def test_adam_keeps_the_largest_weights_of_a_class_after_the_fit(toy, tmp_path):
    codes, labels = toy
    whole = AdamL1(lr=1e-2, epochs=5).fit(codes, labels, C, 7, tmp_path / "whole").weight
    kept = AdamL1(lr=1e-2, epochs=5, keep=3).fit(codes, labels, C, 7, tmp_path / "kept").weight
    for row, full in zip(kept, whole, strict=True):
        largest = np.argsort(-np.abs(full))[:3]
        assert set(np.flatnonzero(row)) == set(largest) and np.array_equal(row[largest], full[largest])
    with pytest.raises(ConfigError, match=rf"probe\.keep: {H + 1}; expected at most the {H} concepts"):
        AdamL1(keep=H + 1).fit(codes, labels, C, 7, tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("spec", "solver", "line"),
    [
        (Proximal(), "fit_prox", r"a larger probe\.strength or probe\.standardise=true$"),
        (Proximal(standardise=True), "fit_prox", r"a larger probe\.strength$"),
        (AtNec(concepts=3), "path", r"fewer probe\.concepts or a smaller probe\.alpha$"),
    ],
)
def test_a_probe_short_of_its_optimum_is_said(spec, solver, line, toy, tmp_path, monkeypatch, caplog):
    codes, labels = toy
    with caplog.at_level(logging.WARNING):
        spec.fit(codes, labels, C, 0, tmp_path)
    assert not caplog.records
    solve = getattr(probes, solver)
    monkeypatch.setattr(probes, solver, lambda *given, **more: solve(*given, **more, tolerance=1e-9, max_steps=2))
    with caplog.at_level(logging.WARNING):
        found = spec.fit(codes, labels, C, 0, tmp_path)
    (record,) = caplog.records
    said = record.getMessage()
    assert said.startswith(f"{type(spec).__name__}: not at its optimum after {found.meta['steps']} steps")
    assert f"{found.meta['violation']:.3g} of λα" in said and re.search(line, said)
