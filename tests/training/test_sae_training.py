"""Training autoencoders: unit rows, exact resuming, several at once as one alone, true curves, planted atoms found."""

import csv
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pytorch_lightning.callbacks import Callback
from torch.optim import Adam

from aaca.data.embedding_batches import EmbeddingBatches
from aaca.data.embedding_writer import store_of_array
from aaca.data.synthetic_sparse import SyntheticSparse
from aaca.evaluate.sparse import mmcs
from aaca.models.sae.base import Known, SaeSpec
from aaca.models.sae.batchtopk import BatchTopK
from aaca.models.sae.relu import Relu
from aaca.models.sae.topk import TopK
from aaca.runtime.errors import AacaError, ConfigError
from aaca.runtime.stages import PROGRESS
from aaca.training.checkpoints import found
from aaca.training.fit_sae import SaeJob, fit_saes
from aaca.training.resume import ResumeSpec
from aaca.training.sae_resample import Resampling, Sample
from aaca.training.sparse_autoencoder import SaeTraining
from aaca.training.trainer import TrainerSpec
from tests.toys import Killed, Stop

D, H, B, BATCHES = 8, 32, 32, 5
DATA = SyntheticSparse(n=B * BATCHES, dim=D, atoms=12)
CPU = TrainerSpec(accelerator="cpu")
SHORT = SaeTraining(epochs=7, batch_size=B, lr=1e-2, warmup=4, decay="cosine")
SPECS = [
    Relu(latents=H, init="kaiming", l1=0.01),
    TopK(latents=H, k=3, dead_after=3 * B, bias="zeros"),
    Relu(latents=H, init="transpose", l1=0.05),
    BatchTopK(latents=H, k=3, dead_after=3 * B, bias="zeros"),
]


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    held_out = replace(DATA, n=50, seed=1).vectors()
    return store_of_array(folder / "train", DATA.vectors()), store_of_array(folder / "val", held_out)


