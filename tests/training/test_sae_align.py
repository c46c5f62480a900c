"""The words that the alignment loss pulls codes towards: right cosines, of the atoms now, and codes that follow."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from aaca.data.embedding_batches import EmbeddingBatches
from aaca.data.embedding_writer import store_of_array
from aaca.data.synthetic_sparse import SyntheticSparse
from aaca.models.sae.base import Known, SaeSpec, SparseAutoencoder
from aaca.models.sae.relu import Relu
from aaca.models.sae.topk import TopK
from aaca.training.fit_sae import SaeJob, fit_saes
from aaca.training.resume import ResumeSpec
from aaca.training.sae_align import CHUNK, AlignToWords, best_cosines
from aaca.training.sae_resample import Sample
from aaca.training.sparse_autoencoder import SaeTraining
from aaca.training.trainer import TrainerSpec
from tests.toys import Killed, Stop

D, H, B, BATCHES = 8, 24, 32, 6
DATA = SyntheticSparse(n=B * BATCHES, dim=D, atoms=12)
SPEC = Relu(latents=H, init="kaiming", l1=0.01, alignment=0.5)
WORDS = F.normalize(torch.randn(5, D, generator=torch.Generator().manual_seed(1)), dim=1)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return store_of_array(tmp_path_factory.mktemp("store") / "vectors", DATA.vectors())


def built(spec: SaeSpec = SPEC) -> SparseAutoencoder:
    known = Known(D, torch.zeros(D), torch.zeros(D), torch.zeros(0, D))
    return spec.build(known, torch.Generator().manual_seed(0))


def trained(store, folder: Path, *saes: SparseAutoencoder, epochs: int = 4, callbacks=(), every=0.0) -> None:
    job = SaeJob(
        train=EmbeddingBatches(store, B, seed=3),
        val=None,
        training=SaeTraining(epochs=epochs, batch_size=B, lr=1e-2),
        trainer=TrainerSpec(accelerator="cpu"),
        seed=3,
        settings={},
        draw=lambda count, seed: Sample(np.arange(0), lambda rows: torch.zeros(0, D)),
        resume=ResumeSpec(every=every),
        callbacks=[AlignToWords(WORDS), *callbacks],
    )
    fit_saes(saes, job, folder)


def alignment(sae: SparseAutoencoder, store) -> float:
    """The mean over vectors of ⟨z/‖z‖, v⟩, in float64 numpy."""
    with torch.no_grad():
        codes = sae.encode(torch.from_numpy(store.gather(np.arange(store.n)))).double().numpy()
    lengths = np.linalg.norm(codes, axis=1)
    assert (lengths > 0).mean() > 0.9
    atoms = sae.atoms.detach().double().numpy()
    best = (atoms @ WORDS.double().numpy().T / np.linalg.norm(atoms, axis=1, keepdims=True)).max(axis=1)
    return float((codes @ best / np.maximum(lengths, 1e-8)).mean())


@pytest.mark.parametrize("count", [1, CHUNK, 2 * CHUNK + 7])
def test_best_cosines_are_those_of_every_pair(count):
    rng = np.random.default_rng(0)
    atoms, words = rng.normal(size=(count, 6)) * rng.uniform(0.1, 9, (count, 1)), rng.normal(size=(40, 6))
    words /= np.linalg.norm(words, axis=1, keepdims=True)
    found = best_cosines(torch.from_numpy(atoms), torch.from_numpy(words))
    wanted = [max(float(word @ atom) for word in words) / np.linalg.norm(atom) for atom in atoms]
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-9)


class Look(Callback):
    """At every update: the words an autoencoder has, and what its atoms say."""

    def __init__(self, sae: SparseAutoencoder) -> None:
        self.sae, self.seen, self.now = sae, list[Tensor](), list[Tensor]()

    def on_train_batch_start(self, *_: object) -> None:
        self.seen.append(self.sae.words.clone())
        self.now.append(best_cosines(self.sae.atoms.detach(), WORDS))


def test_words_are_those_of_the_atoms_at_the_epoch_s_start_and_other_kinds_are_passed_over(store, tmp_path):
    sae, other = built(), built(TopK(latents=H, k=3, bias="zeros"))
    look = Look(sae)
    trained(store, tmp_path, sae, other, epochs=3, callbacks=[look])
    assert len(look.seen) == 3 * BATCHES
    for update, seen in enumerate(look.seen):
        assert torch.equal(seen, look.now[update // BATCHES * BATCHES])
    assert not torch.equal(look.now[0], look.now[BATCHES])
    alone = built(other.spec)
    trained(store, tmp_path / "alone", alone, epochs=3)
    assert torch.equal(other.encoder, alone.encoder)


def test_alignment_in_the_loss_makes_codes_more_aligned(store, tmp_path):
    with_it, without = built(), built(replace(SPEC, alignment=0.0))
    first = alignment(with_it, store)
    trained(store, tmp_path / "with", with_it, epochs=30, every=300.0)
    trained(store, tmp_path / "without", without, epochs=30, every=300.0)
    aligned, plain = alignment(with_it, store), alignment(without, store)
    assert aligned > plain + 0.1 and aligned > first + 0.1, (first, plain, aligned)


@pytest.mark.parametrize(("hook", "count"), [("on_train_batch_start", 9), ("on_train_epoch_start", 3)])
def test_a_fit_killed_within_or_between_epochs_goes_on_with_the_words_it_had(hook, count, store, tmp_path):
    whole, again = built(), built()
    trained(store, tmp_path / "whole", whole)
    with pytest.raises(Killed):
        trained(store, tmp_path / "cut", built(), callbacks=[Stop(hook, count)])
    look = Look(again)
    trained(store, tmp_path / "cut", again, callbacks=[look])
    assert 0 < len(look.seen) < 4 * BATCHES
    for name, value in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
