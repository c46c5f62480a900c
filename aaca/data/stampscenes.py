"""StampScenes, the embedded benchmark: real cut-outs on real grounds with planted bugs (the Waterbirds recipe)."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import PIL
from rich.progress import Progress

from aaca.data.benchmark import Benchmark, BenchmarkSource
from aaca.data.table import ImageTable
from aaca.runtime.errors import ConfigError, nearest
from aaca.runtime.files import file_sha256
from aaca.runtime.log import console
from aaca.world.batch import Batch, Job, Made, render_batches
from aaca.world.bugs import DEFAULT_BUGS, SLICES, Bug, Slice, group_name
from aaca.world.captions import PARTS
from aaca.world.language import caption, scene_graph
from aaca.world.pack import PACK, load_pack
from aaca.world.render import VERSION
from aaca.world.scenes import Sources, stream

PER_CLASS = {"train": 600, "pool": 2000, "audit": 500, "test": 150, "test_seen": 150}
"""Images a class; of `test` and `test_seen` a class and slice."""

VAL_SHARE = 0.2
"""Share of the audit images that show val sources: cut-outs, grounds and panoramas that training never shows."""

DESCRIPTION = (
    "Photo cut-outs of birds, flowers, mammals and produce on ground textures under panoramas, with a co-object; "
    "a planted bug ties some classes to a ground or a co-object. test shows sources that no other split shows; "
    "test_seen shows new compositions of train sources: the gap between them is source over-fitting, not the bug. "
    "Each kind of co-object has only 2 test sources and sand only 2 test textures: what the slices of test say about "
    "co-objects and sand rests on few photos, so read test_seen beside it."
)


class StampScenes(BenchmarkSource):
    """Renders all splits from the embedded pack; an image depends on these arguments, the seed and its own name only.

    Args:
        image_size: pixels a side.
        per_class: images a class for train, pool, audit, and (a class and slice) test, test_seen.
        bugs: planted bugs, each {class, kind: scene | concept, value} and optionally {p}; None plants the default
            three, an empty list none (test then has the slice `balanced` alone).
        p_train: how often a class shows its bug's value in train and the aligned slices, where the bug has no p itself.
        p_pool: the same for the pool; a bug is never stronger there than in train.
        p_audit: the same for the audit split.
        stray: how often classes without a concept bug show a planted co-object where the slice is biased.
        masks: splits of which `<split>.masks.npy` is written too, uint8 `[N, 4, S, S]`: backdrop, ground, object,
            co-object; sums to 255. None: of audit, for `concepts=gt`.
        seed: of all choices.
        workers: processes that render; the images do not depend on it.

    """

    def __init__(
        self,
        *,
        image_size: int = 64,
        per_class: dict[str, int] | None = None,
        bugs: list[dict[str, Any]] | None = None,
        p_train: float = 0.95,
        p_pool: float = 0.8,
        p_audit: float = 0.8,
        stray: float = 0.03,
        masks: list[str] | None = None,
        seed: int = 0,
        workers: int = 2,
    ) -> None:
        self.image_size, self.seed, self.workers, self.stray = image_size, seed, workers, stray
        self.masks = sorted(set(["audit"] if masks is None else masks))
        for split in self.masks:
            if split not in PER_CLASS:
                raise ConfigError(f"dataset.masks: no split {split!r}; {nearest(split, PER_CLASS)}")
        for name, value, least in (("image_size", image_size, 16), ("seed", seed, 0), ("workers", workers, 1)):
            if value < least:
                raise ConfigError(f"dataset.{name}: {value}; expected {least} or more")
        self.caps = {"train": p_train, "pool": p_pool, "audit": p_audit}
        for name, share in (("stray", stray), *((f"p_{split}", p) for split, p in self.caps.items())):
            if not 0 <= share <= 1:
                raise ConfigError(f"dataset.{name}: {share}; expected a probability in 0…1")
        self.per_class = _check_counts(PER_CLASS if per_class is None else per_class)
        planted = [{"class": bug.cls, "kind": bug.kind, "value": bug.value} for bug in DEFAULT_BUGS]
        self.bugs = _check_bugs(planted if bugs is None else bugs, p_train)

    def at_most(self, split: str) -> int | None:
        """What `per_class` asks for."""
        return self.per_class[split]

    def class_names(self) -> tuple[str, ...]:
        """The pack's."""
        return load_pack().classes

    def truth(self) -> frozenset[str]:
        """All of it; masks where the config asks for those of audit and of train."""
        named = {"audit": "masks", "train": "masks of train"}
        return frozenset({"graph", "core", *(named[split] for split in self.masks if split in named)})

    def fingerprint(self) -> dict[str, Any]:
        """All arguments but `workers`, the pack's manifest, the renderer's and Pillow's versions."""
        return {
            "dataset": "stampscenes",
            "image_size": self.image_size,
            "per_class": self.per_class,
            "bugs": self._confounders(),
            "p": self.caps,
            "stray": self.stray,
            "masks": self.masks,
            "seed": self.seed,
            "pack": file_sha256(PACK / "manifest.json"),
            "renderer": VERSION,
            "pillow": PIL.__version__,
        }

    def build(self, folder: Path) -> Benchmark:
        """Write `<split>.npy` (uint8 `[N, S, S, 3]`), maybe `<split>.masks.npy`, the table and `benchmark.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        batches = [
            Batch(
                tuple(self._jobs(split)),
                folder / f"{split}.npy",
                folder / f"{split}.masks.npy" if split in self.masks else None,
            )
            for split, count in self.per_class.items()
            if count
        ]
        rows: list[list[dict[str, Any]]] = [[{}] * len(batch.jobs) for batch in batches]
        with Progress(transient=True, console=console) as progress:
            bar = progress.add_task("render stampscenes", total=sum(len(batch.jobs) for batch in batches))
            for batch, start, made in render_batches(
                batches, seed=self.seed, stray=self.stray, size=self.image_size, workers=self.workers
            ):
                for row, one in enumerate(made, start=start):
                    rows[batch][row] = self._row(batches[batch].jobs[row], one, row)
                progress.advance(bar, len(made))
        frames = [pd.DataFrame(entries) for entries in rows]
        table = ImageTable.build(pd.concat(frames, ignore_index=True), load_pack().classes, folder)
        benchmark = Benchmark(
            "stampscenes",
            table,
            DESCRIPTION,
            headline_slice="balanced",
            confounders=self._confounders(),
            core={name: [name, *PARTS[name]] for name in load_pack().classes},
        ).check()
        benchmark.save(folder)
        return benchmark

    def _confounders(self) -> list[dict[str, Any]]:
        return [{"class": bug.cls, "kind": bug.kind, "value": bug.value, "p": bug.p} for bug in self.bugs]

    def _jobs(self, split: str) -> Iterator[Job]:
        """The images of a split. Classes alternate, so that the first rows of an array hold all of them."""
        cap = self.caps.get(split, 1.0)
        bugs = tuple(Bug(bug.cls, bug.kind, bug.value, min(bug.p, cap)) for bug in self.bugs)
        for slice_ in self._slices(split):
            for index in range(self.per_class[split]):
                for cls in load_pack().classes:
                    yield Job(split, slice_, cls, index, bugs, self._sources(split, cls, index))

    def _slices(self, split: str) -> tuple[Slice, ...]:
        if not self.bugs:
            return ("balanced",)
        return SLICES if split.startswith("test") else ("aligned",)

    def _sources(self, split: str, cls: str, index: int) -> Sources:
        if split == "audit" and stream(self.seed, "sources", cls, index).random() < VAL_SHARE:
            return "val"
        return "test" if split == "test" else "train"

    def _row(self, job: Job, made: Made, row: int) -> dict[str, Any]:
        spec, tested = made.spec, job.split.startswith("test")
        concept = spec.concept.piece if spec.concept else None
        where = f"{job.split}/{job.slice_}" if tested else job.split
        return {
            "id": f"stampscenes/{where}/{job.cls}/{job.index:06d}",
            "label": load_pack().classes.index(job.cls),
            "split": job.split,
            "slice": job.slice_ if tested else "all",
            "group": group_name(job.cls, spec.scene, concept.label if concept else None, self.bugs),
            "source": spec.object.piece.source,
            "path": f"{job.split}.npy",
            "row": row,
            "caption": caption(spec),
            "masks": f"{job.split}.masks.npy" if job.split in self.masks else "",
            "scene": spec.scene,
            "concept": concept.label if concept else "",
            "scene_source": spec.ground.piece.source,
            "concept_source": concept.source if concept else "",
            "backdrop": spec.backdrop.piece.source,
            "box": json.dumps(made.boxes["object"]),
            "boxes": json.dumps(made.boxes),
            "graph": json.dumps(scene_graph(spec, made.boxes)),
        }


def _check_counts(per_class: dict[str, int]) -> dict[str, int]:
    for split in per_class:
        if split not in PER_CLASS:
            raise ConfigError(f"dataset.per_class.{split}: no such split; {nearest(split, PER_CLASS)}")
    for split in PER_CLASS:
        least = 0 if split == "test_seen" else 1
        if per_class.get(split, -1) < least:
            found = per_class.get(split, "missing")
            raise ConfigError(f"dataset.per_class.{split}: {found}; expected {least} or more images a class")
    return {split: per_class[split] for split in PER_CLASS}


def _check_bugs(entries: Sequence[dict[str, Any]], p_train: float) -> tuple[Bug, ...]:
    pack = load_pack()
    bugs: list[Bug] = []
    for index, entry in enumerate(entries):
        key = f"dataset.bugs[{index}]"
        for name in {"class", "kind", "value"} - set(entry):
            raise ConfigError(f"{key}.{name}: missing; expected class, kind, value and optionally p")
        for name in set(entry) - {"class", "kind", "value", "p"}:
            raise ConfigError(f"{key}.{name}: unknown key; {nearest(name, ['class', 'kind', 'value', 'p'])}")
        cls, kind, value, p = entry["class"], entry["kind"], entry["value"], entry.get("p", p_train)
        if cls not in pack.classes:
            raise ConfigError(f"{key}.class: no class {cls!r}; {nearest(cls, pack.classes)}")
        if kind not in ("scene", "concept"):
            raise ConfigError(f"{key}.kind: {kind!r}; expected scene or concept")
        if value not in pack.labels(kind):
            raise ConfigError(f"{key}.value: no {kind} {value!r}; {nearest(value, pack.labels(kind))}")
        if isinstance(p, bool) or not isinstance(p, (int, float)) or not 0 <= p <= 1:
            raise ConfigError(f"{key}.p: {p!r}; expected a probability in 0…1")
        if any(bug.cls == cls and bug.kind == kind for bug in bugs):
            raise ConfigError(f"{key}: class {cls!r} has a {kind} bug already; expected at most one of a kind a class")
        bugs.append(Bug(cls, kind, value, float(p)))
    return tuple(bugs)
