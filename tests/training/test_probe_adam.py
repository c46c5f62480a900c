"""Adam's probe against a plain torch loop and the optimum; a cut-off fit goes on bit by bit."""

import numpy as np
import pytest
import torch
from torch import nn

from aaca.runtime.errors import DataError
from aaca.training import probe_adam
from aaca.training.probe_adam import first_weight, fit_adam, gradient_of
from aaca.training.sparse_probe import fit_prox, objective
from tests.training.probe_toys import C, H, N, planted


@pytest.fixture(scope="module")
def toy():
    return planted()


def test_adam_equals_a_plain_loop(toy, monkeypatch):
    codes, labels = toy
    linear = nn.Linear(H, C, bias=False)
    with torch.no_grad():
        linear.weight.copy_(first_weight(H, C, 5).T)
    adam, epochs, seen = torch.optim.Adam(linear.parameters(), lr=1e-2), 3, []
    monkeypatch.setattr(probe_adam, "gradient_of", lambda *parts: seen.append(parts[2].clone()) or gradient_of(*parts))
    probe = fit_adam(codes, labels, C, lr=1e-2, strength=2.0, epochs=epochs, batch_size=64, seed=5)
    steps = iter(seen)
    for epoch in range(epochs):
        order = np.random.default_rng([5, epoch]).permutation(N)
        for start in range(0, N, 64):
            rows = order[start : start + 64]
            torch.testing.assert_close(next(steps).T, linear.weight.detach(), atol=2e-5, rtol=1e-4)
            adam.zero_grad()
            logits = linear(torch.from_numpy(codes[rows].toarray()))
            loss = nn.functional.cross_entropy(logits, torch.from_numpy(labels[rows]))
            (loss + 2.0 * nn.functional.l1_loss(linear.weight, torch.zeros(C, H))).backward()
            adam.step()
    assert next(steps, None) is None and len(seen) == 15
    np.testing.assert_allclose(probe.weight, linear.weight.detach().numpy(), atol=2e-5)
    other = fit_adam(codes.toarray(), labels, C, lr=1e-2, strength=2.0, epochs=epochs, batch_size=64, seed=5)
    np.testing.assert_allclose(other.weight, probe.weight, atol=2e-5)


def test_adam_has_no_zeros_and_ends_above_the_optimum(toy):
    codes, labels = toy
    adam = fit_adam(codes, labels, C, lr=1e-2, strength=2.0, epochs=100, batch_size=64)
    best = fit_prox(codes, labels, C, 2.0)
    assert (adam.weight == 0).sum() == 0 and (best.weight == 0).mean() > 0.3
    low, high = (objective(probe, codes, labels, 2.0, 1.0, "mean") for probe in (best, adam))
    assert low < high < low * 1.1


def test_adam_resumes_bit_by_bit(toy, tmp_path):
    codes, labels = toy
    rest = {"lr": 1e-2, "batch_size": 64, "seed": 3}
    whole = fit_adam(codes, labels, C, epochs=8, **rest)
    file = tmp_path / "probe" / "adam.safetensors"
    half = fit_adam(codes, labels, C, epochs=5, checkpoint=file, save_every=2, **rest)
    again = fit_adam(codes, labels, C, epochs=8, checkpoint=file, save_every=2, **rest)
    assert (again.weight == whole.weight).all() and not (half.weight == whole.weight).any()
    assert (fit_adam(codes, labels, C, epochs=8, checkpoint=file, **rest).weight == whole.weight).all()
    assert not (fit_adam(codes, labels, C, epochs=8, **{**rest, "seed": 4}).weight == whole.weight).all()
    with pytest.raises(DataError, match="other codes or values"):
        fit_adam(codes, labels, C, epochs=8, checkpoint=file, **{**rest, "lr": 1e-3})
    with pytest.raises(DataError, match="other codes or values"):
        fit_adam(codes * 2, labels, C, epochs=8, checkpoint=file, **rest)
    with pytest.raises(DataError, match="other codes or values"):
        fit_adam(codes, labels, C, epochs=7, checkpoint=file, **rest)
    file.write_bytes(b"torn")
    with pytest.raises(DataError, match="no checkpoint"):
        fit_adam(codes, labels, C, epochs=8, checkpoint=file, **rest)
