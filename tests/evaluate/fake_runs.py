"""Run folders with known contents, as the job `debug` writes them."""

from pathlib import Path

import numpy as np
import pandas as pd

from aaca.evaluate.examples import Example, write_examples
from aaca.evaluate.outcome import Outcome, groups_of, summarise

CLASSES = ["bird", "mammal"]
SHARES = {"none": 0.0, "s_random": 0.25, "s_similarity": 0.75}
"""Share of f0's failures that each method repairs."""


def predictions(method: str, seed: int, share: float | None = None, per_source: int = 4) -> pd.DataFrame:
    """Two classes × 10 sources × three slices; f0 fails on conflicting images, methods repair a share of its failures.

    A share below 0 breaks that share of what was right.
    """
    share = SHARES[method] if share is None else share
    rng = np.random.default_rng([seed, sum(method.encode())])
    f0 = np.random.default_rng([seed, 999])
    rows = []
    for label, name in enumerate(CLASSES):
        for source in range(10):
            for slice_ in ("aligned", "conflicting", "balanced"):
                for index in range(per_source):
                    planted = slice_ == "aligned" or (slice_ == "balanced" and index % 2 == 0)
                    right_before = f0.random() < (0.95 if planted else 0.3)
                    drawn = rng.random() < abs(share)
                    right_after = right_before != (drawn and right_before == (share < 0))
                    rows.append(
                        {
                            "id": f"{slice_}/{label}/{source}/{index}",
                            "label": label,
                            "group": f"{name} on {'sand' if planted else 'grass'}",
                            "slice": slice_,
                            "split": "test",
                            "source": f"object-{label}-{source}",
                            "before": label if right_before else 1 - label,
                            "after": label if right_after else 1 - label,
                            "p_before": 0.9 if right_before else 0.1,
                            "p_after": 0.9 if right_after else 0.1,
                        }
                    )
    return pd.DataFrame(rows)


def make_run(
    root: Path,
    method: str,
    seed: int,
    classes: list[str] = CLASSES,
    share: float | None = None,
    headline_slice: str = "conflicting",
    **changes: object,
) -> Path:
    """Write one run folder and return it; `changes` replace fields of the outcome."""
    frame = predictions(method, seed, share)
    for old, new in zip(CLASSES, classes, strict=True):
        frame["group"] = [name.replace(f"{old} on", f"{new} on") for name in frame["group"]]
    labels = [0] * 100 + [1] * 100
    groups = [f"{classes[0]} on sand"] * 95 + [f"{classes[0]} on grass"] * 5
    groups += [f"{classes[1]} on sand"] * 90 + [f"{classes[1]} on grass"] * 10
    train = groups_of(pd.DataFrame({"label": labels, "group": groups}), classes)
    fields = {
        "key": f"{method}-{seed}",
        "method": method,
        "seed": seed,
        "dataset": "fake",
        "model": "small",
        "size": "smoke",
        "recipe": "small",
        "selection_rule": "last",
        "init": "pretrained",
        "per_class": 50,
        "overrides": [f"method={method}", f"seed={seed}"],
        "classes": classes,
        "headline_slice": headline_slice,
        "description": "A fake.",
        "confounders": [{"class": classes[0], "kind": "scene", "value": "sand", "p": 0.95}],
        "n_train": 200,
        "n_debug": 0 if method == "none" else 100,
        "n_debug_unique": 0 if method == "none" else 100,
        "split_sizes": {"train": 200, "test": len(frame)},
        "seconds": 10.0 + seed,
        "seconds_total": 20.0,
        "stage_seconds": {"f0": 8.0, "refit": 9.0},
        "stage_reused": {"f0": method != "none", "refit": False},
        "finished": "2026-01-01T00:00:00",
        **summarise(frame, train, classes, headline_slice),
        **changes,
    }
    name = f"{method}-{seed}-{len(list(root.glob('runs/*')))}"
    folder = root / "runs" / name
    folder.mkdir(parents=True)
    frame.to_parquet(folder / "predictions.parquet", index=False)
    noise = np.random.default_rng(seed)
    images = [noise.integers(0, 255, (32, 32, 3), dtype=np.uint8) for _ in range(3)]
    strips = [Example("failure", name, images, [f"{name} → other"] * 3) for name in classes]
    if method != "none":
        strips += [Example("debug", name, images[:2], ["score 1", "score 2"]) for name in classes]
    write_examples(folder, strips)
    Outcome(**fields).save(folder)
    return folder


def make_runs(root: Path, methods: tuple[str, ...] = ("none", "s_random", "s_similarity"), seeds: int = 3) -> None:
    for method in methods:
        for seed in range(seeds):
            make_run(root, method, seed)
