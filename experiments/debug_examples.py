"""The pictures of one run: the benchmark's training images, f0's failures on audit, the debug set's best images."""

import numpy as np

from aaca.data.benchmark import Benchmark
from aaca.data.features import Scored
from aaca.data.table import ImageTable
from aaca.debugset.debug_set import DebugSet
from aaca.evaluate.examples import Example, Kind

PER_CLASS = 8


def run_examples(benchmark: Benchmark, audit: Scored, picked: DebugSet | None) -> list[Example]:
    """Up to eight images a class of each kind; failures are the most confident ones."""
    found: list[Example] = []
    train, audit_table = benchmark.split("train"), benchmark.split("audit")
    probabilities = audit.probabilities
    confidence, predicted = probabilities.max(axis=1), probabilities.argmax(axis=1)
    for label, name in enumerate(benchmark.classes):
        rows = np.flatnonzero(train.labels == label)[:PER_CLASS]
        found.append(_strip("benchmark", name, train, rows, [_about(train, row) for row in rows]))
        wrong = np.flatnonzero((audit.labels == label) & (predicted != label))
        wrong = wrong[np.argsort(-confidence[wrong], kind="stable")][:PER_CLASS]
        captions = [
            f"→ {benchmark.classes[predicted[row]]} ({confidence[row]:.2f}) {_about(audit_table, row)}" for row in wrong
        ]
        found.append(_strip("failure", name, audit_table, wrong, captions))
        if picked is not None:
            best = np.flatnonzero(picked.table.labels == label)[:PER_CLASS]
            found.append(_strip("debug", name, picked.table, best, [_about(picked.table, row) for row in best]))
    return found


def _about(table: ImageTable, row: int) -> str:
    prompt = table.frame["prompt"].iat[row] if "prompt" in table.frame else ""
    return str(table.frame["group"].iat[row] or prompt or table.frame["id"].iat[row])


def _strip(kind: Kind, name: str, table: ImageTable, rows: np.ndarray, captions: list[str]) -> Example:
    return Example(kind, name, [table.image(int(row)) for row in rows], captions)
