"""Inspect a classifier's mistakes class by class: the neurons that they lack and those that they have too much of."""

import logging
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd
import torch
from torch import Tensor

from aaca.discover.neurons.counterfactual import CounterfactualRule
from aaca.discover.neurons.scorers import ScoredMistakes, Scorer, neuron_scores
from aaca.discover.neurons.votes import Tally, vote
from aaca.models.head import FeatureBank
from aaca.runtime.errors import ConfigError, DataError, nearest
from aaca.runtime.files import atomic_path, read_json, write_json

log = logging.getLogger(__name__)
Lists = Literal["insufficient", "excessive", "both"]
SCHEMA = 1
REPORT, TABLE = "inspection.json", "neurons.parquet"


@dataclass(frozen=True, kw_only=True)
class InspectSpec:
    """What is inspected and how.

    classes: "worst" (the lowest accuracy), "all", or names. top_k: neurons that each mistake names a list. min_prec:
    percent above which a neuron is listed. hide_overlap: drop neurons of both lists. max_rows: neurons a list at most.
    Raises `ConfigError` for values out of range.
    """

    classes: str | list[str] = "worst"
    scorer: Scorer = "counterfactual"
    rule: CounterfactualRule = field(default_factory=CounterfactualRule)
    top_k: int = 5
    min_prec: float = 3.0
    hide_overlap: bool = True
    max_rows: int = 30

    def __post_init__(self) -> None:
        if self.scorer not in get_args(Scorer):
            raise ConfigError(f"inspect.scorer: {self.scorer!r}; {nearest(self.scorer, get_args(Scorer))}")
        for name in ("top_k", "max_rows"):
            if getattr(self, name) < 1:
                raise ConfigError(f"inspect.{name}: {getattr(self, name)}; expected 1 or more")
        if not 0 <= self.min_prec < 100:
            raise ConfigError(f"inspect.min_prec: {self.min_prec}; expected 0 or more, less than 100 (percent)")


@dataclass(frozen=True)
class NeuronRow:
    """A listed neuron. prec: percent of the mistakes that name it. importance: see `Head.importance`, at the bank's
    mean. mistakes, correct: its mean value in the class's used mistakes and correct images (None: there are none).
    weight: the head's, for the class.
    """

    neuron: int
    prec: float
    importance: float
    mistakes: float
    correct: float | None
    weight: float


@dataclass(frozen=True)
class ClassReport:
    """What the mistakes of a class say. A class without mistakes has empty lists.

    images, mistakes: of the class in the bank. used: mistakes that voted. converged, steps: how many used mistakes
    reached their class, and their mean steps (None for scorers without steps; those that did not reach it vote all the
    same). rivals: class name → mistakes taken for it. details: per list and rank, neuron → votes, before `min_prec`.
    """

    label: int
    name: str
    images: int
    mistakes: int
    used: int
    converged: int | None
    steps: float | None
    rivals: dict[str, int]
    insufficient: tuple[NeuronRow, ...]
    excessive: tuple[NeuronRow, ...]
    details: dict[str, dict[str, dict[int, int]]]

    def as_json(self) -> dict[str, Any]:
        """All fields, with `votes`: the released code's form of the lists and their details."""
        lists = {"+": self.insufficient, "-": self.excessive}
        total = {sign: {str(row.neuron): row.prec for row in rows} for sign, rows in lists.items()}
        found = asdict(self)
        return found | {"votes": {"total": total, "details": found.pop("details")}}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> "ClassReport":
        """What `as_json` gave, after JSON made strings of its integer keys."""
        details = {
            sign: {rank: {int(neuron): count for neuron, count in counts.items()} for rank, counts in ranks.items()}
            for sign, ranks in found["votes"]["details"].items()
        }
        lists = {name: tuple(NeuronRow(**row) for row in found[name]) for name in ("insufficient", "excessive")}
        plain = {name: value for name, value in found.items() if name != "votes"}
        return cls(**(plain | lists | {"details": details}))


@dataclass(frozen=True)
class Inspection:
    """The inspected classes of a model with `classes` classes and `neurons_in_all` neurons; `spec` as plain values."""

    classes: int
    neurons_in_all: int
    seed: int
    spec: dict[str, Any]
    reports: tuple[ClassReport, ...]

    def neurons(self, lists: Lists, top: int) -> dict[int, tuple[int, ...]]:
        """label → at most `top` neurons, best first; for "both" the two lists in turn. Empty where none is listed."""
        found: dict[int, tuple[int, ...]] = {}
        for report in self.reports:
            chosen = [report.insufficient, report.excessive] if lists == "both" else [getattr(report, lists)]
            ranked = [rows[rank].neuron for rank in range(max(map(len, chosen))) for rows in chosen if rank < len(rows)]
            found[report.label] = tuple(dict.fromkeys(ranked))[:top]
        return found

    def table(self) -> pd.DataFrame:
        """One row a class, list and neuron, in order."""
        columns = ["label", "name", "list", "rank", *NeuronRow.__dataclass_fields__]
        rows = [
            {"label": report.label, "name": report.name, "list": name, "rank": rank, **asdict(row)}
            for report in self.reports
            for name in ("insufficient", "excessive")
            for rank, row in enumerate(getattr(report, name), start=1)
        ]
        return pd.DataFrame(rows, columns=columns)

    def save(self, folder: Path) -> None:
        """Write `neurons.parquet` and `inspection.json`."""
        with atomic_path(folder / TABLE) as temporary:
            self.table().to_parquet(temporary, index=False)
        top = {"schema": SCHEMA, "K": self.classes, "D": self.neurons_in_all, "seed": self.seed, "spec": self.spec}
        write_json(folder / REPORT, top | {"reports": [report.as_json() for report in self.reports]})

    @classmethod
    def load(cls, folder: Path) -> "Inspection":
        """Read what `save` wrote. Raises `DataError` for a missing, broken or foreign report."""
        try:
            found = read_json(folder / REPORT)
            if found["schema"] != SCHEMA:
                raise DataError(f"{folder / REPORT}: schema {found['schema']!r}; expected {SCHEMA}")
            reports = tuple(ClassReport.from_json(report) for report in found["reports"])
            return cls(found["K"], found["D"], found["seed"], found["spec"], reports)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{folder / REPORT}: no neuron inspection ({error})") from error


