"""Training sparse autoencoders beside the libraries: d = 512, h = 4096, B = 2048, one thread, the same batches.

python tests/bench/sae_race.py [steps]     (needs the extra `oracle` and, without dependencies, overcomplete and
dictionary-learning; a library that is not installed is named and left out)

Each contender runs its own training step, with its own optimiser, at its fastest settings: no logs, no metrics. Ours
runs through `fit_saes`, Trainer and all. CPU seconds: what else the machine does matters less.
"""

import importlib.util
import logging
import statistics
import sys
import tempfile
import time
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib
import matplotlib.cm
import numpy as np
import torch
from torch import Tensor

from aaca.data.embedding_batches import EmbeddingBatches
from aaca.data.embedding_writer import store_of_array
from aaca.data.embeddings import EmbeddingStore
from aaca.models.sae.base import Known, SaeSpec
from aaca.models.sae.batchtopk import BatchTopK
from aaca.models.sae.relu import Relu
from aaca.models.sae.topk import TopK
from aaca.training.fit_sae import SaeJob, fit_saes
from aaca.training.sae_resample import Sample
from aaca.training.sparse_autoencoder import SaeTraining
from aaca.training.trainer import TrainerSpec

D, H, B, K, ROWS = 512, 4096, 2048, 32, 16_384
L1_MEAN = 1e-3
Timed = Callable[[Iterator[Tensor], int], None]
WARM = 2


def batches(store: EmbeddingStore) -> Iterator[Tensor]:
    """The same loader for all."""
    source, epoch = EmbeddingBatches(store, B, seed=0), 0
    while True:
        yield from source.epoch(epoch)
        epoch += 1