def built(*specs: SaeSpec, dim: int = D, seed: int = 0):
    """A quarter of the latents starts so low that it never fires."""
    known = Known(dim, torch.zeros(dim), torch.zeros(dim), torch.zeros(0, dim))
    saes = [spec.build(known, torch.Generator().manual_seed(seed)) for spec in specs]
    for sae in saes:
        sae.encoder_bias.data[: sae.latents // 4] = -50.0
    return saes


def job(stores, plan: SaeTraining = SHORT, seed: int = 3, **more: Any) -> SaeJob:
    train = EmbeddingBatches(stores[0], plan.batch_size, seed=seed)
    val = EmbeddingBatches(stores[1], 16, shuffle="none", drop_last=False)
    every = {"resampling": Resampling(every=2), "resume": ResumeSpec(every=0), **more}
    return SaeJob(train, val, plan, CPU, seed, {}, draw(stores[0]), **every)


def draw(store) -> Callable[[int, int], Sample]:
    def drawn(most: int, seed: int) -> Sample:
        rows = np.random.default_rng(seed).permutation(store.n)[:most]
        return Sample(np.sort(rows), lambda rows: torch.from_numpy(store.gather(rows)))

    return drawn


def curves(folder: Path) -> list[dict[str, str]]:
    with (folder / "log" / "metrics.csv").open() as stream:
        return list(csv.DictReader(stream))


def assert_same(one, other) -> None:
    for name, value in other.state_dict().items():
        assert torch.equal(one.state_dict()[name], value), name


def assert_unit(sae) -> None:
    assert (sae.dictionary.detach().norm(dim=1) - 1).abs().max() < 1e-6


class Lengths(Callback):
    """Rows have length 1 after every update."""

    def __init__(self, saes) -> None:
        self.saes, self.updates, self.moved = saes, 0, 0.0
        self.first = [sae.dictionary.detach().clone() for sae in saes]

    def on_train_batch_end(self, *_: object) -> None:
        self.updates += 1
        for sae, first in zip(self.saes, self.first, strict=True):
            assert_unit(sae)
            self.moved = max(self.moved, float((sae.dictionary.detach() - first).norm(dim=1).max()))


def test_gradients_are_at_right_angles_to_rows_and_rows_have_length_one_at_every_update(stores, tmp_path, monkeypatch):
    saes, step, looked = built(*SPECS), Adam.step, []

    def looking(self, closure):
        loss = closure()
        for sae in saes:
            rows, gradient = sae.dictionary.detach(), sae.dictionary.grad
            size = gradient.norm(dim=1).max()
            along = (gradient * rows).sum(dim=1).abs().max()
            assert size > 1e-5 and along < 1e-6 and along < 1e-5 * size
        looked.append(loss)
        return step(self)

    monkeypatch.setattr(Adam, "step", looking)
    lengths = Lengths(saes)
    fit_saes(saes, job(stores, callbacks=[lengths]), tmp_path)
    assert lengths.updates == len(looked) == SHORT.epochs * BATCHES and lengths.moved > 0.3


@pytest.fixture(scope="module")
def whole(stores, tmp_path_factory):
    folder, saes = tmp_path_factory.mktemp("whole"), built(*SPECS)
    rounds = fit_saes(saes, job(stores), folder)
    assert {one["epoch"] for one in rounds} == {1, 3} and sum(one["restarted"] for one in rounds) > len(SPECS)
    assert all(len(sae.dead) for sae in (saes[1], saes[3]))  # AuxK has something to do
    return saes, rounds, curves(folder)


def assert_as_whole(whole, saes, rounds, folder) -> None:
    for one, other in zip(saes, whole[0], strict=True):
        assert_same(one, other)
        assert_unit(one)
    assert (rounds, curves(folder)) == whole[1:]


HOOKS = [
    ("on_train_batch_start", 2),
    ("on_train_batch_end", 8),
    ("on_validation_epoch_end", 2),
    ("on_train_epoch_end", 2),  # latents are restarted, and nothing is saved yet
    ("on_train_epoch_start", 3),  # restarted and saved
    ("on_train_batch_start", 24),
    ("on_train_epoch_end", 6),
    ("on_train_batch_start", 35),  # which latents are dead was looked up at update 32
]


@pytest.mark.parametrize(("hook", "count"), HOOKS)
def test_a_fit_killed_at_any_hook_ends_with_the_same_bits(hook, count, stores, tmp_path, whole):
    with pytest.raises(Killed):
        fit_saes(built(*SPECS), job(stores, callbacks=[Stop(hook, count)]), tmp_path)
    saes = built(*SPECS, seed=9)  # all that matters is in the checkpoint
    lengths = Lengths(saes)
    rounds = fit_saes(saes, job(stores, callbacks=[lengths]), tmp_path)
    assert lengths.updates < SHORT.epochs * BATCHES or (count == 2 and hook == "on_train_batch_start")
    assert_as_whole(whole, saes, rounds, tmp_path)


def test_killed_twice_in_one_epoch_and_once_more_later(stores, tmp_path, whole):
    for hook, count in (("on_train_batch_start", 8), ("on_train_batch_end", 2), ("on_train_batch_start", 9)):
        with pytest.raises(Killed):
            fit_saes(built(*SPECS), job(stores, callbacks=[Stop(hook, count)]), tmp_path)
    assert int(found(tmp_path / PROGRESS)[0].stem) == 16
    with pytest.raises(ConfigError, match="other settings"):
        fit_saes(built(*SPECS), job(stores, replace(SHORT, lr=0.1)), tmp_path)
    saes = built(*SPECS)
    assert_as_whole(whole, saes, fit_saes(saes, job(stores), tmp_path), tmp_path)


@pytest.mark.parametrize(("clip", "specs"), [(None, SPECS), (1e-3, SPECS[:2])], ids=["free", "clipped"])
def test_several_in_one_pass_are_each_as_if_alone(clip, specs, stores, tmp_path):
    plan = replace(SHORT, epochs=5, clip_grad=clip)
    together = built(*specs)
    rounds = fit_saes(together, job(stores, plan), tmp_path / "together")
    assert min(one["restarted"] for one in rounds if one["epoch"] == 1) > 0
    row = curves(tmp_path / "together")[-1]
    for index, spec in enumerate(specs):
        (alone,) = built(spec)
        own = fit_saes([alone], job(stores, plan), tmp_path / str(index))
        assert_same(together[index], alone)
        assert [{**one, "autoencoder": 0} for one in rounds if one["autoencoder"] == index] == own
        single = curves(tmp_path / str(index))[-1]
        names = [name for name in single if name not in ("epoch", "updates")]
        assert {name: row[f"{name}_{index}"] for name in names} == {name: single[name] for name in names}
    if clip:
        free = built(*specs)
        fit_saes(free, job(stores, replace(plan, clip_grad=None)), tmp_path / "free")
        assert not torch.equal(free[0].encoder, together[0].encoder)  # the bound was felt


def test_a_row_of_the_curve_holds_its_own_epoch_s_means_and_what_validation_found(stores, tmp_path, monkeypatch):
    (sae,), parts, seen = built(SPECS[0]), [], []
    losses = sae.losses

    def noting(x):
        found = losses(x)
        parts.append({name: float(value) for name, value in found.parts.items()})
        seen.append(x.clone())
        return found

    monkeypatch.setattr(sae, "losses", noting)
    fit_saes([sae], job(stores), tmp_path)
    batches = EmbeddingBatches(stores[0], B, seed=3)
    wanted = [batch for epoch in range(7) for batch in batches.epoch(epoch)]
    assert len(seen) == 35 and all(torch.equal(one, other) for one, other in zip(seen, wanted, strict=True))
    rows = curves(tmp_path)
    assert [(row["epoch"], row["updates"]) for row in rows] == [(str(n), str(5 * n + 5)) for n in range(7)]
    for number, row in enumerate(rows):
        own = parts[number * BATCHES : (number + 1) * BATCHES]
        for name in ("reconstruction", "l1"):
            assert float(row[name]) == pytest.approx(np.mean([part[name] for part in own]), rel=1e-6)
    x = torch.from_numpy(stores[1].gather(np.arange(50))).double()
    with torch.no_grad():
        codes = sae.double().encode(x)
        errors = (sae.decode(codes) - x).square().sum().item()
    fvu = errors / (x - x.mean(dim=0)).square().sum().item()
    assert float(rows[-1]["val_fvu"]) == pytest.approx(fvu, rel=1e-5)
    assert float(rows[-1]["val_explained_variance"]) == pytest.approx(1 - fvu, abs=1e-5)
    assert float(rows[-1]["val_l0_mean"]) == pytest.approx((codes > 0).sum(dim=1).double().mean().item(), rel=1e-6)
    assert float(rows[-1]["val_dead_share"]) == pytest.approx(1 - (codes > 0).any(dim=0).double().mean().item())


def test_long_fits_validate_seldom_and_no_row_repeats_an_old_measurement_also_after_an_interruption(stores, tmp_path):
    plan = SaeTraining(epochs=60, batch_size=80, lr=1e-2)  # two updates an epoch
    fit_saes(built(SPECS[0]), job(stores, plan, resume=ResumeSpec()), tmp_path / "whole")
    rows = curves(tmp_path / "whole")
    assert [int(row["epoch"]) for row in rows if row["val_fvu"]] == list(range(2, 60, 3))
    assert all(row["reconstruction"] for row in rows)
    with pytest.raises(Killed):
        fit_saes(built(SPECS[0]), job(stores, plan, callbacks=[Stop("on_train_batch_start", 10)]), tmp_path / "cut")
    fit_saes(built(SPECS[0]), job(stores, plan, resume=ResumeSpec()), tmp_path / "cut")
    assert curves(tmp_path / "cut") == rows


def test_without_validation_the_curve_has_training_losses_alone(stores, tmp_path):
    this = replace(job(stores, replace(SHORT, epochs=2), resampling=None), val=None)
    assert fit_saes(built(SPECS[1]), this, tmp_path) == []
    assert [set(row) for row in curves(tmp_path)] == [{"epoch", "updates", "reconstruction", "auxk"}] * 2


def test_a_loss_that_is_not_finite_is_an_error_at_the_first_update_and_at_an_epoch_s_end(stores, tmp_path):
    (sae,) = built(SPECS[0])
    sae.bias.data[0] = math.nan
    with pytest.raises(AacaError, match=r"^update 0: the loss is nan; lower sae\.training\.lr$"):
        fit_saes([sae], job(stores), tmp_path / "start")
    with pytest.raises(AacaError, match=r"^epoch 0: reconstruction is (nan|inf); lower sae\.training\.lr$"):
        fit_saes(built(SPECS[0]), job(stores, SaeTraining(epochs=2, batch_size=B, lr=1e30)), tmp_path / "later")


def test_the_learning_rate_has_its_closed_form_and_the_optimiser_gets_it(stores, tmp_path, monkeypatch):
    flat = SaeTraining(warmup=4)
    assert [flat.factor(update, 20) for update in range(6)] == [0.2, 0.4, 0.6, 0.8, 1.0, 1.0]
    assert {SaeTraining().factor(update, 20) for update in range(21)} == {1.0}
    linear, cosine = replace(flat, decay="linear"), replace(flat, decay="cosine")
    for update in range(4, 21):
        passed = (update - 4) / 16
        assert linear.factor(update, 20) == pytest.approx(1 - passed, abs=1e-12)
        assert cosine.factor(update, 20) == pytest.approx((1 + math.cos(math.pi * passed)) / 2, abs=1e-6)
    assert linear.factor(20, 20) == 0.0 and replace(linear, warmup=0).factor(0, 20) == 1.0
    rates, step = [], Adam.step
    monkeypatch.setattr(
        Adam, "step", lambda self, closure: (rates.append(self.param_groups[0]["lr"]), step(self, closure))[1]
    )
    fit_saes(built(SPECS[0]), job(stores), tmp_path)
    assert rates == pytest.approx([1e-2 * SHORT.factor(update, 35) for update in range(35)])


def recovered(spec: SaeSpec, data: SyntheticSparse, plan: SaeTraining, folder: Path, resampling=None):
    """The mean largest cosine of planted atoms with learned ones, and the explained variance."""
    store = store_of_array(folder / "store", data.vectors())
    known = Known(data.dim, torch.zeros(data.dim), torch.zeros(data.dim), torch.zeros(0, data.dim))
    sae = spec.build(known, torch.Generator().manual_seed(data.seed))
    train, val = EmbeddingBatches(store, plan.batch_size), EmbeddingBatches(store, 5000, shuffle="none")
    fit_saes([sae], SaeJob(train, val, plan, CPU, 0, {}, draw(store), resampling), folder)
    assert_unit(sae)
    score = mmcs(data.dictionary().T, F.normalize(sae.atoms.detach(), dim=1).numpy().T)
    return score, float(curves(folder)[-1]["val_explained_variance"])


def test_planted_atoms_are_found_and_too_little_sparsity_finds_none_though_it_explains_as_much(tmp_path):
    data = SyntheticSparse(n=15_000)
    plan = SaeTraining(epochs=15, batch_size=256, lr=3e-3)
    plain = Relu(latents=128, init="transpose", l1=1e-2)
    score, variance = recovered(plain, data, plan, tmp_path / "plain")
    assert score > 0.95  # 0.98 here and with 50,000 vectors
    released = Relu(latents=256, init="dncbm", l1=1e-2)
    assert recovered(released, data, plan, tmp_path / "released", Resampling(every=3))[0] > 0.97
    weak = Relu(latents=128, init="transpose", init_scale=1.0, l1=3e-3)
    brief = SaeTraining(epochs=20, batch_size=1024, lr=1e-3)
    none, explained = recovered(weak, replace(data, n=20_000), brief, tmp_path / "weak")
    assert none < 0.8 and explained > variance - 0.05