def inspect(bank: FeatureBank, spec: InspectSpec, seed: int) -> Inspection:
    """Score all mistakes of the chosen classes at once, then let those of each class vote (NeuroInspect).

    `seed` serves the scorer "random" alone. Raises `ConfigError` for an unknown class, `DataError` for an empty bank.
    """
    if spec.scorer == "counterfactual" and len(bank.classes) == 2:
        log.warning(
            "inspect.scorer: counterfactual with two classes lets every mistake name the same neurons (the largest "
            "weight differences), whatever the images show; contribution does not"
        )
    labels = chosen_classes(bank, spec.classes)
    parts = [bank.mistakes(label) for label in labels]
    rows = torch.cat(parts)
    scores = neuron_scores(bank, rows, spec.scorer, spec.rule, seed)
    owners = bank.labels[rows]
    reports = tuple(
        _report(bank, label, own, _taken(scores, owners == label), spec)
        for label, own in zip(labels, parts, strict=True)
    )
    return Inspection(len(bank.classes), bank.head.neurons, seed, asdict(spec), reports)


def chosen_classes(bank: FeatureBank, classes: str | list[str]) -> list[int]:
    """Labels for `InspectSpec.classes`. "worst" passes over classes without images; ties go to the first."""
    if not len(bank):
        raise DataError("neuron inspection: no images")
    if classes == "all":
        return list(range(len(bank.classes)))
    if classes == "worst":
        images = torch.bincount(bank.labels, minlength=len(bank.classes))
        right = torch.bincount(bank.labels[bank.predictions == bank.labels], minlength=len(bank.classes))
        return [int((right / images).nan_to_num(nan=torch.inf).argmin())]
    return [bank.classes.index(name) for name in check_names(classes, bank.classes)]


def check_names(classes: str | list[str], known: tuple[str, ...]) -> list[str]:
    """The names among `InspectSpec.classes`, each once. Raises `ConfigError` for one that is none of `known`."""
    if classes in ("all", "worst"):
        return []
    names = [classes] if isinstance(classes, str) else list(dict.fromkeys(classes))
    for name in names:
        if name not in known:
            raise ConfigError(f"inspect.classes: {name!r}; {nearest(name, ('worst', 'all', *known))}")
    if not names:
        raise ConfigError("inspect.classes: no class; expected worst, all or names")
    return names


def _taken(scores: ScoredMistakes, keep: Tensor) -> ScoredMistakes:
    steps, converged = (None if part is None else part[keep] for part in (scores.steps, scores.converged))
    return ScoredMistakes(scores.values[keep], scores.used[keep], steps, converged)


def _report(bank: FeatureBank, label: int, rows: Tensor, scores: ScoredMistakes, spec: InspectSpec) -> ClassReport:
    used, name = scores.used, bank.classes[label]
    ballot = vote(scores.values[used], spec.top_k, spec.min_prec, spec.hide_overlap, spec.max_rows)
    if len(rows) > ballot.voters:
        log.warning("inspect: %d of the %d mistakes of %r have no vote", len(rows) - ballot.voters, len(rows), name)
    reached = None if scores.converged is None else int(scores.converged[used].sum())
    if reached is not None and reached < int(used.sum()):
        log.warning("inspect: %d mistakes of %r did not reach their class", int(used.sum()) - reached, name)
    own = bank.labels == label
    correct = bank.features[own & (bank.predictions == label)]
    means = bank.features[rows[used]].mean(dim=0), correct.mean(dim=0) if len(correct) else None
    rivals = Counter(bank.classes[index] for index in bank.predictions[rows].tolist())
    return ClassReport(
        label=label,
        name=name,
        images=int(own.sum()),
        mistakes=len(rows),
        used=ballot.voters,
        converged=reached,
        steps=None if scores.steps is None or not bool(used.any()) else float(scores.steps[used].float().mean()),
        rivals=dict(rivals.most_common()),
        insufficient=_rows(bank, label, ballot.insufficient, *means),
        excessive=_rows(bank, label, ballot.excessive, *means),
        details={"+": _details(ballot.insufficient), "-": _details(ballot.excessive)},
    )


def _rows(
    bank: FeatureBank, label: int, tally: Tally, mistakes: Tensor, correct: Tensor | None
) -> tuple[NeuronRow, ...]:
    importance = bank.head.importance(bank.features.mean(dim=0), label)
    return tuple(
        NeuronRow(
            neuron=neuron,
            prec=prec,
            importance=float(importance[neuron]),
            mistakes=float(mistakes[neuron]),
            correct=None if correct is None else float(correct[neuron]),
            weight=float(bank.head.weight[label, neuron]),
        )
        for neuron, prec in tally.prec.items()
    )


def _details(tally: Tally) -> dict[str, dict[int, int]]:
    return {f"top-{rank}": counts for rank, counts in enumerate(tally.ranks, start=1)}
