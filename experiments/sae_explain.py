"""The job `explain`: what a bottleneck looks at, as tables, figures and a page."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from aaca.data.benchmark import Benchmark
from aaca.evaluate.bottleneck import nec, predict
from aaca.evaluate.explain import (
    class_contributions,
    global_contribution,
    global_strength,
    local,
)
from aaca.evaluate.explain_figures import (
    agnosticity_figure,
    class_figure,
    clusters_figure,
    cosine_histogram,
    local_figure,
    save,
)
from aaca.evaluate.explain_page import Explanations, pick_rows, write_explanations
from aaca.evaluate.explain_sets import agnosticity, meta_clusters
from aaca.runtime.errors import DataError
from aaca.runtime.files import atomic_path
from aaca.runtime.seeding import purpose_seed
from aaca.training.sparse_probe import Probe

from .sae_config import SaeConfig

log = logging.getLogger(__name__)
UNNAMED = "(unnamed)"
EXAMPLES = 9  # images beside a class's bars
SHOWN = ("audit", "pool")  # splits that task agnosticity compares: test is for scores alone


def explain(
    options: SaeConfig,
    folder: Path,
    benchmark: Benchmark,
    codes: dict[str, csr_array],
    probe: Probe,
    names: pd.DataFrame,
    best: list[str],
) -> None:
    """Write everything for the audit images; task agnosticity compares audit with pool."""
    table, words = benchmark.split("audit"), [word or UNNAMED for word in best]
    shown = codes["audit"]
    weight, bias = probe.raw()
    seed = purpose_seed(options.seed, "explain") % 2**31
    predicted, labels, classes = predict(shown, weight, bias), table.labels, benchmark.classes
    rows = pick_rows(labels, predicted, options.explain.images, seed)
    top = options.explain.top
    firsts = names[names["rank"] == 1]
    cosines = firsts["cosine"].to_numpy()
    found = {
        "local": pd.concat(
            [
                local(shown, weight, words, rows, top, "predicted", labels, bias),
                local(shown, weight, words, rows, top, "true", labels, bias),
            ]
        ).drop_duplicates(["image", "class", "latent"]),
        "global_strength": global_strength(shown, labels, words, top),
        "global_contribution": global_contribution(shown, labels, weight, words, top),
        "class_contributions": class_contributions(shown, labels, weight),
        "agnosticity": agnosticity(codes, words, cosines, 100),
    }
    clusters = None
    if options.explain.clusters:
        try:
            clusters = meta_clusters(shown, words, options.explain.clusters, top=top, seed=seed)
            found |= {"cluster_words": clusters.words, "cluster_members": clusters.members}
        except DataError as error:
            log.warning("no clusters are shown: %s; fewer of them may help (explain.clusters)", error)
    for name, frame in found.items():
        with atomic_path(folder / f"{name}.parquet") as temporary:
            frame.to_parquet(temporary, index=False)
    _figures(folder, benchmark, found, clusters, rows, predicted, cosines, firsts, seed)
    page = write_explanations(
        folder,
        Explanations(
            title=f"{benchmark.name}: what the concept bottleneck looks at",
            classes=classes,
            labels=labels,
            predictions=predicted,
            nec=nec(weight),
            live=int((~firsts["dead"].fillna(False)).sum()),
            latents=len(words),
            contributions=found["global_contribution"],
            strengths=found["global_strength"],
            local=found["local"],
            image=table.image,
            clusters=clusters,
        ),
    )
    print(f"page: {page}")


def _figures(
    folder: Path,
    benchmark: Benchmark,
    found: dict[str, pd.DataFrame],
    clusters: Any,
    rows: np.ndarray,
    predicted: np.ndarray,
    cosines: np.ndarray,
    firsts: pd.DataFrame,
    seed: int,
) -> None:
    table, classes = benchmark.split("audit"), benchmark.classes
    rng = np.random.default_rng(seed)
    for row in rows[:4]:
        bars = found["local"]
        bars = bars[(bars["image"] == row) & (bars["class"] == predicted[row])]
        figure = local_figure(bars, table.image(int(row)), classes[predicted[row]], classes[table.labels[row]])
        save(figure, folder / "figures" / f"local_{row:06d}.png")
    for label, name in enumerate(classes):
        own = rng.permutation(np.flatnonzero(table.labels == label))[:EXAMPLES]
        images = [table.image(int(row)) for row in own]
        for kind, value in (("global_contribution", "contribution"), ("global_strength", "difference")):
            bars = found[kind]
            figure = class_figure(bars[bars["class"] == label], value, images, name)
            save(figure, folder / "figures" / f"{kind}_{label:03d}.png")
    if clusters is not None:
        save(clusters_figure(clusters, table.image, seed=seed), folder / "figures" / "clusters.png")
    images = {split: benchmark.split(split).image for split in SHOWN}
    save(agnosticity_figure(found["agnosticity"], images), folder / "figures" / "agnosticity.png")
    live = ~firsts["dead"].fillna(False).to_numpy(dtype=bool)
    save(cosine_histogram(cosines, live), folder / "figures" / "cosines.png")
