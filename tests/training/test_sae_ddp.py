"""Two ranks (gloo) train what one does: same weights on both, unit rows, the same latents dead, the same restarts."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning.callbacks import Callback

from aaca.data.embedding_batches import EmbeddingBatches
from aaca.data.embedding_writer import store_of_array
from aaca.data.embeddings import EmbeddingStore
from aaca.data.synthetic_sparse import SyntheticSparse
from aaca.models.sae.base import Known
from aaca.models.sae.relu import Relu
from aaca.models.sae.topk import TopK
from aaca.runtime.launch import launch
from aaca.runtime.ranks import current
from aaca.training.fit_sae import SaeJob, fit_saes
from aaca.training.resume import ResumeSpec
from aaca.training.sae_resample import Resampling, Sample
from aaca.training.sparse_autoencoder import SaeTraining
from aaca.training.trainer import TrainerSpec
from tests.toys import Killed, Stop

D, H, BATCH, BATCHES, EPOCHS = 8, 24, 16, 4, 20
ONLY = [5, 6]  # latents that fire for the second rank's second batch alone, and for no other
SPECS = [Relu(latents=H, init="kaiming", l1=0.01), TopK(latents=H, k=3, bias="zeros", dead_after=2 * BATCH)]


def vectors() -> np.ndarray:
    """The rows in the order in which one rank reads them: of each batch of 2·BATCH, half is the second rank's."""
    rows = SyntheticSparse(n=2 * BATCH * BATCHES, dim=D, atoms=12, seed=2).vectors()
    rows[:, 0] = -1.0
    rows.reshape(BATCHES, 2, BATCH, D)[1, 1, :, 0] = 1.0
    return rows


def built():
    known = Known(D, torch.zeros(D), torch.zeros(D), torch.zeros(0, D))
    saes = [spec.build(known, torch.Generator().manual_seed(0)) for spec in SPECS]
    for sae in saes:
        sae.encoder.data[ONLY] = torch.eye(D)[0] * 5.0  # further than an epoch could undo
        sae.encoder_bias.data[ONLY] = -1.0
        sae.encoder_bias.data[:4] = -50.0
    return saes


class Look(Callback):
    """What is so after each update, and which latents fired on this rank before the first round."""

    def __init__(self, saes) -> None:
        self.saes, self.lengths, self.differs = saes, 0.0, 0
        self.fired = [torch.zeros(H, dtype=torch.bool) for _ in saes]
        self.dead: list[list[int]] = []

    def on_train_batch_end(self, trainer, module, *_: Any) -> None:
        for index, (sae, own) in enumerate(zip(self.saes, module.fired, strict=True)):
            self.lengths = max(self.lengths, float((sae.dictionary.detach().norm(dim=1) - 1).abs().max()))
            if trainer.current_epoch == 0:
                self.fired[index] |= own
        if self.saes[1].updates % 32 == 1:  # they were looked up before the update
            self.dead.append(self.saes[1].dead.tolist())


def sha(values) -> str:
    return hashlib.sha256(b"".join(value.detach().numpy().tobytes() for value in values)).hexdigest()


