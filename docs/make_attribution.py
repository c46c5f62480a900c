"""How far attribution maps can be trusted on the embedded benchmark, written into docs/evidence.md.

    aaca debug -m method=none model=small_resnet,small_vit_mae seed=0,1,2
    python docs/make_attribution.py [paths.root]

Of 100 audit images that f0 gets right, an f0 a model and seed: means over images and seeds.
"""

import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from aaca.data.benchmark import Benchmark
from aaca.data.table import ImageTable
from aaca.discover.attribution.base import Attribution
from aaca.discover.attribution.grad_attn import GradAttention
from aaca.discover.attribution.gradcam import GradCam
from aaca.discover.attribution.gradients import IntegratedGradients, SmoothGrad
from aaca.discover.attribution.occlusion import Occlusion
from aaca.discover.attribution.rollout import Rollout
from aaca.discover.attribution.scores import correlation, deletion_insertion, energy, pointing_game
from aaca.discover.concepts.gt import shrunk
from aaca.models.classifier import Classifier
from aaca.models.timm_model import TimmModel
from aaca.runtime.files import read_json

DOCS = Path(__file__).parent
IMAGES, BATCH = 100, 50
METHODS: dict[str, list[Attribution]] = {
    "small_resnet": [GradCam(), IntegratedGradients(), SmoothGrad(), Occlusion()],
    "small_vit_mae": [GradAttention(), Rollout(), GradCam(), IntegratedGradients(), SmoothGrad(), Occlusion()],
}
LAYERS = ("backdrop", "ground", "object", "co-object")


def f0s(root: Path) -> list[tuple[str, Classifier, Benchmark]]:
    """(model, classifier, benchmark) of every finished run."""
    found = {}
    for file in sorted((root / "stages" / "f0").glob("*/manifest.json")):
        inputs = read_json(file)["inputs"]
        model = {name: value for name, value in inputs["model"].items() if name not in ("class", "checkpoint")}
        kind = "small_resnet" if model["name"] == "resnet18" else "small_vit_mae"
        if kind == "small_vit_mae" and inputs["model"]["checkpoint"] is None:
            continue
        classifier = TimmModel(**model).build(4, start_weights=False).load(file.parent / "model.safetensors").eval()
        stages = (root / "stages" / "benchmark").glob(f"{inputs['benchmark'][:16]}/benchmark.json")
        found[file] = (kind, classifier, Benchmark.load(next(stages).parent))
    return list(found.values())


def pixels(classifier: Classifier, table: ImageTable) -> torch.Tensor:
    """Normalised images `[N, 3, S, S]`."""
    raw = torch.from_numpy(np.stack([table.image(row) for row in range(len(table))])).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (classifier.mean, classifier.std))
    return (raw - mean) / std


def row_of(classifier: Classifier, method: Attribution, benchmark: Benchmark) -> dict[str, float]:
    """All scores of a method for a classifier."""
    audit = benchmark.split("audit")
    with torch.no_grad():
        said = torch.cat([classifier(part) for part in pixels(classifier, audit).split(BATCH)]).argmax(dim=1).numpy()
    right = np.flatnonzero(said == audit.labels)
    table = audit.take(np.sort(np.random.default_rng(0).permutation(right)[:IMAGES]))
    images, targets = pixels(classifier, table), torch.from_numpy(table.labels)
    parts = zip(images.split(BATCH), targets.split(BATCH), strict=True)
    maps = torch.cat([method.maps(classifier, part, wanted[:, None])[:, 0] for part, wanted in parts])
    masks = np.load(table.root / table.frame["masks"].iloc[0], mmap_mode="r")[table.frame["row"].to_numpy()]
    cells = (int(maps.shape[1]), int(maps.shape[2]))
    shares = {name: shrunk(masks[:, place].astype(np.float32) / 255, cells) for place, name in enumerate(LAYERS)}
    found = {f"on {name}": float(energy(maps.numpy(), share).mean()) for name, share in shares.items()}
    seen = shares["object"] + shares["co-object"] + shares["ground"]
    found["pointing game"] = float(pointing_game(maps.numpy(), seen).mean())
    deletion, insertion = deletion_insertion(classifier, images, maps, targets)
    found |= {"deletion": float(deletion.mean()), "insertion": float(insertion.mean())}
    torch.manual_seed(0)
    torch.nn.init.normal_(classifier.head.weight, std=float(classifier.head.weight.detach().std()))
    parts = zip(images.split(BATCH), targets.split(BATCH), strict=True)
    other = torch.cat([method.maps(classifier, part, wanted[:, None])[:, 0] for part, wanted in parts])
    found["random head"] = float(correlation(maps.numpy(), other.numpy()).mean())
    return found


def main(root: Path) -> None:
    """Write the table."""
    rows = []
    for kind, classifier, benchmark in f0s(root):
        kept = {name: value.clone() for name, value in classifier.state_dict().items()}
        for method in METHODS[kind]:
            classifier.load_state_dict(kept)
            rows.append({"model": kind, "method": type(method).__name__, **row_of(classifier, method, benchmark)})
    table = pd.DataFrame(rows)
    means = table.groupby(["model", "method"], sort=False).mean(numeric_only=True)
    counts = table.groupby(["model", "method"], sort=False).size()
    lines = ["| model | method | f0s | " + " | ".join(means.columns) + " |", "|---" * (len(means.columns) + 3) + "|"]
    for (kind, name), values in means.iterrows():
        cells = [f"{value:.2f}" for value in values]
        lines.append("| " + " | ".join([str(kind), str(name), str(counts[kind, name]), *cells]) + " |")
    between = "<!-- maps -->\n" + "\n".join(lines) + "\n<!-- /maps -->"
    page = DOCS / "evidence.md"
    text = page.read_text(encoding="utf-8")
    page.write_text(
        re.sub(r"<!-- maps -->.*<!-- /maps -->", lambda _: between, text, flags=re.DOTALL), encoding="utf-8"
    )
    print(between)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "outputs"))
