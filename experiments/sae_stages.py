"""The stages around a sparse autoencoder: embeddings, autoencoders, codes, names, probe."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array, load_npz, save_npz

from aaca.data.benchmark import Benchmark
from aaca.data.embedding_batches import EmbeddingBatches
from aaca.data.embedding_shards import Dtype
from aaca.data.embedding_statistics import geometric_median
from aaca.data.embedding_writer import store_of_array
from aaca.data.embeddings import EmbeddingStore, StoreView
from aaca.data.synthetic_sparse import SyntheticSparse
from aaca.data.webdataset_tars import Tars
from aaca.evaluate.bottleneck import accuracy_at_nec, nec
from aaca.models.bottleneck import Scaling, encode_sparse
from aaca.models.bottleneck import without as off
from aaca.models.classifier import Classifier, ClassifierSource
from aaca.models.sae import exchange
from aaca.models.sae.base import Known
from aaca.models.sae.topk import TopK
from aaca.models.zero_shot import ClipModel, ZeroShot
from aaca.runtime.config import identity
from aaca.runtime.errors import ConfigError, nearest
from aaca.runtime.files import file_sha256, read_json, write_json
from aaca.runtime.ranks import current
from aaca.runtime.seeding import purpose_seed
from aaca.runtime.stages import Stage, StageCache
from aaca.training.embed import STORE, embed_table, embed_tars
from aaca.training.fit_sae import SaeJob, SaeRecipe, fit_saes
from aaca.training.probes import ProbeSpec
from aaca.training.resume import ResumeSpec
from aaca.training.sae_align import AlignToWords
from aaca.training.sae_resample import Sample
from aaca.training.sparse_probe import path
from aaca.training.trainer import TrainerSpec
from aaca.world.language import with_article

from .naming_config import NamingConfig
from .sae_files import (
    BY_NEC,
    CODES,
    METRICS,
    PROBE,
    ROUNDS,
    SAMPLE,
    SCALING,
    Loggers,
    Rows,
    joined,
    load_metrics,
    load_sae,
    no_loggers,
    read_given,
    some_rows,
    worth,
)
from .sae_names import spoken_by, words_spoken
from .trained_config import TrainedConfig


@dataclass
class SaeStages:
    """Each method makes or finds one stage, whose key holds exactly what influences it.

    `source`: the images' stage key and the benchmark, or another source of vectors. `encoder`: the image-text model, or
    a classifier whose embeddings are meant.
    """

    cache: StageCache
    source_key: str
    source: Benchmark | SyntheticSparse | Tars
    encoder: ClipModel | ClassifierSource | None
    recipe: SaeRecipe
    trainer: TrainerSpec
    resume: ResumeSpec
    seed: int
    splits: Sequence[str]
    dtype: Dtype = "float16"
    batch_size: int = 128
    shard_rows: int = 100_000
    trained: TrainedConfig | None = None
    loggers: Loggers = no_loggers
    stores: dict[str, tuple[str, EmbeddingStore]] = field(default_factory=dict)

    def store(self, split: str) -> tuple[str, EmbeddingStore]:
        """(key, vectors of the images of a split); of a source without splits: `all`."""
        if split in self.stores:
            return self.stores[split]
        source = self.source
        about: dict[str, Any] = {"source": self.source_key, "rows": split, "encoder": self._encoder_inputs()}

        def make(folder: Path) -> None:
            if isinstance(source, SyntheticSparse):
                if current().rank == 0:
                    store_of_array(folder / STORE, source.vectors(), about=about)
                current().exchange("written")
            elif isinstance(source, Tars):
                device = "cuda" if self.trainer.device_kind == "gpu" else "cpu"
                tars = Path(source.root)
                embed_tars(self._network(()), tars, folder, device, self.batch_size, about, self.dtype, self.shard_rows)
            else:
                network = self._network(source.classes)
                embed_table(
                    network,
                    source.split(split),
                    folder,
                    self.trainer,
                    self.batch_size,
                    about,
                    self.dtype,
                    self.shard_rows,
                    f"embed {split}",
                    self.resume.every,
                )

        inputs = {**about, "dtype": self.dtype, "shard_rows": self.shard_rows}
        stage = self.cache.stage("embeddings", inputs, make, split, together=True)
        self.stores[split] = stage.key, EmbeddingStore.open(stage.folder / STORE)
        return self.stores[split]

    def _encoder_inputs(self) -> dict[str, Any]:
        if isinstance(self.source, SyntheticSparse) or self.encoder is None:
            return {}
        kind = {"precision": self.trainer.precision, "accelerator": self.trainer.device_kind}
        return {**self.encoder.fingerprint(), **kind}

    def _network(self, classes: Sequence[str]) -> Classifier:
        if isinstance(self.encoder, ClipModel):
            names = [with_article(name) for name in classes] or ["a photo"]
            return ZeroShot(self.encoder.load(), names, raw=True).eval()
        assert self.encoder is not None
        return self.encoder.build(max(2, len(classes)), 0.0).eval()

    def learnt_from(self) -> tuple[list[str], list[EmbeddingStore]]:
        """(keys, stores) of the splits that the autoencoder learns from."""
        splits = list(self.splits) if isinstance(self.source, Benchmark) else ["all"]
        if isinstance(self.source, Benchmark):
            known = sorted(set(self.source.table.frame["split"]))
            for split in splits:
                if split not in known:
                    raise ConfigError(f"features.splits: {split!r}; {nearest(split, known)}")
        keys, stores = zip(*(self.store(split) for split in splits), strict=True)
        return list(keys), list(stores)

    def saes(self, naming: NamingConfig | None = None) -> Stage:
        """The trained autoencoders, one a seed, in folders 0, 1, …; what they are worth; how vectors were scaled.

        `naming`: where the alignment loss finds its words. Raises `ConfigError` where it is asked for without them.
        """
        recipe, (keys, stores) = self.recipe, self.learnt_from()
        if self.trained is not None and self.trained.path is not None:
            return self._given(self.trained, keys, stores[0])
        words = self._aligned_words(naming)

        def make(folder: Path) -> None:
            spoken = words_spoken(naming, self._text(), words) if naming is not None and words else None
            train, val, known, scaling, draw = self._data(stores, folder)
            seeds = [purpose_seed(self.seed + number, "sae") for number in range(recipe.repeats)]
            saes = [recipe.model.build(known, torch.Generator().manual_seed(seed % 2**63)) for seed in seeds]
            job = SaeJob(
                train=train,
                val=val,
                training=recipe.training,
                trainer=self.trainer,
                seed=purpose_seed(self.seed, "order") % 2**31,
                settings={"stores": keys, "sae": recipe.fingerprint()},
                draw=draw,
                resampling=recipe.resampling,
                resume=self.resume,
                callbacks=[AlignToWords(torch.from_numpy(spoken.vectors))] if spoken else [],
            )
            with self.loggers("sae", folder) if current().rank == 0 else nullcontext([]) as loggers:
                rounds = fit_saes(saes, replace(job, loggers=loggers), folder)
            if current().rank != 0:
                return
            source = (train if val is None else val).source  # all of it, not this rank's share
            for number, sae in enumerate(saes):
                exchange.save(sae.cpu().eval(), folder / str(number))
            measured = "vectors held out" if val is not None else "training vectors"
            write_json(folder / METRICS, {"measured": measured, "saes": [worth(sae, scaling, source) for sae in saes]})
            write_json(folder / ROUNDS, {"rounds": rounds})
            scaling.save(folder / SCALING)

        inputs = {
            "stores": keys,
            "sae": recipe.fingerprint(),
            "seed": self.seed,
            **({"words": words, "spoken": spoken_by(naming, self._text())} if naming is not None and words else {}),
            "devices": self.trainer.world,
            "precision": self.trainer.precision,
            "accelerator": self.trainer.device_kind,
        }
        return self.cache.stage("sae", inputs, make, recipe.model.name, together=True)

    def _given(self, trained: TrainedConfig, keys: list[str], store: EmbeddingStore) -> Stage:
        place = Path(str(trained.path))

        def make(folder: Path) -> None:
            sae, scaling = read_given(place, trained.format)
            if len(sae.bias) != store.dim:
                raise ConfigError(f"trained.path: takes vectors of {len(sae.bias)} numbers; these have {store.dim}")
            exchange.save(sae, folder / "0")
            scaling.save(folder / SCALING)
            write_json(folder / METRICS, {"measured": "other vectors", "saes": [worth(sae, scaling, store)]})
            write_json(folder / ROUNDS, {"rounds": []})

        files = [place] if place.is_file() else sorted(file for file in place.rglob("*") if file.is_file())
        known = [[str(file.relative_to(place)), file_sha256(file)] for file in files]
        inputs = {"given": known, "format": trained.format, "stores": keys}
        return self.cache.stage("sae", inputs, make, trained.format)

    def _text(self) -> ClipModel:
        assert isinstance(self.encoder, ClipModel)
        return self.encoder

    def _aligned_words(self, naming: NamingConfig | None) -> list[str] | None:
        if not getattr(self.recipe.model, "alignment", 0.0):
            return None
        if naming is None or not isinstance(self.encoder, ClipModel) or isinstance(self.source, SyntheticSparse):
            raise ConfigError("sae.model.alignment: needs words, and so an image-text model's vectors; expected 0")
        return naming.words(self.source.classes if isinstance(self.source, Benchmark) else ())

    def _data(
        self, stores: list[EmbeddingStore], folder: Path
    ) -> tuple[EmbeddingBatches, EmbeddingBatches | None, Known, Scaling, Any]:
        recipe, ranks = self.recipe, current()
        store = joined(stores, folder)
        rng = np.random.default_rng(purpose_seed(self.seed, "holdout"))
        order = rng.permutation(store.n)
        kept = int(recipe.holdout * store.n)
        parts = np.sort(order[kept:]), np.sort(order[:kept])
        device = "cuda" if self.trainer.device_kind == "gpu" else "cpu"
        size = recipe.training.batch_size

        def batches(source: EmbeddingStore | StoreView, shuffle: Any, drop: bool, batch: int) -> EmbeddingBatches:
            return EmbeddingBatches(
                source,
                batch,
                shuffle=shuffle,
                block_rows=recipe.block_rows,
                device=device,
                seed=purpose_seed(self.seed, "order") % 2**31,
                center=recipe.center,
                scale=recipe.scale,
                resident=recipe.resident,
                drop_last=drop,
                rank=ranks.rank,
                world=ranks.world,
            )

        seen = store.take_split(parts[0]) if kept else store
        if len(parts[0]) < size * ranks.world:
            raise ConfigError(
                f"sae.training.batch_size: {size} on {ranks.world} device(s), but there are {len(parts[0])} training "
                f"vectors; expected at most {len(parts[0]) // ranks.world}"
            )
        train = batches(seen, recipe.shuffle, True, size)
        held = batches(store.take_split(parts[1]), "none", False, min(size, kept)) if kept >= ranks.world else None
        offset = torch.zeros(store.dim) if train.offset is None else train.offset.cpu()
        scaling = Scaling(offset, train.factor, train.unit)

        def draw(count: int, seed: int) -> Sample:
            return Sample(some_rows(seen.n, count, seed), lambda rows: scaling(torch.from_numpy(seen.gather(rows))))

        rows = some_rows(seen.n, SAMPLE, purpose_seed(self.seed, "known") % 2**31)
        sample = scaling(torch.from_numpy(seen.gather(rows)))
        if scaling.unit:  # means do not go through it
            mean, median = sample.mean(dim=0), torch.from_numpy(geometric_median(sample.numpy())).float()
        else:
            mean, median = (
                scaling(torch.from_numpy(np.asarray(value, dtype=np.float32))[None])[0]
                for value in (store.mean, store.geometric_median)
            )
        return train, held, Known(store.dim, mean, median, sample), scaling, draw

    def codes(self, saes: Stage, split: str) -> tuple[str, csr_array]:
        """(key, codes `[N, H]` of the images of a split by the first autoencoder)."""
        key, store = self.store(split)

        def make(folder: Path) -> None:
            sae, scaling = load_sae(saes.folder)
            save_npz(folder / CODES, encode_sparse(sae, Rows(store), scaling))

        stage = self.cache.stage("codes", {"sae": saes.key, "store": key}, make, split)
        return stage.key, csr_array(load_npz(stage.folder / CODES))

    def probe(self, saes: Stage, spec: ProbeSpec, split: str = "train", without: Sequence[int] = ()) -> Stage:
        """A probe of the codes of a split; `without`: latents that it must not see."""
        assert isinstance(self.source, Benchmark)
        key, codes = self.codes(saes, split)
        labels, classes = self.source.split(split).labels, self.source.classes
        seed = purpose_seed(self.seed, "probe") % 2**31

        def make(folder: Path) -> None:
            spec.fit(off(codes, without), labels, len(classes), seed, folder / "resume").save(folder / PROBE)

        inputs = {"codes": key, "probe": identity(spec), "seed": seed, "without": sorted(without)}
        return self.cache.stage("probe", inputs, make, f"without {len(without)}" if without else "")

    def random_codes(self, saes: Stage, split: str) -> tuple[str, csr_array]:
        """(key, codes of a split by as many random directions, as many of them on as the autoencoder's on average).

        What a probe can do with these is not the concepts' merit (random words in VLG-CBM, Srivastava et al. 2024).
        """
        key, store = self.store(split)
        on = max(1, round(load_metrics(saes)[0]["l0_mean"]))

        def make(folder: Path) -> None:
            sae, scaling = load_sae(saes.folder)
            spec = TopK(latents=sae.latents, k=min(on, sae.latents), auxk=0.0)
            mean = scaling(torch.from_numpy(np.asarray(store.mean, dtype=np.float32))[None])[0]
            generator = torch.Generator().manual_seed(purpose_seed(self.seed, "random directions") % 2**63)
            random = spec.build(Known(store.dim, mean, mean, mean[None]), generator)
            save_npz(folder / CODES, encode_sparse(random.eval(), Rows(store), scaling))

        inputs = {"sae": saes.key, "store": key, "on": on, "seed": self.seed}
        stage = self.cache.stage("random_codes", inputs, make, split)
        return stage.key, csr_array(load_npz(stage.folder / CODES))

    def at_nec(self, saes: Stage, targets: Sequence[int], at_random: bool = False) -> dict[float, float]:
        """Accuracy on test at those of the targets (NEC) that the path of probes on train reaches; of any probe= one.

        A stage of its own, since a path is many fits. `at_random`: of random directions.
        """
        assert isinstance(self.source, Benchmark)
        benchmark = self.source
        (train_key, train), (test_key, test) = (
            self.random_codes(saes, split) if at_random else self.codes(saes, split) for split in ("train", "test")
        )

        def make(folder: Path) -> None:
            probes = path(train, benchmark.split("train").labels, len(benchmark.classes), nec_limit=max(targets))
            weights, biases = [probe.weight for probe in probes], [probe.bias for probe in probes]
            reached = [target for target in targets if nec(weights[-1]) >= target]
            labels, first = benchmark.split("test").labels, probes[0]
            found = accuracy_at_nec(weights, biases, test, labels, reached, first.mean, first.scale) if reached else {}
            write_json(folder / BY_NEC, {"accuracy": [[target, found[target]] for target in reached]})

        stage = self.cache.stage("at_nec", {"train": train_key, "test": test_key, "targets": list(targets)}, make)
        return {target: accuracy for target, accuracy in read_json(stage.folder / BY_NEC)["accuracy"]}
