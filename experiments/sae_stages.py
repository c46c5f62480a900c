"""The stages around a sparse autoencoder: embeddings, autoencoders, codes, names, probe."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pytorch_lightning.loggers import Logger
from scipy.sparse import csr_array, load_npz, save_npz
from torch import Tensor

from aaca.concepts.naming import best_words, duplicates, name_agreement, name_latents, seed_stability, write_csv
from aaca.concepts.naming_check import by_correlation, soft_wpmi
from aaca.concepts.vocab_store import VocabStore
from aaca.data.benchmark import Benchmark
from aaca.data.embedding_batches import EmbeddingBatches
from aaca.data.embedding_shards import Dtype
from aaca.data.embedding_statistics import geometric_median
from aaca.data.embedding_writer import EmbeddingWriter, store_of_array
from aaca.data.embeddings import EmbeddingStore, StoreView
from aaca.data.synthetic_sparse import SyntheticSparse
from aaca.data.webdataset_tars import Tars
from aaca.evaluate.bottleneck import accuracy_at_nec, nec
from aaca.evaluate.sparse import SparseMetrics
from aaca.models.bottleneck import Scaling, encode_sparse
from aaca.models.bottleneck import without as off
from aaca.models.classifier import Classifier, ClassifierSource
from aaca.models.sae import exchange
from aaca.models.sae.base import Known, SparseAutoencoder
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
from aaca.training.sparse_probe import Probe, path
from aaca.training.trainer import TrainerSpec
from aaca.world.language import with_article

from .naming_config import NamingConfig
from .trained_config import TrainedConfig

SCALING, METRICS, ROUNDS = "scaling.safetensors", "metrics.json", "resampled.json"
NAMES, CSV, DUPLICATES, CHECK, STABILITY = (
    "names.parquet",
    "concept_names.csv",
    "duplicates.csv",
    "check.parquet",
    "stability.json",
)
CODES, PROBE, BY_NEC = "codes.npz", "probe", "accuracy.json"
SAMPLE = 20_000  # vectors that starts are drawn from
MEASURED, MOST = 4096, 200_000  # vectors that are encoded at once, and in all, to say what an autoencoder is worth


Loggers = Callable[[str, Path], AbstractContextManager[list[Logger]]]


def no_loggers(stage: str, folder: Path) -> AbstractContextManager[list[Logger]]:
    """Nobody watches."""
    return nullcontext([])


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
            spoken = self._vocabulary(naming, self._text(), words) if naming is not None and words else None
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
            **({"words": words, "spoken": self._spoken(naming)} if naming is not None and words else {}),
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

    def _spoken(self, naming: NamingConfig) -> dict[str, Any]:
        # what the words' vectors depend on besides the words
        return {
            "articles": naming.vocabulary is None,
            "vectors": None if naming.vectors is None else file_sha256(Path(naming.vectors)),
            "templates": naming.templates or self._text().templates,
            "clip": self._text().fingerprint(),
        }

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
            save_npz(folder / CODES, encode_sparse(sae, _Rows(store), scaling))

        stage = self.cache.stage("codes", {"sae": saes.key, "store": key}, make, split)
        return stage.key, csr_array(load_npz(stage.folder / CODES))

    def names(self, saes: Stage, naming: NamingConfig, clip: ClipModel, classes: Sequence[str]) -> Stage:
        """The names of all latents, with what they are worth: gates, duplicates, a second judge, other seeds."""
        words = naming.words(classes)
        keys = self.learnt_from()[0]
        judged = self.splits[0] if isinstance(self.source, Benchmark) else "all"
        codes_key, codes = self.codes(saes, judged)

        def make(folder: Path) -> None:
            vocab = self._vocabulary(naming, clip, words)
            vocab.save(folder / "vocabulary")
            store = self.store(judged)[1]
            density = np.bincount(codes.indices, minlength=codes.shape[1]) / max(1, codes.shape[0])
            mean = None
            if naming.center_images:
                mean = _unit(store.gather(self._seen(store))).mean(axis=0)

            def named(number: int, of: np.ndarray | None) -> pd.DataFrame:
                return name_latents(
                    load_sae(saes.folder, number)[0].atoms.detach().numpy().T,
                    vocab,
                    naming.top,
                    naming.center_words,
                    mean,
                    of,
                    naming.least_cosine,
                    naming.least_density,
                )

            names = named(0, density)
            names.to_parquet(folder / NAMES, index=False)
            best = best_words(names)
            write_csv(names, folder / CSV)
            duplicates(names[(names["rank"] == 1) & names["named"]]).to_csv(folder / DUPLICATES, index=False)
            self._judge(naming, vocab, codes, store, best, folder)
            self._stability(saes, names, named, folder)

        inputs = {
            "sae": saes.key,
            "naming": {name: value for name, value in vars(naming).items() if name not in ("vocabulary", "vectors")},
            "words": words,
            "spoken": self._spoken(naming),
            "codes": codes_key,
            "stores": keys,
        }
        return self.cache.stage("names", inputs, make)

    def _vocabulary(self, naming: NamingConfig, clip: ClipModel, words: list[str]) -> VocabStore:
        templates = naming.templates or clip.templates
        model = clip.load()
        model.templates = templates
        if naming.vectors is not None and naming.vocabulary is not None:
            return VocabStore.import_torch(
                Path(naming.vocabulary), Path(naming.vectors), {"templates": templates, "encoder": clip.fingerprint()}
            )
        phrased = dict(zip(words, naming.spoken(words), strict=True))
        return VocabStore.embed(
            words,
            lambda part: model.text_vectors([phrased[word] for word in part]),
            {"templates": templates, "encoder": clip.fingerprint()},
        )

    def _judge(
        self,
        naming: NamingConfig,
        vocab: VocabStore,
        codes: csr_array,
        store: EmbeddingStore,
        best: list[str],
        folder: Path,
    ) -> None:
        if naming.check == "none":
            return
        rows = self._seen(store)
        similar = _unit(store.gather(rows)) @ vocab.vectors.T
        judge = by_correlation if naming.check == "correlation" else soft_wpmi
        judge(codes[rows], similar, vocab.words, best).to_parquet(folder / CHECK, index=False)

    def _seen(self, store: EmbeddingStore) -> np.ndarray:
        return some_rows(store.n, SAMPLE, purpose_seed(self.seed, "seen") % 2**31)

    def _stability(self, saes: Stage, names: pd.DataFrame, named: Any, folder: Path) -> None:
        first = load_sae(saes.folder)[0].atoms.detach().numpy().T
        found = []
        for number in range(1, self.recipe.repeats):
            other = load_sae(saes.folder, number)[0].atoms.detach().numpy().T
            stability = seed_stability(first, other)
            agrees = name_agreement(names, named(number, None), stability.partner)
            found.append({"seed": self.seed + number, "cosine": float(stability.mean), "same_name": float(agrees)})
        write_json(folder / STABILITY, {"against": found})

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
            save_npz(folder / CODES, encode_sparse(random.eval(), _Rows(store), scaling))

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


class _Rows:
    """A store, sliced like an array."""

    def __init__(self, store: EmbeddingStore) -> None:
        self.store = store

    def __len__(self) -> int:
        return self.store.n

    def __getitem__(self, part: slice) -> np.ndarray:
        return self.store.gather(np.arange(*part.indices(self.store.n)))


def joined(stores: list[EmbeddingStore], folder: Path) -> EmbeddingStore:
    """One store of several; of several, a copy in the work folder that is not kept."""
    if len(stores) == 1:
        return stores[0]
    place = folder / "resume" / "vectors"
    if current().rank == 0 and not (place / "manifest.json").is_file():
        about = {"joined": [store.content for store in stores]}
        dtype: Dtype = "float16" if all(store.dtype == "float16" for store in stores) else "float32"
        writer, passed = EmbeddingWriter(place, stores[0].dim, dtype, about), 0
        for store in stores:
            for start in range(0, store.n, SAMPLE):
                rows = np.arange(start, min(start + SAMPLE, store.n))
                begin = min(len(rows), max(0, writer.done - passed))
                passed += len(rows)
                if begin < len(rows):
                    writer.add(store.fetch(rows[begin:]), [f"{store.content[:8]}/{row}" for row in rows[begin:]])
        writer.close()
    current().exchange("joined")
    return EmbeddingStore.open(place)


def some_rows(count: int, most: int, seed: int) -> np.ndarray:
    """At most `most` of `count` rows at random, ascending."""
    return np.sort(np.random.default_rng(seed).permutation(count)[:most])


def read_given(place: Path, kind: str) -> tuple[SparseAutoencoder, Scaling]:
    """An autoencoder made elsewhere, and what its vectors go through: of other formats, nothing."""
    if kind == "aaca":
        return load_sae(place)
    readers = {
        "dncbm": exchange.read_dncbm,
        "saelens": exchange.read_saelens,
        "dictionary_learning": exchange.read_dictionary_learning,
    }
    sae = readers[kind](place).eval()
    return sae, Scaling(torch.zeros(len(sae.bias)))


def worth(sae: SparseAutoencoder, scaling: Scaling, source: EmbeddingStore | StoreView) -> dict[str, Any]:
    """What its reconstructions of at most `MOST` vectors are worth."""
    metrics = SparseMetrics(len(sae.bias), sae.latents, sync_on_compute=False)  # rank 0 is alone here
    rows = some_rows(source.n, MOST, 0)
    with torch.no_grad():
        for part in np.array_split(rows, max(1, len(rows) // MEASURED)):
            batch = scaling(torch.from_numpy(source.gather(part)))
            codes = sae.encode(batch)
            metrics.update(batch, sae.decode(codes), codes)
    return {name: _plain(value) for name, value in metrics.compute().items()}


def load_sae(folder: Path, number: int = 0) -> tuple[SparseAutoencoder, Scaling]:
    """An autoencoder of the stage `sae`, and what its vectors went through."""
    return exchange.load(folder / str(number)).eval(), Scaling.load(folder / SCALING)


def load_probe(stage: Stage) -> Probe:
    """The probe of a stage."""
    return Probe.load(stage.folder / PROBE)


def load_names(stage: Stage) -> tuple[pd.DataFrame, list[str]]:
    """(all names, the best one of each latent: "" where it did not pass the gates)."""
    names = pd.read_parquet(stage.folder / NAMES)
    passed = names[names["rank"] == 1].sort_values("latent")["named"]
    return names, [word if is_named else "" for word, is_named in zip(best_words(names), passed, strict=True)]


def load_metrics(stage: Stage) -> list[dict[str, Any]]:
    """What the autoencoders of a stage are worth; `measured` in the file says on which vectors."""
    found: list[dict[str, Any]] = read_json(stage.folder / METRICS)["saes"]
    return found


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, Tensor | np.ndarray) else value