def trained(folder: Path, name: str, stop: tuple[str, int] | None = None) -> dict[str, Any]:
    """What a rank ends with; all of it is plain."""
    ranks = current()
    store = EmbeddingStore.open(folder / f"store-{ranks.world}")
    train = EmbeddingBatches(
        store, 2 * BATCH // ranks.world, shuffle="none", resident="memory", rank=ranks.rank, world=ranks.world
    )
    saes, drawn = built(), []
    look = Look(saes)

    def draw(most: int, seed: int) -> Sample:
        drawn.append(seed)
        return Sample(np.arange(min(most, len(vectors()))), lambda rows: torch.from_numpy(vectors()[rows]))

    plan = SaeTraining(epochs=EPOCHS, batch_size=2 * BATCH // ranks.world, lr=1e-3)
    spec = TrainerSpec(accelerator="cpu", devices=ranks.world)
    callbacks = [look, *([Stop(*stop)] if stop else [])]
    resume = ResumeSpec(every=0 if stop else 300.0)
    job = SaeJob(train, train, plan, spec, 0, {}, draw, Resampling(every=1), callbacks=callbacks, resume=resume)
    rounds = fit_saes(saes, job, folder / name / str(ranks.world))
    return {
        "weights": [[value.tolist() for value in sae.parameters()] for sae in saes],
        "state": sha([value for sae in saes for value in sae.state_dict().values()]),
        "since_fired": [sae.since_fired.tolist() for sae in saes],
        "dead": look.dead,
        "fired": [fired.tolist() for fired in look.fired],
        "lengths": look.lengths,
        "rounds": rounds,
        "drawn": drawn,
    }


def train(argument: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """Of each rank: an uninterrupted fit, and one that was interrupted in an epoch's third update."""
    folder = Path(argument["folder"])
    whole = trained(folder, "whole")
    with pytest.raises(Killed):
        trained(folder, "cut", ("on_train_batch_start", 3 * BATCHES + 3))
    return current().exchange([whole, trained(folder, "cut")])


@pytest.fixture(scope="module")
def fits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fits")
    rows = vectors()
    store_of_array(folder / "store-1", rows)
    store_of_array(folder / "store-2", rows.reshape(BATCHES, 2, BATCH, D).swapaxes(0, 1).reshape(-1, D))
    one = trained(folder, "whole")
    two = launch("tests.training.test_sae_ddp:train", {"folder": str(folder)}, 2)
    return folder, json.loads(json.dumps(one)), [whole for whole, _ in two], [cut for _, cut in two]


def test_ranks_agree_in_weights_lengths_and_who_is_dead(fits):
    _, _, (first, second), _ = fits
    assert first["state"] == second["state"] and first["weights"] == second["weights"]
    assert max(first["lengths"], second["lengths"]) < 1e-6
    assert first["since_fired"] == second["since_fired"]
    assert first["dead"] == second["dead"] and len(first["dead"]) == -(-EPOCHS * BATCHES // 32) and any(first["dead"])
    assert first["drawn"] and not second["drawn"]  # only rank 0 reads vectors for it
    assert first["rounds"] == second["rounds"]


def test_a_latent_that_fires_on_any_rank_in_any_update_lives(fits):
    _, _, ranks, _ = fits
    for index in range(len(SPECS)):
        own = np.array([rank["fired"][index] for rank in ranks])
        assert own[1, ONLY].all() and not own[0, ONLY].any()
        (dead,) = [each["dead"] for each in ranks[0]["rounds"] if (each["epoch"], each["autoencoder"]) == (0, index)]
        assert dead == H - own.any(axis=0).sum() >= 4


def curves(folder: Path, name: str, world: int) -> dict[str, np.ndarray]:
    rows = np.genfromtxt(folder / name / str(world) / "log" / "metrics.csv", delimiter=",", names=True)
    return {name: rows[name] for name in rows.dtype.names}


def test_two_ranks_do_what_one_does_with_batches_twice_as_large(fits):
    folder, one, (two, _), _ = fits
    assert [each for each in one["rounds"] if not each["autoencoder"]] == [
        each for each in two["rounds"] if not each["autoencoder"]
    ]
    assert one["since_fired"][0] == two["since_fired"][0]
    for value, other in zip(one["weights"][0], two["weights"][0], strict=True):
        np.testing.assert_allclose(value, other, atol=1e-4)
    mine, theirs = (curves(folder, "whole", world) for world in (1, 2))
    assert mine.keys() == theirs.keys() and mine["auxk_1"][-1] > 0 < theirs["auxk_1"][-1]
    for name in mine:  # AuxK divides by a variance, that of a rank's own batch: with it two ranks are not as one
        if not name.endswith("_1"):
            np.testing.assert_allclose(theirs[name], mine[name], rtol=1e-4, err_msg=name)


def test_an_interrupted_fit_on_two_ranks_goes_on_to_the_bit(fits):
    folder, _, wholes, cuts = fits
    for whole, cut in zip(wholes, cuts, strict=True):
        assert (cut["state"], cut["rounds"]) == (whole["state"], whole["rounds"])
    mine, theirs = curves(folder, "cut", 2), curves(folder, "whole", 2)
    assert mine.keys() == theirs.keys()
    for name in mine:  # of the sums so far, ranks keep the mean
        np.testing.assert_allclose(mine[name], theirs[name], rtol=1e-6, err_msg=name)
