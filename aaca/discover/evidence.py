"""Evidence: the numbers that tie a concept to the failures of a class, for every (class, rival, concept).

AACA, step 4 (attribution per concept and statistics), with the tests of Fisher (1922) and Benjamini-Hochberg (1995).
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control, hypergeom

from aaca.concepts.concept_sets import ANY
from aaca.discover.concepts.table import ConceptTable
from aaca.runtime.errors import ConfigError

# `ANY` as class: all classes but the rival; as rival: whatever is predicted
MEANINGS = {
    "class": "true class of the failures; * for all classes but the rival",
    "rival": "class predicted instead; * for whichever",
    "concept": "what is in the images",
    "kind": "object, background, attribute or relation",
    "failures": "images of the class that f0 takes for the rival",
    "controls": "images of the class that f0 gets right",
    "share": "mean over failures of the relevance for the rival that lies on the concept (0…1)",
    "share_control": "the same over controls, for the class itself",
    "density": "share over area: above 1 the model looks there more than at an average place",
    "area": "mean share of a failure's area that the concept covers",
    "in_failures": "share of failures in which the concept takes part in the decision (a hit)",
    "in_controls": "the same of controls",
    "log_odds": "log odds ratio of a hit in failures against controls, half a count added to each cell",
    "p": "Fisher's exact test, one-sided: hits are more frequent in failures",
    "q": "the same, corrected for all concepts and rivals of the class (Benjamini-Hochberg)",
    "effect": "mean fall of the rival's probability when the concept is blurred out of a failure",
    "rho": "how much more frequent the concept is in training images of the rival than of the class",
    "S_conf": "confounded score: share × log odds, 0 where q is not below the limit",
    "lacking": "share of failures without the concept",
    "lacking_control": "the same of controls",
    "q_lacking": "Fisher's exact test, one-sided: failures lack the concept more often; corrected as q",
    "S_rely": "reliance score: share on the concept in controls × log odds of lacking it, 0 where q_lacking is not "
    "below the limit: f0 is right where it is there and wrong where it is not",
    "S_val": "valid score of a concept for the class: its share in controls × log of how special it is to the class",
    "confounder": "whether S_conf, rho and, of a concept with a place, effect together say: it makes the model say the "
    "rival, by a data bug",
    "relied_on": "whether S_rely and the training data together say: the class is known by it, by a data bug",
}
"""The columns of the table of evidence, in words."""


@dataclass(frozen=True, kw_only=True)
class EvidenceRules:
    """Limits of the statistics.

    `least`: failures that a (class, rival) must have to be looked at by itself. `controls`: at most so many, and at
    most twice as many as failures. `hit_share`, `hit_density`, `hit_area`: a concept takes part in a decision from
    this share of relevance on, or from this density on where it covers at least that area. `q`, `rho`, `effect`: a
    confounder is below the first and above the others.
    """

    least: int = 10
    failures: int = 100
    controls: int = 200
    hit_share: float = 0.2
    hit_density: float = 1.5
    hit_area: float = 0.01
    q: float = 0.1
    rho: float = 2.0
    effect: float = 0.05

    def __post_init__(self) -> None:
        """Raise `ConfigError` on a limit that makes no sense."""
        for name in ("least", "failures", "controls"):
            if getattr(self, name) < 1:
                raise ConfigError(f"evidence.{name}: {getattr(self, name)}; expected 1 or more")
        for name in ("hit_share", "hit_area", "q"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"evidence.{name}: {getattr(self, name)}; expected a share in (0, 1]")
        for name in ("hit_density", "rho"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"evidence.{name}: {getattr(self, name)}; expected a positive number")


@dataclass(frozen=True)
class Audited:
    """What is known of the audit images: labels, predictions, the prediction's probability, `[N]`, and their concepts.

    `maps` `[N, 2, h, w]`: relevance for the predicted and for the true class, each summing to 1. `train`: concepts of
    training images, and `train_labels` `[M]` their classes.
    """

    classes: tuple[str, ...]
    labels: np.ndarray
    predictions: np.ndarray
    confidence: np.ndarray
    concepts: ConceptTable
    maps: np.ndarray
    train: ConceptTable
    train_labels: np.ndarray


@dataclass(frozen=True)
class Shares:
    """Per image and concept, float32 `[N, C]`: relevance on it for the predicted and the true class, area, hit."""

    names: list[str]
    predicted: np.ndarray
    true: np.ndarray
    area: np.ndarray
    hit: np.ndarray


def shares_of(audited: Audited, rules: EvidenceRules) -> Shares:
    """Shares of relevance; NaN where a concept has no mask, and then its presence is its hit."""
    names, table = audited.concepts.names, audited.concepts
    area = table.amounts(names)
    predicted, true = (table.amounts(names, audited.maps[:, side].astype(np.float32)) for side in (0, 1))
    density = np.divide(predicted, area, out=np.zeros_like(predicted), where=area > 0)
    hit = (predicted >= rules.hit_share) | ((density >= rules.hit_density) & (area >= rules.hit_area))
    return Shares(names, predicted, true, area, np.where(np.isnan(area), True, hit))


@dataclass(frozen=True)
class Group:
    """The failures of one (class, rival) and the controls they are held against: rows of the audit table."""

    true: int | None  # None: all classes but the rival
    rival: int | None  # None: whichever
    failures: np.ndarray
    controls: np.ndarray


def groups_of(audited: Audited, rules: EvidenceRules, seed: int) -> list[Group]:
    """Every (class, rival) with enough failures, every class with whichever rival, and every rival with all classes."""
    wrong = audited.predictions != audited.labels
    rng = np.random.default_rng(seed)
    found = []
    count = len(audited.classes)
    pairs: list[tuple[int | None, int | None]] = [
        *((true, rival) for true in range(count) for rival in range(count) if true != rival),
        *((true, None) for true in range(count)),
        *((None, rival) for rival in range(count)),
    ]
    for true, rival in pairs:
        of_class = audited.labels == true if true is not None else audited.labels != rival
        failures = np.flatnonzero(of_class & wrong & ((audited.predictions == rival) | (rival is None)))
        if len(failures) < rules.least:
            continue
        order = np.argsort(-audited.confidence[failures], kind="stable")  # the most confident errors first
        failures = np.sort(failures[order[: rules.failures]])
        controls = np.flatnonzero(of_class & ~wrong)
        most = min(rules.controls, max(2 * len(failures), rules.least))
        controls = np.sort(rng.permutation(controls)[:most])
        if len(controls):
            found.append(Group(true, rival, failures, controls))
    return found


def evidence_of(audited: Audited, rules: EvidenceRules, seed: int, effects: np.ndarray | None = None) -> pd.DataFrame:
    """One row a (class, rival, concept) with the columns of `MEANINGS`; within a (class, rival) best S_conf first.

    `effects` `[N, C]` (concepts by name): how much the predicted class's probability falls when a concept is blurred
    out of an image; NaN where that was not measured.
    """
    shares = shares_of(audited, rules)
    tables = _Tables.of(audited, shares, effects)
    frames = [_of_group(audited, shares, tables, group) for group in groups_of(audited, rules, seed)]
    if not frames or not shares.names:
        return pd.DataFrame(columns=list(MEANINGS))
    frame = pd.concat(frames, ignore_index=True)
    frame["q"] = frame.groupby("class")["p"].transform(lambda p: false_discovery_control(p.to_numpy()))
    weight = frame["share"].where(frame["share"].notna(), frame["in_failures"])
    frame["S_conf"] = np.where(frame["q"] < rules.q, weight * frame["log_odds"].clip(lower=0), 0.0)
    moves = (frame["effect"] > rules.effect) | (frame["area"].isna() | (effects is None))
    frame["q_lacking"] = frame.groupby("class")["p_lacking"].transform(lambda p: false_discovery_control(p.to_numpy()))
    weight = frame["share_control"].where(frame["share_control"].notna(), 1 - frame["lacking_control"])
    frame["S_rely"] = np.where(frame["q_lacking"] < rules.q, weight * frame["log_odds_lacking"].clip(lower=0), 0.0)
    frame["relied_on"] = (frame["S_rely"] > 0) & (frame["special"] >= rules.rho)
    frame["confounder"] = (frame["S_conf"] > 0) & (frame["rho"] >= rules.rho) & moves
    order = frame.sort_values(["class", "rival", "S_conf", "log_odds"], ascending=[True, True, False, False])
    return order[list(MEANINGS)].reset_index(drop=True)


@dataclass(frozen=True)
class _Tables:
    # what all groups share; C concepts, K classes
    kinds: list[str]
    present: np.ndarray  # bool [N, C]
    rates: np.ndarray  # [K, C]: P(concept | class) in train, add-one smoothed
    special: np.ndarray  # [K, C]: log of P(concept | class) over its mean in the other classes
    valid: np.ndarray  # [K, C]: S_val
    effects: np.ndarray  # [N, C]

    @classmethod
    def of(cls, audited: Audited, shares: Shares, effects: np.ndarray | None) -> "_Tables":
        names, count = shares.names, len(audited.classes)
        kinds, present = audited.concepts.kinds(), audited.concepts.present(names)
        in_train = audited.train.present(names)
        shown = np.stack([in_train[audited.train_labels == label].sum(axis=0) for label in range(count)])
        sizes = np.bincount(audited.train_labels, minlength=count)[:, None]
        rates = (shown + 1) / (sizes + 2)
        special = np.log(rates * max(1, count - 1) / (rates.sum(axis=0) - rates))
        valid = np.full((count, len(names)), np.nan)
        right = audited.predictions == audited.labels
        for label in range(count):
            own = right & (audited.labels == label)
            if own.any():
                share = shares.true[own].mean(axis=0)
                valid[label] = np.where(np.isnan(share), present[own].mean(axis=0), share) * special[label]
        measured = np.full(present.shape, np.nan) if effects is None else effects
        return cls([kinds[name] for name in names], present, rates, special, valid, measured)


def _of_group(audited: Audited, shares: Shares, tables: _Tables, group: Group) -> pd.DataFrame:
    fail, control, classes = group.failures, group.controls, audited.classes
    hit = shares.hit
    n11, n01 = hit[fail].sum(axis=0), hit[control].sum(axis=0)
    without, without_control = ((~tables.present[rows]).sum(axis=0) for rows in (fail, control))
    share, area = shares.predicted[fail].mean(axis=0), shares.area[fail].mean(axis=0)
    effects = tables.effects[fail]
    measured = (~np.isnan(effects)).sum(axis=0)
    frame = pd.DataFrame(
        {
            "class": ANY if group.true is None else classes[group.true],
            "rival": ANY if group.rival is None else classes[group.rival],
            "concept": shares.names,
            "kind": tables.kinds,
            "failures": len(fail),
            "controls": len(control),
            "share": share,
            "share_control": shares.true[control].mean(axis=0),
            "density": np.divide(share, area, out=np.full(len(share), np.nan, dtype=share.dtype), where=area > 0),
            "area": area,
            "in_failures": n11 / len(fail),
            "in_controls": n01 / len(control),
            "log_odds": _log_odds(n11, n01, len(fail), len(control)),
            "p": _fisher(n11, n01, len(fail), len(control)),
            "lacking": without / len(fail),
            "lacking_control": without_control / len(control),
            "log_odds_lacking": _log_odds(without, without_control, len(fail), len(control)),
            "p_lacking": _fisher(without, without_control, len(fail), len(control)),
            "effect": np.where(measured > 0, np.nansum(effects, axis=0) / np.maximum(measured, 1), np.nan),
            "rho": _ratio(tables.rates, group),
            "special": np.nan if group.true is None else np.exp(tables.special[group.true]),
            "S_val": np.nan if group.true is None else tables.valid[group.true],
        }
    )
    return frame[(tables.present[fail].any(axis=0) | tables.present[control].any(axis=0))]


def _log_odds(n11: np.ndarray, n01: np.ndarray, failures: int, controls: int) -> np.ndarray:
    return np.asarray(np.log((n11 + 0.5) * (controls - n01 + 0.5) / ((failures - n11 + 0.5) * (n01 + 0.5))))


def _fisher(n11: np.ndarray, n01: np.ndarray, failures: int, controls: int) -> np.ndarray:
    return np.asarray(hypergeom.sf(n11 - 1, failures + controls, n11 + n01, failures))


def _ratio(rates: np.ndarray, group: Group) -> np.ndarray:
    # P(concept | rival) / P(concept | class); of all classes but one the mean, of whichever rival the largest
    every = np.arange(len(rates))
    own = rates[every != group.rival].mean(axis=0) if group.true is None else rates[group.true]
    rival = rates[every != group.true].max(axis=0) if group.rival is None else rates[group.rival]
    return np.asarray(rival / own)
