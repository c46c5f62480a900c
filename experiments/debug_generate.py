"""The stages that make images for a debug set: prompts, tokens, images, their vectors; and the filters' verdict."""

import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from aaca.concepts.concept_sets import ConceptSets
from aaca.data.benchmark import Benchmark
from aaca.data.features import Scored
from aaca.data.table import ImageTable
from aaca.debugset.build import select_debug_set
from aaca.debugset.debug_set import DebugSet
from aaca.debugset.filters import Looks, funnel, reasons_to_drop, rivals_of, thumbnails_of
from aaca.debugset.generators.base import Request
from aaca.debugset.prompts.base import Prompt, class_noun, class_phrase
from aaca.debugset.quotas import Quotas
from aaca.models.tokens import FILE, token_names
from aaca.runtime.config import identity
from aaca.runtime.files import read_json, write_json
from aaca.runtime.ranks import current
from aaca.runtime.seeding import purpose_seed
from aaca.runtime.stages import Stage, StageCache
from aaca.training.generate import IMAGES, generate_images, redraws

from .debug_clip import Looking
from .debug_config import DebugConfig, Generation
from .debug_outcome import CANDIDATES
from .debug_quality import quality_of

log = logging.getLogger(__name__)
TABLE = "generated.parquet"


@dataclass(frozen=True)
class Generated:
    """What a generator made, and what it was asked for."""

    key: str  # of the images' stage
    table: ImageTable  # of the images there are
    requested: pd.DataFrame  # of all, failed ones included
    asked: dict[int, int]  # label → how many
    redrawn: dict[int, int]  # label → blank ones before them