def ours(spec: SaeSpec, store: EmbeddingStore, precision: str = "32-true") -> Timed:
    def run(_: Iterator[Tensor], steps: int) -> None:
        known = Known(D, torch.from_numpy(store.mean), torch.from_numpy(store.mean), torch.zeros(0, D))
        sae = spec.build(known, torch.Generator().manual_seed(0))
        train = EmbeddingBatches(store, B, seed=0)
        plan = SaeTraining(epochs=max(1, steps // len(train)), batch_size=B, lr=1e-4)
        spec_of = TrainerSpec(accelerator="cpu", precision=precision)  # type: ignore[arg-type]
        job = SaeJob(
            train, None, plan, spec_of, 0, {}, lambda n, _: Sample(np.arange(0), lambda rows: torch.zeros(0, D))
        )
        with tempfile.TemporaryDirectory() as folder:
            fit_saes([sae], job, Path(folder))

    return run


def sae_lens(kind: str) -> Timed:
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
    from sae_lens.saes.standard_sae import StandardTrainingSAE, StandardTrainingSAEConfig
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.training.sae_trainer import SAETrainer

    common = {"d_in": D, "d_sae": H, "apply_b_dec_to_input": True}
    if kind == "relu":
        sae = StandardTrainingSAE(StandardTrainingSAEConfig(**common, l1_coefficient=L1_MEAN * D))
    elif kind == "topk":
        sae = TopKTrainingSAE(TopKTrainingSAEConfig(**common, k=K))
    else:
        sae = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(**common, k=K))

    def run(source: Iterator[Tensor], steps: int) -> None:
        config = SAETrainerConfig(
            total_training_samples=B * steps,
            train_batch_size_samples=B,
            lr_end=3e-4,
            logger=LoggingConfig(log_to_wandb=False),
        )
        trainer = SAETrainer(cfg=config, sae=sae, data_provider=source)
        for _ in range(steps):
            trainer._train_step(sae=sae, sae_in=next(source))

    return run


def dictionary_learning(kind: str) -> Timed:
    for name, attribute in (("nnsight", "LanguageModel"), ("circuitsvis", ""), ("umap", "")):
        # of its language-model side, which training does not touch
        if name not in sys.modules and importlib.util.find_spec(name) is None:
            sys.modules[name] = types.ModuleType(name)
            setattr(sys.modules[name], attribute or "unused", object)
    from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer
    from dictionary_learning.trainers.standard import StandardTrainer
    from dictionary_learning.trainers.top_k import TopKTrainer

    common = {"steps": 10**6, "activation_dim": D, "dict_size": H, "layer": 0, "lm_name": "none", "device": "cpu"}
    if kind == "relu":
        trainer = StandardTrainer(**common, l1_penalty=L1_MEAN * D)
    else:
        trainer = {"topk": TopKTrainer, "batchtopk": BatchTopKTrainer}[kind](**common, k=K)

    def run(source: Iterator[Tensor], steps: int) -> None:
        for step in range(1, steps + 1):  # step 0 would look for a geometric median
            trainer.update(step, next(source))

    return run


def overcomplete(kind: str) -> Timed:
    if not hasattr(matplotlib.cm, "get_cmap"):  # 0.3.0 asks for what newer matplotlibs have elsewhere
        matplotlib.cm.get_cmap = matplotlib.colormaps.get_cmap  # type: ignore[attr-defined]
    from overcomplete.sae import SAE, BatchTopKSAE, TopKSAE
    from overcomplete.sae.losses import mse_l1
    from overcomplete.sae.train import train_sae

    if kind == "relu":
        model = SAE(D, H)
    else:
        model = TopKSAE(D, H, top_k=K) if kind == "topk" else BatchTopKSAE(D, H, top_k=K * B)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

    def loss(x: Tensor, x_hat: Tensor, pre: Tensor, codes: Tensor, dictionary: Tensor) -> Tensor:
        if kind == "relu":
            return mse_l1(x, x_hat, pre, codes, dictionary, L1_MEAN)
        return (x - x_hat).square().mean()

    def run(source: Iterator[Tensor], steps: int) -> None:
        train_sae(model, [next(source) for _ in range(steps)], loss, optimizer, nb_epochs=1, monitoring=0)

    return run


PEERS = {"sae-lens": sae_lens, "dictionary-learning": dictionary_learning, "overcomplete": overcomplete}


def measured(run: Timed, store: EmbeddingStore, steps: int) -> float:
    """Vectors a CPU second."""
    source = batches(store)
    run(source, WARM)
    began = time.process_time()
    run(source, steps)
    return steps * B / (time.process_time() - began)


def main(steps: int, rounds: int = 3) -> None:
    torch.set_num_threads(1)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    specs: dict[str, SaeSpec] = {
        "relu": Relu(l1=L1_MEAN, init="transpose"),
        "topk": TopK(k=K),
        "batchtopk": BatchTopK(k=K),
    }
    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        store = store_of_array(Path(folder) / "store", rng.normal(size=(ROWS, D)).astype(np.float32))
        steps = max(steps, ROWS // B) // (ROWS // B) * (ROWS // B)
        for kind, spec in specs.items():
            field: dict[str, Timed] = {"aaca": ours(spec, store)}
            for name, make in PEERS.items():
                try:
                    field[name] = make(kind)
                except ImportError as error:
                    print(f"{name}: left out ({error})")
            found: dict[str, list[float]] = {name: [] for name in field}
            for _ in range(rounds):
                for name, run in field.items():
                    found[name].append(measured(run, store, steps))
            speeds = {name: statistics.median(values) for name, values in found.items()}
            rivals = {name: speed for name, speed in speeds.items() if name != "aaca"}
            line = ", ".join(f"{name} {speed:,.0f}" for name, speed in speeds.items())
            print(f"{kind}: vectors a CPU second: {line}", end="")
            print(f"; ours {speeds['aaca'] / max(rivals.values()):.2f} times the best" if rivals else "", flush=True)
        half = measured(ours(specs["relu"], store, "bf16-mixed"), store, steps)
        print(f"relu in bf16-mixed: {half:,.0f}")


if __name__ == "__main__":
    main(*[int(value) for value in sys.argv[1:]] or [16])
