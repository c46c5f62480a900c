"""What each generator draws: a sheet and a table, from the finished runs of one sweep, written into docs/.

    aaca debug -m method=g_llm,g_tg,g_llm_prompt,g_renderer,real_guidance,da_fusion seed=0,1,2
    python docs/make_generators.py [paths.root of the sweep]

All images that were drawn count, before any filter. Intervals: 95 %, normal approximation over images.
"""

import hashlib
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from aaca.data.benchmark import Benchmark
from aaca.data.table import ImageTable
from aaca.debugset.prompts.base import class_phrase
from aaca.evaluate.examples import contact_sheet
from aaca.evaluate.kid import kid
from aaca.models.judge import ASPECTS, Judge
from aaca.models.zero_shot import ClipModel, ImageText
from aaca.runtime.files import read_json
from aaca.world.shipped import MODELS

DOCS = Path(__file__).parent
METHODS = ("g_llm", "g_tg", "g_llm_prompt", "real_guidance", "da_fusion", "g_renderer")
SHOWN = 5  # images a class in the sheet
BUGS = {"bird": ("scene", "sand"), "mammal": ("scene", "grass"), "produce": ("concept", "ball")}
COLUMNS = {
    "images": "{:.0f}",
    "class": "{:.1f}",
    "zero-shot": "{:.1f}",
    "like train": "{:.3f}",
    "like balanced": "{:.3f}",
    "KID train": "{:.3f}",
    "KID balanced": "{:.3f}",
    **{f"{name} with {bug}": "{:.0f}" for name, (_, bug) in BUGS.items()},
}


def drawn(root: Path, method: str) -> list[ImageTable]:
    """All images that the runs of `method` drew, a table a run."""
    found = []
    for file in sorted((root / "runs").glob("*/outcome.json")):
        if read_json(file)["method"] != method:
            continue
        taken = pd.read_parquet(file.parent / "debugset.parquet", columns=["path"])
        stage = Path(taken["path"].iloc[0]).parents[1]
        frame = pd.read_parquet(stage / "generated.parquet")
        found.append(
            ImageTable.build(frame[~frame["failed"]].reset_index(drop=True), read_json(file)["classes"], stage)
        )
    return found


def pixels(table: ImageTable, per_class: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(uint8 `[N, S, S, 3]`, labels) of a table, of its first images of each class where a number is given."""
    rows = [np.flatnonzero(table.labels == label)[:per_class] for label in range(len(table.classes))]
    chosen = np.concatenate(rows)
    return np.stack([table.image(int(row)) for row in chosen]), table.labels[chosen]


@torch.no_grad()
def vectors(clip: ImageText, images: np.ndarray) -> np.ndarray:
    """Unit vectors `[N, D]`."""
    batches = torch.from_numpy(images).permute(0, 3, 1, 2).float().div(127.5).sub(1).split(64)
    return torch.cat([clip.image_vectors(batch) for batch in batches]).numpy()


class Scale:
    """Everything an image is held against: the judge, the image-text model, real images that are biased and not."""

    def __init__(self, benchmark: Benchmark) -> None:
        self.classes = benchmark.classes
        self.judge = Judge.load(MODELS / "judge")
        self.clip = ClipModel("embedded:clip", image_size=64).load()
        self.names = self.clip.text_vectors([class_phrase(name) for name in self.classes])
        frame = benchmark.table.frame
        balanced = ((frame["split"] == "test") & (frame["slice"] == "balanced")).to_numpy()
        self.real = {"train": benchmark.split("train"), "balanced": benchmark.table.take(balanced)}
        self.vectors = {}
        for name, table in self.real.items():
            images, labels = pixels(table, per_class=100)
            self.vectors[name] = (vectors(self.clip, images), labels)

    def row(self, images: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """The columns of the table for one set of images."""
        found, seen = vectors(self.clip, images), self.judge.verdicts(images)
        said = {name: values.argmax(axis=1) for name, values in seen.items()}
        values = {
            "images": len(images),
            "class": 100 * float((said["class"] == labels).mean()),
            "zero-shot": 100 * float(((found @ self.names.T).argmax(axis=1) == labels).mean()),
        }
        for name, (real, own) in self.vectors.items():
            groups = [(found[labels == label], real[own == label]) for label in range(len(self.classes))]
            values[f"like {name}"] = float(np.mean([(made @ there.T).mean() for made, there in groups]))
            values[f"KID {name}"] = float(np.mean([kid(made, there) for made, there in groups]))
        for name, (aspect, bug) in BUGS.items():
            own = labels == self.classes.index(name)
            values[f"{name} with {bug}"] = 100 * float((said[aspect][own] == ASPECTS[aspect].index(bug)).mean())
        return values


def cells(values: dict[str, float]) -> list[str]:
    """One row of the table, with the judge's interval."""
    texts = [form.format(values[name]) for name, form in COLUMNS.items()]
    share = values["class"] / 100
    texts[1] += f" ± {196 * np.sqrt(share * (1 - share) / values['images']):.1f}"
    return texts


def main(root: Path) -> None:
    """Write docs/generators.png, and the table into docs/generators.md."""
    stage = next(path.parent for path in (root / "stages" / "benchmark").glob("*/benchmark.json"))
    scale = Scale(Benchmark.load(stage))
    lines = ["| | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, table in scale.real.items():
        lines.append("| " + " | ".join([f"*real: {name}*", *cells(scale.row(*pixels(table)))]) + " |")
    strips = []
    for method in METHODS:
        tables = drawn(root, method)
        if not tables:
            sys.exit(f"{root}: no finished run of method={method}; the command is at the top of {Path(__file__).name}")
        parts = [pixels(table) for table in tables]
        images, labels = (np.concatenate(values) for values in zip(*parts, strict=True))
        lines.append("| " + " | ".join([method, *cells(scale.row(images, labels))]) + " |")
        first, own = parts[0]
        strips.append([image for label in range(len(scale.classes)) for image in first[own == label][:SHOWN]])
    picture = DOCS / "generators.png"
    contact_sheet(strips, 64).save(picture, optimize=True)
    page = DOCS / "generators.md"
    between = "<!-- table -->\n" + "\n".join(lines) + "\n<!-- /table -->"
    text = re.sub(r"<!-- table -->.*<!-- /table -->", between, page.read_text(encoding="utf-8"), flags=re.DOTALL)
    sha = f"SHA-256\n{hashlib.sha256(picture.read_bytes()).hexdigest()}"
    page.write_text(re.sub(r"SHA-256\s+[0-9a-f]{64}", sha, text), encoding="utf-8")
    print(between)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "outputs/demo"))