class GenerateStages:
    """Each method makes or finds one stage, whose key holds exactly what influences it."""

    def __init__(
        self,
        options: DebugConfig,
        cache: StageCache,
        benchmark_key: str,
        benchmark: Benchmark,
        sets: ConceptSets | None = None,
    ) -> None:
        assert options.generator is not None
        self.options, self.cache = options, cache
        self.parts: Generation = options.generation()
        self.benchmark_key, self.benchmark = benchmark_key, benchmark
        self.classes = benchmark.classes
        self.looking = Looking(options, cache, benchmark_key, benchmark)
        self.sets = sets

    def _on(self) -> dict[str, str]:
        # drawing and looking do not depend on how many devices share it, but on what kind they are
        return {"precision": self.options.trainer.precision, "accelerator": self.options.trainer.device_kind}

    def prompts(self) -> tuple[Stage, list[Prompt]]:
        """What is asked for."""
        writer = self.parts.prompts if self.sets is None else self.parts.prompts.using(self.sets)

        def make(folder: Path) -> None:
            answers = Path(self.options.paths.root).absolute() / "llm"
            write_json(folder / "prompts.json", [asdict(prompt) for prompt in writer.write(self.classes, answers)])

        inputs = {"classes": list(self.classes), "writer": type(writer).__name__, "config": _plain(writer)}
        stage = self.cache.stage("prompts", {**inputs, **writer.fingerprint()}, make)
        return stage, [Prompt(**entry) for entry in read_json(stage.folder / "prompts.json")]

    def tokens(self) -> tuple[str, dict[str, Path]]:
        """(key, token → file) of the learned tokens; nothing where the generator wants none."""
        options, parts = self.options, self.parts
        if not parts.generator.needs_tokens:
            return "", {}
        names = token_names(self.classes)
        seed = purpose_seed(options.seed, "inversion")

        def make(folder: Path) -> None:
            from aaca.training.textual_inversion import learn_tokens  # diffusers: seconds

            pipeline = parts.diffusion.load()
            size = parts.diffusion.size or pipeline.unet.config.sample_size * pipeline.vae_scale_factor
            nouns, train = [class_noun(name) for name in self.classes], self.benchmark.split("train")
            learn_tokens(
                pipeline, names, nouns, train, parts.inversion, options.trainer, folder, size, seed, options.resume
            )

        inputs = {
            "benchmark": self.benchmark_key,
            "diffusion": parts.diffusion.fingerprint(),
            "inversion": asdict(parts.inversion),
            "seed": options.seed,
            "devices": options.trainer.world,
            **self._on(),
        }
        stage = self.cache.stage("tokens", inputs, make, together=True)
        return stage.key, {name: stage.folder / "tokens" / str(label) / FILE for label, name in enumerate(names)}

    def images(self) -> Generated:
        """The images, drawn by all ranks."""
        options, parts = self.options, self.parts
        prompt_stage, prompts = self.prompts()
        token_key, tokens = self.tokens()
        starts = self.benchmark.split("train") if parts.generator.needs_starts else None
        per_class = options.debugset.asked
        seed = purpose_seed(options.seed, "generate")
        requests = parts.generator.requests(prompts, self.classes, per_class, seed, starts)

        def make(folder: Path) -> None:
            def painter(device: torch.device) -> Any:
                made = parts.generator.painter(parts.diffusion, device, tokens, starts)
                made.check(requests)
                return made

            generate_images(requests, painter, parts.generator.batch_size(parts.diffusion), folder, options.trainer)
            if current().rank == 0:
                generated_frame(requests, folder, self.classes).to_parquet(folder / TABLE, index=False)
            current().exchange("table")

        inputs = {
            "prompts": prompt_stage.key,
            "tokens": token_key,
            "generator": {**parts.generator.fingerprint(), "class": type(parts.generator).__name__},
            "diffusion": parts.diffusion.fingerprint() if parts.generator.needs_diffusion else None,
            "starts": self.benchmark_key if starts is not None else "",
            "per_class": per_class,
            "seed": options.seed,
        }
        stage = self.cache.stage("images", inputs, make, together=True)
        frame = pd.read_parquet(stage.folder / TABLE)
        table = ImageTable.build(frame[~frame["failed"]].reset_index(drop=True), self.classes, stage.folder)
        counts = frame.groupby("label")
        return Generated(stage.key, table, frame, counts.size().to_dict(), counts["redrawn"].sum().to_dict())

    def seen(self, made: Generated) -> dict[str, Scored]:
        """Vectors of the generated images and of train, where a filter looks at them. All ranks call it."""
        if not self.parts.filters.needs_clip:
            return {}
        train = self.benchmark.split("train")
        return {
            "generated": self.looking.vectors(made.key, made.table, "generated"),
            "train": self.looking.vectors(self.benchmark_key, train, "train"),
        }

    def reasons(
        self, made: Generated, features: Scored, audit: Scored, seen: dict[str, Scored]
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """(for every image the reason to drop it or "", scores a column) by the chain of filters."""
        chain, table = self.parts.filters, made.table
        concepts = table.frame["concept"].to_numpy(dtype=object)
        vectors: dict[str, Any] = {}
        scores = {"p_class": features.probabilities[np.arange(len(table)), table.labels]}
        if seen:
            clip = self.parts.clip.load()
            texts = sorted(set(concepts) - {""})
            named = clip.text_vectors([class_phrase(name) for name in self.classes])
            said = clip.text_vectors(texts) if texts else np.zeros((0, named.shape[1]), dtype=np.float32)
            vectors = {
                "vectors": np.asarray(seen["generated"].embeddings),
                "real_vectors": np.asarray(seen["train"].embeddings),
                "real_labels": seen["train"].labels,
                "class_vectors": named,
                "concept_vectors": dict(zip(texts, said, strict=True)),
            }
            scores["clip_class"] = (vectors["vectors"] * named[table.labels]).sum(axis=1)
        thumbnails = known = np.zeros((len(table), 1), dtype=np.float32)
        if chain.near_duplicate is not None:
            real = self.benchmark.table
            thumbnails = thumbnails_of(table)
            known = thumbnails_of(real.take((real.frame["split"] != "pool").to_numpy()))
        looks = Looks(
            labels=table.labels,
            concepts=concepts,
            probabilities=features.probabilities,
            thumbnails=thumbnails,
            rivals=rivals_of(audit.labels, audit.predictions),
            known=known,
            **vectors,
        )
        return reasons_to_drop(chain, looks), scores

    def debug_set(self, made: Generated, features: Scored, audit: Scored, train: Scored | None, f0_key: str) -> Stage:
        """The stage of the debug set: what was made, less what the filters drop, picked class by class.

        `features`, `audit`, `train`: f0 on the images made, on audit, and on train where the selector looks at it. All
        ranks call it.
        """
        options, config = self.options, self.options.debugset
        seen = self.seen(made)

        def make(folder: Path) -> None:
            reasons, scores = self.reasons(made, features, audit, seen)
            frame = made.table.frame.assign(dropped=reasons, **scores)
            kept = np.flatnonzero(reasons == "")
            table = replace(made.table, frame=frame).take(kept)
            seed = purpose_seed(options.seed, "select")
            quotas = None if config.quotas == "none" else Quotas.by(config.quotas, made.requested)
            args = (options.selector, features.take(kept), table, audit, train, config.per_class, seed)
            picked = select_debug_set(*args, fill=config.fill, quotas=quotas)
            taken = frame["id"].isin(set(picked.table.frame["origin_id"])).to_numpy()
            rows = np.flatnonzero(taken)
            vectors = {name: scored.take(rows) if name == "generated" else scored for name, scored in seen.items()}
            quality = quality_of(made.table.take(rows), frame["clip_class"].to_numpy()[rows] if seen else None, vectors)
            replace(picked, funnel=self.funnel(made, reasons, picked), quality=quality).save(folder)
            paths = [str(made.table.file(row)) for row in range(len(made.table))]
            frame.assign(taken=taken, path=paths).to_parquet(folder / CANDIDATES, index=False)

        inputs = {
            "images": made.key,
            "f0": f0_key,
            "filters": vars(options.filters),
            "clip": self.parts.clip.fingerprint() if self.parts.filters.needs_clip else None,
            "selector": identity(options.selector),
            "config": vars(config),
            "seed": options.seed,
        }
        return self.cache.stage("debugset", inputs, make)

    def funnel(self, made: Generated, reasons: np.ndarray, picked: DebugSet) -> dict[str, dict[str, int]]:
        """Class → how many were asked for, redrawn, dropped for each reason, passed, taken."""
        found = {}
        for label, name in enumerate(self.classes):
            own = reasons[made.table.labels == label]
            taken = int(picked.table.frame["origin_id"][picked.table.labels == label].nunique())
            found[name] = funnel(made.asked[label], own, made.redrawn[label], taken)
        return found


def generated_frame(requests: list[Request], folder: Path, classes: tuple[str, ...]) -> pd.DataFrame:
    """One row a request: what was asked, with which seed it came, where it lies."""
    taken, _ = redraws(folder / IMAGES, [request.index for request in requests])
    rows = [
        {
            "id": f"generated/{classes[request.label]}/{request.index:07d}",
            "label": request.label,
            "path": f"{IMAGES}/{request.index:07d}.png",
            "row": -1,
            "split": "generated",
            "source": f"generated/{request.index:07d}",
            "prompt": request.prompt,
            "negative": request.negative,
            "concept": request.concept,
            "recipe": request.recipe,
            "seed": request.seeds[taken.get(request.index, -1)],
            "strength": request.strength,
            "start": request.start,
            "redrawn": taken.get(request.index, len(request.seeds)),
            "failed": request.index not in taken,
            "provenance": "synthetic",
        }
        for request in requests
    ]
    return pd.DataFrame(rows)


def _plain(writer: object) -> dict[str, Any]:
    # a writer's own arguments; a provider speaks for itself in the fingerprint
    arguments = {name: value for name, value in identity(writer).items() if name != "provider"}
    provider = getattr(writer, "provider", None)
    return {**arguments, "provider": None if provider is None else identity(provider)["class"]}
