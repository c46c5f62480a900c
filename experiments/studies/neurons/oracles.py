"""`python -m experiments.studies.neurons.oracles [FILE]`: edits of heads where the truth is planted, as two tables.

E1: five classes, class 0 relies on a cue that no test image has (as in MetaShift). E2: Waterbirds' group counts. Per
cent on test images, means over seeds 0…4 with their standard deviations; one thread needs about two minutes. Every
edit runs 20 epochs and keeps the last head, so that nothing but the method differs.
"""

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from aaca.data.planted_features import FeatureSplit, PlantedFeatures, five_classes, waterbirds_like
from aaca.models.head import FeatureBank, Head
from aaca.runtime.files import write_text
from aaca.runtime.log import setup_logging
from aaca.runtime.seeding import purpose_seed
from aaca.training.edit_head import EditRecipe, edit_head
from aaca.training.trainer import TrainerSpec
from experiments.studies.collect import markdown

SEEDS = range(5)
ONE = TrainerSpec(accelerator="cpu")
Neurons = Mapping[int, Sequence[int]]


def bank_of(split: FeatureSplit, head: Head, classes: tuple[str, ...]) -> FeatureBank:
    """A split under a head; its rows are its ids."""
    features, labels = torch.from_numpy(split.features), torch.from_numpy(split.labels)
    return FeatureBank(head, features, labels, np.arange(len(labels)), split.groups, classes)


def edited(data: PlantedFeatures, head: Head, neurons: Neurons, seed: int, **recipe: Any) -> Head:
    """The head after the recipe's last epoch."""
    train, val = (bank_of(split, head, data.classes) for split in (data.train, data.val))
    return edit_head(train, val, neurons, EditRecipe(monitor="last", **recipe), ONE, seed).head


def base(data: PlantedFeatures, epochs: int, seed: int) -> Head:
    """Plain cross-entropy from a random start."""
    classes, size = len(data.classes), data.train.features.shape[1]
    generator = torch.Generator().manual_seed(purpose_seed(seed, "head"))
    start = Head((torch.rand(classes, size, generator=generator) * 2 - 1) / size**0.5, torch.zeros(classes))
    return edited(data, start, {0: ()}, seed, method="ce", epochs=epochs, schedule="constant")


def random_neurons(data: PlantedFeatures, count: int, seed: int) -> list[int]:
    """Some of those that carry no cue."""
    cue = set().union(*data.planted.values())
    others = [neuron for neuron in range(data.train.features.shape[1]) if neuron not in cue]
    rng = np.random.default_rng(purpose_seed(seed, "control"))
    return sorted(rng.choice(others, count, replace=False).tolist())


def animals(seed: int) -> list[dict[str, Any]]:
    """E1, of one seed."""
    data = five_classes(seed)
    head, cue = base(data, 100, seed), {0: data.planted[0]}
    control: Neurons = {0: random_neurons(data, 3, seed)}
    settings: list[tuple[str, Neurons, dict[str, Any]]] = [
        ("cross entropy only", cue, {"method": "ce"}),
        *((f"retention {value}", cue, {"strength": value}) for value in (0.01, 0.1, 1.0)),
        *((f"retention {value}, 3 random neurons", control, {"strength": value}) for value in (0.01, 1.0)),
        ("retention_mean 0.01", cue, {"method": "retention_mean"}),
        ("log_ratio 1.0", cue, {"method": "log_ratio", "strength": 1.0}),
        *((method, cue, {"method": method}) for method in ("project", "zero", "mask_refit", "class_weight", "focal")),
    ]
    heads = [("base", head), *((name, edited(data, head, own, seed, **recipe)) for name, own, recipe in settings)]
    return [{"toy": "E1", "setting": name, **animal_figures(data.test, each)} for name, each in heads]


def birds(seed: int) -> list[dict[str, Any]]:
    """E2, of one seed; edits are of the water birds, as in the paper, unless both classes are named."""
    data = waterbirds_like(seed)
    head, places = base(data, 20, seed), [*data.planted[0], *data.planted[1]]
    both: Neurons = {1: places}
    control: Neurons = {1: random_neurons(data, 8, seed)}
    settings: list[tuple[str, Neurons, dict[str, Any]]] = [
        ("cross entropy only", both, {"method": "ce"}),
        ("retention_mean 0.01", both, {"method": "retention_mean"}),
        *((f"retention {value}", both, {"strength": value}) for value in (0.01, 0.1, 1.0)),
        ("retention 0.1, of both classes", {0: places, 1: places}, {"strength": 0.1}),
        ("log_ratio 1.0", both, {"method": "log_ratio", "strength": 1.0}),
        *((method, both, {"method": method}) for method in ("project", "mask_refit", "class_weight", "focal")),
        *(
            (f"retention {value}, water neurons only", {1: data.planted[1]}, {"strength": value})
            for value in (0.1, 1.0)
        ),
        *((f"retention {value}, 8 random neurons", control, {"strength": value}) for value in (0.01, 0.1)),
        ("log_ratio 1.0, 8 random neurons", control, {"method": "log_ratio", "strength": 1.0}),
    ]
    heads = [("base", head), *((name, edited(data, head, own, seed, **recipe)) for name, own, recipe in settings)]
    return [{"toy": "E2", "setting": name, **bird_figures(data, each)} for name, each in heads]


def _right(split: FeatureSplit, head: Head) -> np.ndarray:
    return head.logits(torch.from_numpy(split.features)).argmax(dim=1).numpy() == split.labels


def animal_figures(test: FeatureSplit, head: Head) -> dict[str, float]:
    """Per cent of all images, and of those of class 0."""
    right = _right(test, head)
    return {"mean": 100 * right.mean(), "class_0": 100 * right[test.labels == 0].mean()}


def bird_figures(data: PlantedFeatures, head: Head) -> dict[str, float]:
    """Per cent of all images, of all with groups weighted by their share of train images, and of the worst group."""
    right = pd.Series(_right(data.test, head)).groupby(data.test.groups).mean()
    share = pd.Series(data.train.groups).value_counts(normalize=True)
    return {
        "mean": 100 * _right(data.test, head).mean(),
        "train_weighted": 100 * float((right * share).sum()),
        "worst_group": 100 * float(right.min()),
    }


def table() -> pd.DataFrame:
    """One row a toy and setting: mean and standard deviation over seeds."""
    rows = pd.DataFrame([row for seed in SEEDS for make in (animals, birds) for row in make(seed)])
    grouped = rows.groupby(["toy", "setting"], sort=False)
    means, spread = grouped.mean(), grouped.std().add_suffix("_sd")
    both = means.join(spread)[[name for column in means for name in (column, f"{column}_sd")]]
    return both.round(1).reset_index().sort_values("toy", kind="stable", ignore_index=True)


def main(file: Path) -> None:
    """Write the table as CSV, print it as two."""
    setup_logging()
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)  # it was imported first, with a log of its own
    found = table()
    write_text(file, found.to_csv(index=False, lineterminator="\n"))
    for toy, own in found.groupby("toy"):
        print(f"\n{toy}\n\n{markdown(own.dropna(axis=1, how='all'))}")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]) if len(sys.argv) == 2 else Path(__file__).with_suffix(".csv"))
