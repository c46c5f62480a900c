"""What an edit of the head did to test images, from stored features: no image is looked at again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from aaca.data.benchmark import Benchmark
from aaca.data.features import Scored
from aaca.data.table import ImageTable
from aaca.evaluate.neuron_view import Change, Tile
from aaca.evaluate.outcome import groups_of, summarise
from aaca.models.head import FeatureBank, Head
from aaca.training.edit_losses import log_ratios, without

from .debug_outcome import predictions_of


@dataclass(frozen=True)
class Edit:
    """f0 and the edited head on the tests."""

    benchmark: Benchmark
    tests: ImageTable
    bank: FeatureBank  # of the tests, with f0's head
    head: Head
    chosen: Mapping[int, Sequence[int]]  # label → neurons

    def predictions(self) -> pd.DataFrame:
        """One row a test image, as in the job `debug`."""
        return predictions_of(self.tests, _scored(self.bank), _scored(self.bank.with_head(self.head)))

    def metrics(self, predictions: pd.DataFrame) -> dict[str, Any]:
        """All numbers of an outcome, and how far ratios are from 1 for the edited classes, before and after."""
        train = groups_of(self.benchmark.split("train").frame, self.benchmark.classes)
        found = summarise(predictions, train, self.benchmark.classes, self.benchmark.headline_slice)
        return found | {"apart": {"before": self._apart(self.bank.head), "after": self._apart(self.head)}}

    def headline(self, metrics: Mapping[str, Any]) -> pd.DataFrame:
        """The slices of test, the worst group and the weighted mean, before and after, as one row a score."""
        rows = [
            (name.removeprefix("test/"), found["accuracy_before"], found["accuracy"])
            for name, found in metrics["slices"].items()
            if name.startswith("test/")
        ]
        before = metrics["before"]
        for name in ("worst_group_accuracy", "mean_accuracy_train_weighted"):
            rows.append((name, before[name], metrics[name]))
        return pd.DataFrame(rows, columns=["on test", "before", "after"])

    def _apart(self, head: Head) -> float | None:
        # mean |r − 1| over test images and edited classes, each without its own neurons
        features, logits = self.bank.features, head.logits(self.bank.features)
        found = [
            (log_ratios(logits, without(features, head.weight, logits, torch.tensor(sorted(own))))[:, label].exp() - 1)
            for label, own in self.chosen.items()
            if len(own)
        ]
        return float(torch.stack(found).abs().mean()) if found else None

    def change(self, predictions: pd.DataFrame, metrics: Mapping[str, Any], method: str, images: int) -> Change:
        """For the page: figures, and images whose prediction changed, repaired ones first."""
        before, classes = metrics["before"], self.benchmark.classes
        rows = [
            (f"accuracy ({self.benchmark.headline_slice})", before["accuracy"], metrics["accuracy"]),
            ("worst group", before["worst_group_accuracy"], metrics["worst_group_accuracy"]),
            (
                "mean, groups weighted as in training",
                before["mean_accuracy_train_weighted"],
                metrics["mean_accuracy_train_weighted"],
            ),
        ]
        test = predictions[predictions["split"] == "test"]
        for label, name in enumerate(classes):
            own = test[test["label"] == label]
            if len(own):
                rows.append((name, float((own["before"] == label).mean()), float((own["after"] == label).mean())))
        known = {group["group"] for group in metrics["groups"]} - set(classes)
        rows += [
            (group["group"], group["accuracy_before"], group["accuracy"])
            for group in metrics["groups"]
            if group["split"] == "test" and group["group"] in known
        ]
        changed = test[test["before"] != test["after"]]
        changed = changed.sample(frac=1.0, random_state=0)  # tests may lie class by class
        right = (changed["after"] == changed["label"]).to_numpy()
        order = np.flatnonzero(right)[: (images + 1) // 2].tolist() + np.flatnonzero(~right)[: images // 2].tolist()
        shown = [
            (
                Tile(_square(self.tests.image(int(changed.index[place]))), ""),
                classes[int(row["label"])],
                classes[int(row["before"])],
                classes[int(row["after"])],
            )
            for place, (_, row) in zip(order, changed.iloc[order].iterrows(), strict=True)
        ]
        return Change(method, "test", rows, metrics["repaired"], metrics["newly_broken"], shown)


def _scored(bank: FeatureBank) -> Scored:
    return Scored.of(bank.ids, bank.labels.numpy(), bank.features.numpy(), bank.logits.numpy())


def _square(image: np.ndarray) -> np.ndarray:
    # the middle of an image
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    return image[top : top + side, left : left + side]
