"""Restarts of dead latents: when, which, from what, how; nothing else changes, and a seed says all."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pytorch_lightning.callbacks import Callback
from scipy.stats import chisquare
from torch.optim import Adam

from aaca.data.embedding_batches import EmbeddingBatches
from aaca.data.embedding_writer import store_of_array
from aaca.data.synthetic_sparse import SyntheticSparse
from aaca.models.sae.base import Known
from aaca.models.sae.relu import Relu
from aaca.models.sae.topk import TopK
from aaca.training import sae_resample
from aaca.training.fit_sae import SaeJob, fit_saes
from aaca.training.sae_resample import Resampling, Sample, chances_of, drawn, restart, vector_losses
from aaca.training.sparse_autoencoder import SaeTraining
from aaca.training.trainer import TrainerSpec

D, H, B = 8, 24, 20
DEAD = [0, 3, 4, 11, 23]
PLAN = SaeTraining(epochs=4, batch_size=B, lr=1e-3)
RELU = Relu(latents=H, init="kaiming", l1=0.02)
DATA = SyntheticSparse(n=80, dim=D, atoms=12).vectors()


def built(spec=RELU, dead=DEAD, seed: int = 0):
    sae = spec.build(Known(D, torch.zeros(D), torch.zeros(D), torch.zeros(0, D)), torch.Generator().manual_seed(seed))
    sae.encoder_bias.data += 0.3 + 0.1 * torch.rand(sae.latents, generator=torch.Generator().manual_seed(1))
    sae.encoder_bias.data[dead] = -50.0
    return sae


def sample_of(vectors: torch.Tensor) -> Sample:
    return Sample(np.arange(len(vectors)), lambda rows: vectors[torch.from_numpy(rows)])


def all_vectors(most: int, seed: int) -> Sample:
    return sample_of(torch.from_numpy(DATA)[:most])


def drawn_from(sae, vectors, count, power, generator, chunk=4096) -> torch.Tensor:
    sample = sample_of(vectors)
    (chances,) = chances_of([sae], sample, power, chunk)
    return sample.take(drawn(chances, count, generator))


def fit(saes, folder, draw=all_vectors, vectors=DATA, seed: int = 5, every: int = 1, **more: Any):
    store = store_of_array(folder / "store", vectors)
    train = EmbeddingBatches(store, min(B, len(vectors)), seed=1)
    job = SaeJob(train, None, PLAN, TrainerSpec(accelerator="cpu"), seed, {}, draw, Resampling(every=every), **more)
    return fit_saes(saes, job, folder)


def copy_of(sae, optimizer) -> dict[str, torch.Tensor]:
    found = {name: value.detach().clone() for name, value in sae.state_dict().items()}
    for name, parameter in sae.named_parameters():
        for moment in ("exp_avg", "exp_avg_sq", "step"):
            found[f"{name}.{moment}"] = torch.as_tensor(optimizer.state[parameter][moment]).clone()
    return found


class Dying(Callback):
    """The latents `DEAD` die after the first epoch; the state right before the next round and right after it."""

    def __init__(self, sae) -> None:
        self.sae, self.before, self.after = sae, None, None

    def on_train_epoch_start(self, trainer, *_: object) -> None:
        if trainer.current_epoch == 1:
            self.sae.encoder_bias.data[DEAD] = -50.0

    def on_train_batch_end(self, trainer, *_: object) -> None:
        if trainer.current_epoch == 1:
            self.before = copy_of(self.sae, trainer.optimizers[0])

    def on_train_epoch_end(self, trainer, module) -> None:
        if trainer.current_epoch == 1:
            assert not module.window(0).any()  # a new one begins
            self.after = copy_of(self.sae, trainer.optimizers[0])


def test_the_schedule_is_that_of_the_paper_s_code():
    rounds = [epoch for epoch in range(200) if Resampling().due(epoch, 200)]
    assert rounds == list(range(9, 180, 10)) and len(rounds) == 18
    assert [epoch for epoch in range(7) if Resampling(every=2).due(epoch, 7)] == [1, 3]
    assert [epoch for epoch in range(15) if Resampling(every=3).due(epoch, 15)] == [2, 5, 8]
    assert not any(Resampling(every=10).due(epoch, 20) for epoch in range(20))


@pytest.mark.parametrize("spec", [RELU, TopK(latents=H, k=3, auxk=0, bias="zeros")], ids=["relu", "topk"])
def test_dead_latents_restart_at_vectors_and_nothing_else_changes(spec, tmp_path):
    sae = built(spec, dead=[])
    look = Dying(sae)
    rounds = fit([sae], tmp_path, callbacks=[look])
    before, after = look.before, look.after
    dead = after["dictionary"].ne(before["dictionary"]).any(dim=1)
    assert dead.nonzero().squeeze(1).tolist()[:1] == [0] and set(DEAD) <= set(dead.nonzero().squeeze(1).tolist())
    assert int(dead.sum()) == rounds[1]["dead"] == rounds[1]["restarted"] < H
    for name, value in before.items():
        latent_s = name.startswith(("encoder", "dictionary")) and not name.endswith("step")
        if latent_s:
            assert torch.equal(after[name][~dead], value[~dead]), name
        else:
            assert name == "since_fired" or torch.equal(after[name], value), name
        if latent_s and "exp_avg" in name:
            assert not after[name][dead].any() and value[DEAD].any() and value[~dead].any(), name
    assert torch.equal(after["since_fired"][~dead], before["since_fired"][~dead])
    assert not after["since_fired"][dead].any() and before["since_fired"][dead].min() == len(DATA)
    assert not after["encoder_bias"][dead].any()
    lengths = after["encoder"].norm(dim=1)
    expected = 0.2 * before["encoder"][~dead].norm(dim=1).mean()
    torch.testing.assert_close(lengths[dead], expected.expand(int(dead.sum())))
    rows, directions = after["dictionary"][dead], F.normalize(torch.from_numpy(DATA), dim=1)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(len(rows)), rtol=0, atol=1e-6)
    torch.testing.assert_close(after["encoder"][dead] / expected, rows)
    cosines, which = (rows @ directions.T).max(dim=1)  # the vectors as they are, without the bias
    assert cosines.min() > 1 - 1e-6 and len(set(which.tolist())) == len(rows) and before["bias"].norm() > 1e-3


def test_scale_is_of_the_living_alone_also_where_some_dead_stay_dead_or_none_lives():
    sae = built()
    sae.encoder.data.mul_(torch.linspace(0.1, 3, H)[:, None])
    optimizer = Adam(sae.parameters())
    before = sae.encoder.detach().clone()
    dead, vectors = torch.tensor(DEAD), torch.randn(2, D, generator=torch.Generator().manual_seed(0))
    restart(sae, dead, vectors, 0.5, optimizer)
    living = [latent for latent in range(H) if latent not in DEAD]
    expected = 0.5 * before[living].norm(dim=1).mean()
    torch.testing.assert_close(sae.encoder[dead[:2]].detach(), F.normalize(vectors, dim=1) * expected)
    rest = [latent for latent in range(H) if latent not in DEAD[:2]]
    assert torch.equal(sae.encoder[rest], before[rest]) and (sae.encoder_bias[DEAD[2:]] == -50).all()
    before = sae.encoder.detach().clone()
    restart(sae, torch.arange(H), vectors.repeat(H // 2, 1), 0.5, optimizer)
    lengths = sae.encoder.detach().norm(dim=1)
    torch.testing.assert_close(lengths, (0.5 * before.norm(dim=1).mean()).expand(H))


@pytest.mark.parametrize("reconstruction", ["mse_mean", "mse_sum"])
def test_the_loss_of_a_vector_is_what_it_adds_to_its_batch_s(reconstruction):
    sae, x = built(Relu(latents=H, init="kaiming", l1=0.02, reconstruction=reconstruction)), torch.from_numpy(DATA)
    each = vector_losses(sae, x).detach()
    one_by_one = torch.stack([sae.losses(row[None]).total for row in x]).detach()
    torch.testing.assert_close(each, one_by_one)
    assert each.mean().item() == pytest.approx(sae.losses(x).total.item(), rel=1e-5)
    fvu = built(Relu(latents=H, init="kaiming", l1=0.02, reconstruction="fvu"))
    assert vector_losses(fvu, x).mean().item() == pytest.approx(fvu.losses(x).total.item(), rel=1e-5)
    kept = built(TopK(latents=H, k=3, auxk=0, bias="zeros"))
    assert vector_losses(kept, x).mean().item() == pytest.approx(kept.losses(x).total.item(), rel=1e-5)


@pytest.mark.parametrize("decoder", ["unit", "free"])
def test_the_loss_of_a_vector_knows_the_warm_up_and_the_lengths_of_free_rows(decoder):
    sae, x = built(Relu(latents=H, init="kaiming", l1=0.5, decoder=decoder)), torch.from_numpy(DATA)
    if decoder == "free":
        sae.dictionary.data.mul_(torch.linspace(0.3, 3, H)[:, None])
    whole = vector_losses(sae, x).detach()
    sae.sparsity_scale = 0.25
    each = vector_losses(sae, x).detach()
    torch.testing.assert_close(each, torch.stack([sae.losses(row[None]).total for row in x]).detach())
    penalty = (0.5 * sae.encode(x) @ sae.dictionary.norm(dim=1)).detach()
    torch.testing.assert_close(whole - each, 0.75 * penalty, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("power", [2.0, 1.0, 0.0])
def test_a_vector_is_drawn_with_the_power_of_its_loss(power):
    sae, sample = built(), torch.from_numpy(DATA[:12]) * torch.linspace(0.5, 2, 12)[:, None]
    losses = vector_losses(sae, sample).detach().double().numpy()
    expected = losses**power / (losses**power).sum()
    generator, counts = torch.Generator().manual_seed(7), np.zeros(12)
    for _ in range(4000):
        found = drawn_from(sae, sample, 1, power, generator, chunk=5)
        counts[(sample == found).all(dim=1).nonzero().item()] += 1
    assert chisquare(counts, 4000 * expected).pvalue > 0.01
    other = losses**1.5 / (losses**1.5).sum()  # the test would see another power
    assert chisquare(counts, 4000 * other).pvalue < 1e-4


def test_no_vector_is_drawn_twice_and_none_without_a_direction():
    sae, sample = built(), torch.from_numpy(DATA[:30]).clone()
    sample[[2, 9]] = 0
    generator = torch.Generator().manual_seed(0)
    found = drawn_from(sae, sample, 100, 2.0, generator)
    assert len(found) == 28 and len(torch.unique(found, dim=0)) == 28 and found.norm(dim=1).min() > 0
    assert len(drawn_from(sae, sample, 5, 2.0, generator)) == 5
    assert drawn_from(sae, torch.zeros(4, D), 3, 2.0, generator).shape == (0, D)
    assert drawn_from(sae, torch.zeros(0, D), 3, 2.0, generator).shape == (0, D)


def test_vectors_that_are_all_rebuilt_are_drawn_alike():
    sae = built(Relu(latents=2 * D, init="kaiming", l1=0.0), dead=[])
    with torch.no_grad():  # x = max(x, 0) - max(-x, 0)
        sae.dictionary.copy_(torch.cat([torch.eye(D), -torch.eye(D)]))
        sae.encoder.copy_(sae.dictionary)
        sae.encoder_bias.zero_()
    sample = torch.from_numpy(DATA[:6])
    assert not vector_losses(sae, sample).any()
    assert len(drawn_from(sae, sample, 4, 2.0, torch.Generator().manual_seed(0))) == 4


def test_where_no_latent_is_dead_no_vector_is_looked_at(tmp_path):
    rounds = fit([built(dead=[])], tmp_path, draw=lambda *_: pytest.fail("a pass over the data for nothing"))
    assert rounds == [{"epoch": epoch, "autoencoder": 0, "dead": 0, "restarted": 0} for epoch in (0, 1)]


@pytest.mark.parametrize("vectors", [1, 3])
def test_fewer_vectors_than_dead_latents_restart_as_many(vectors, tmp_path):
    sae = built(dead=[])
    look = Dying(sae)
    rounds = fit([sae], tmp_path, draw=lambda *_: sample_of(torch.from_numpy(DATA[:vectors])), callbacks=[look])
    assert rounds[1] == {"epoch": 1, "autoencoder": 0, "dead": 5, "restarted": vectors}
    changed = look.after["dictionary"].ne(look.before["dictionary"]).any(dim=1).nonzero().squeeze(1).tolist()
    assert changed == DEAD[:vectors]
    tiny = built()
    fit([tiny], tmp_path / "tiny", vectors=DATA[:3], draw=lambda *_: sample_of(torch.from_numpy(DATA[:3])))
    assert tiny.dictionary.isfinite().all()


def test_the_sample_is_as_large_as_asked_and_its_seed_changes_with_the_epoch(tmp_path):
    asked = []

    def draw(most: int, seed: int) -> Sample:
        asked.append((most, seed))
        return sample_of(1e-3 * torch.randn(80, D, generator=torch.Generator().manual_seed(seed)))

    class Bury(Callback):
        def on_train_epoch_end(self, trainer, module) -> None:
            module.each()[0].encoder_bias.data[DEAD] = -50.0

    rounds = fit([built()], tmp_path, draw=draw, callbacks=[Bury()])
    assert [one["dead"] for one in rounds] == [5, 5]
    assert [most for most, _ in asked] == [819_200, 819_200] and len({seed for _, seed in asked}) == 2


def test_a_seed_says_which_vectors_and_another_draws_others(tmp_path):
    saes = [built() for _ in range(3)]
    for number, (sae, seed) in enumerate(zip(saes, (5, 5, 6), strict=True)):
        fit([sae], tmp_path / str(number), seed=seed)
    assert torch.equal(saes[0].dictionary, saes[1].dictionary) and torch.equal(saes[0].encoder, saes[1].encoder)
    assert not torch.allclose(saes[0].dictionary[DEAD], saes[2].dictionary[DEAD], atol=0.1)


def test_a_window_is_since_the_last_round_and_one_firing_is_a_life(tmp_path):
    sae = built()

    class Wake(Callback):
        """Latent 3 is off but in the third update."""

        def on_train_batch_start(self, trainer, *_: object) -> None:
            sae.encoder_bias.data[DEAD] = -50.0
            sae.encoder_bias.data[3] = 50.0 if trainer.global_step == 2 else -50.0

    long = SaeTraining(epochs=7, batch_size=B, lr=1e-3)  # rounds after epochs 1 and 3, four updates an epoch
    store = store_of_array(tmp_path / "store", DATA)
    train = EmbeddingBatches(store, B, seed=1)
    job = SaeJob(
        train, None, long, TrainerSpec(accelerator="cpu"), 0, {}, all_vectors, Resampling(every=2), callbacks=[Wake()]
    )
    rounds = fit_saes([sae], job, tmp_path)
    assert [(one["epoch"], one["dead"]) for one in rounds] == [(1, 4), (3, 5)]


def test_a_round_reads_one_sample_in_chunks_for_all_autoencoders_and_then_what_was_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(sae_resample, "CHUNK", 16)
    reads: dict[int, list[list[int]]] = {}

    def draw(most: int, seed: int) -> Sample:
        assert seed not in reads
        own = reads[seed] = []
        return Sample(np.arange(70), lambda rows: own.append(rows.tolist()) or torch.from_numpy(DATA[rows]))

    saes = [built(), built(dead=[]), built(TopK(latents=H, k=H, auxk=0, bias="zeros"), dead=DEAD[:2])]
    rounds = fit(saes, tmp_path, draw=draw)
    dead = [one["dead"] for one in rounds[:3]]
    assert dead == [5, 0, 2] == [one["restarted"] for one in rounds[:3]]
    (*parts, first, third) = reads[min(reads)]
    assert [len(part) for part in parts] == [14] * 5 and np.concatenate(parts).tolist() == list(range(70))
    assert (len(first), len(third)) == (5, 2)
    reads.clear()
    alone = built()
    fit([alone], tmp_path / "alone", draw=draw)
    assert torch.equal(alone.dictionary, saes[0].dictionary)


def test_a_sample_takes_rows_in_any_order_and_has_parts_of_one_size():
    sample = Sample(np.array([3, 5, 6, 8, 9]), lambda rows: torch.from_numpy(DATA[rows]))
    assert torch.equal(sample.take(torch.tensor([4, 0])), torch.from_numpy(DATA[[9, 3]])) and len(sample) == 5
    parts = list(sample.chunks(4))
    assert [len(part) for part in parts] == [3, 2] and torch.equal(
        torch.cat(parts), torch.from_numpy(DATA[[3, 5, 6, 8, 9]])
    )
    assert not list(Sample(np.arange(0), lambda _: pytest.fail("nothing to read")).chunks(4))
