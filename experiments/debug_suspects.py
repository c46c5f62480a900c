"""What the stages of discovery pass on: who is suspected, what is blurred, what a person may lay over an image."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from aaca.annotate.aggregate import Verdicts
from aaca.discover.attribution.base import contrast
from aaca.discover.concepts.table import ConceptTable
from aaca.discover.evidence import Audited, EvidenceRules, Shares, evidence_of, groups_of
from aaca.runtime.files import write_json

SUSPECTS = 5  # concepts a class that annotators are asked about by name
BLURRED = 30  # concepts whose effect is measured, the most suspicious first (AACA)
VERDICTS = ("verdicts.csv", "mislabelled.csv", "agreement.json")


def suspicion(evidence: pd.DataFrame, classes: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """How much each concept is suspected of misleading about each class, `[K, C]`: its best score or log odds."""
    found = np.zeros((len(classes), len(names)))
    scores = evidence[["S_conf", "S_rely", "log_odds"]].max(axis=1)
    for true, concept, score in zip(evidence["class"], evidence["concept"], scores, strict=True):
        if true in classes:
            place = classes.index(true), names.index(concept)
            found[place] = max(found[place], score)
    return found


def suspects_of(evidence: pd.DataFrame, name: str) -> list[str]:
    """At most `SUSPECTS` concepts that the statistics blame for a class's failures, the highest score first."""
    own = evidence[(evidence["class"] == name) & (evidence["confounder"] | evidence["relied_on"])]
    scores = own[["S_conf", "S_rely"]].max(axis=1).groupby(own["concept"]).max()
    return [str(concept) for concept in scores.sort_values(ascending=False, kind="stable").index[:SUSPECTS]]


def overlays(maps: np.ndarray) -> dict[str, np.ndarray]:
    """What a person may lay over an image, of its maps `[2, h, w]`: for the predicted class, the true one, the gap."""
    predicted, true = (torch.from_numpy(part.astype(np.float32)) for part in maps)
    return {"predicted": predicted.numpy(), "true": true.numpy(), "contrast": contrast(predicted, true).numpy()}


def blurred_pairs(audited: Audited, shares: Shares, rules: EvidenceRules, seed: int) -> np.ndarray:
    """(row, concept) `[P, 2]` of failures and concepts with a mask in them, the `BLURRED` most suspicious concepts."""
    without = evidence_of(audited, rules, seed)
    if without.empty:
        return np.zeros((0, 2), dtype=np.int64)
    ranked = without.groupby("concept")["S_conf"].max().sort_values(ascending=False, kind="stable").index[:BLURRED]
    suspects = np.isin(shares.names, ranked)
    failures = np.unique(np.concatenate([group.failures for group in groups_of(audited, rules, seed)]))
    placed = (shares.area > 0)[failures] & suspects
    rows, columns = np.nonzero(placed)
    return np.stack([failures[rows], columns], axis=1)


def concept_masks(
    concepts: ConceptTable, pairs: np.ndarray, names: Sequence[str], cells: tuple[int, int]
) -> np.ndarray:
    """The masks `[P, h, w]` of (row, concept) pairs: the sum over a concept's parts in an image, at most 1."""
    frame = concepts.frame[concepts.frame["mask"] >= 0]
    places = {pair: place for place, pair in enumerate(map(tuple, pairs.tolist()))}
    codes = pd.Index(names).get_indexer(frame["concept"])
    found = np.zeros((len(pairs), *cells), dtype=np.float32)
    for row, code, mask in zip(frame["row"], codes, frame["mask"], strict=True):
        place = places.get((row, code))
        if place is not None:
            found[place] += concepts.masks[mask]
    return found.clip(max=1)


def write_verdicts(folder: Path, verdicts: Verdicts) -> None:
    """The files of `VERDICTS`, beside the concept sets."""
    verdicts.table.to_csv(folder / VERDICTS[0], index=False)
    pd.DataFrame({"image_id": verdicts.mislabelled}).to_csv(folder / VERDICTS[1], index=False)
    agreement = {"krippendorff_alpha": verdicts.alpha, **verdicts.counts, "difficulty": verdicts.difficulty}
    write_json(folder / VERDICTS[2], agreement)
